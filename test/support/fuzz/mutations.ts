// Changes bytes without regard to what they mean: for the fuzz tests of requests and of answers.

import fc from 'fast-check';

export type Mutation = (text: string) => string;

/** A place in the text as a share of it. */
export const PLACE = fc.nat(9999);
export const at = (text: string, place: number) => Math.floor((place / 10_000) * (text.length + 1));

/** The n-th of all matches, by share. */
function onOne(text: string, pattern: RegExp, place: number, change: (found: string) => string): string {
  const all = [...text.matchAll(pattern)];
  if (all.length === 0) return text;
  const { index, 0: found } = all[Math.floor((place / 10_000) * all.length)]!;
  return text.slice(0, index) + change(found) + text.slice(index + found.length);
}

const LINE = /[^\r\n]*\r\n/g;
const MUTATION: fc.Arbitrary<Mutation> = fc.oneof(
  fc
    .tuple(
      PLACE,
      fc.constantFrom(
        '\0',
        ' ',
        '\t',
        '\r',
        '\n',
        '\r\n',
        '\x0b',
        '\x0c',
        '\x7f',
        '\x85',
        '\xa0',
        ',',
        ':',
        ';',
        '0',
        '"',
        '\r\n\r\n',
      ),
    )
    .map(
      ([place, bytes]): Mutation =>
        (text) =>
          text.slice(0, at(text, place)) + bytes + text.slice(at(text, place)),
    ),
  fc.tuple(PLACE, fc.nat(3)).map(
    ([place, n]): Mutation =>
      (text) =>
        text.slice(0, at(text, place)) + text.slice(at(text, place) + n),
  ),
  fc.tuple(PLACE, PLACE, fc.nat(60)).map(
    ([from, to, n]): Mutation =>
      (text) => {
        const piece = text.slice(at(text, from), at(text, from) + n);
        return text.slice(0, at(text, to)) + piece + text.slice(at(text, to));
      },
  ),
  PLACE.map(
    (place): Mutation =>
      (text) =>
        onOne(text, LINE, place, (line) => line + line),
  ),
  PLACE.map(
    (place): Mutation =>
      (text) =>
        onOne(text, LINE, place, () => ''),
  ),
  fc.tuple(PLACE, fc.constantFrom('\n', '\r', '\r\r\n', '\n\r', '\r\n ', '\r\n\t', ' \r\n', '\0\r\n')).map(
    ([place, end]): Mutation =>
      (text) =>
        onOne(text, /\r\n/g, place, () => end),
  ),
  fc.tuple(PLACE, fc.constantFrom(' : ', ':', ': ,', ':: ', '\t: ', ':\t', ':\r\n ')).map(
    ([place, colon]): Mutation =>
      (text) =>
        onOne(text, /: /g, place, () => colon),
  ),
  fc.tuple(PLACE, fc.nat(255)).map(
    ([place, byte]): Mutation =>
      (text) =>
        onOne(text, /[\s\S]/g, place, () => String.fromCharCode(byte)),
  ),
  fc.tuple(PLACE, fc.nat(15)).map(
    ([place, digit]): Mutation =>
      (text) =>
        onOne(text, /\d/g, place, () => digit.toString(16)),
  ),
  // Two header lines become one.
  PLACE.map(
    (place): Mutation =>
      (text) =>
        onOne(text, /\r\n[\w-]+: /g, place, () => ', '),
  ),
  PLACE.map(
    (place): Mutation =>
      (text) =>
        onOne(text, /[a-zA-Z]/g, place, (c) => String.fromCharCode(c.charCodeAt(0) ^ 0x20)),
  ),
  PLACE.map(
    (place): Mutation =>
      (text) =>
        text.slice(0, at(text, place)),
  ),
);

/** Half of all cases have none. */
export const MUTATIONS: fc.Arbitrary<Mutation[]> = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Mutation[]>([]) },
  { weight: 3, arbitrary: fc.array(MUTATION, { maxLength: 3 }) },
);

/** Where the bytes are cut into packets. */
export const CUTS: fc.Arbitrary<number[]> = fc.oneof(
  { weight: 2, arbitrary: fc.constant<number[]>([]) },
  { weight: 1, arbitrary: fc.array(PLACE, { maxLength: 4 }) },
);

/** Mostly the usual. */
export const often = <T>(usual: T, ...rare: T[]): fc.Arbitrary<T> =>
  fc.oneof({ weight: 36, arbitrary: fc.constant(usual) }, { weight: 4, arbitrary: fc.constantFrom(...rare) });

/** The text in pieces. */
export function piecesOf(text: string, cuts: readonly number[]): string[] {
  const pieces: string[] = [];
  let from = 0;
  for (const place of [...cuts.map((cut) => at(text, cut)).sort((a, b) => a - b), text.length]) {
    if (place > from) pieces.push(text.slice(from, place));
    from = Math.max(from, place);
  }
  return pieces;
}
