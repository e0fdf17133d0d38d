// Random request targets: hostile pieces in all encodings, behind a name of an upstream or something that looks like one.

import fc from 'fast-check';

/** Names and base paths; some begin like others. */
export const UPSTREAMS: Readonly<Record<string, string>> = {
  ai: '/base/v1',
  aix: '/base/v1x',
  root: '',
  deep: '/base',
};

const BYTES = [
  '/',
  '.',
  '%',
  '2',
  'e',
  'E',
  'f',
  'F',
  '5',
  'c',
  'C',
  ';',
  '\\',
  '0',
  'a',
  '?',
  '#',
  '3',
  'b',
  'u',
  ':',
  '@',
];
const PIECES = [
  '..',
  '/..',
  '/../',
  '/./',
  '//',
  '...',
  '/..;x=1/',
  ';x',
  '%2e',
  '%2E%2e',
  '.%2e',
  '%2f',
  '%5c',
  '%25',
  '%252e',
  '%252f',
  '%3b',
  '%3f',
  '%23',
  '%00',
  '%20',
  '%zz',
  '%c0%ae',
  '%c0%af',
  '%c1%9c',
  '%e0%80%ae',
  '%f0%80%80%ae',
  '%25c0%25ae',
  '%u002e',
  '%u2215',
  '%25u002e',
  '%25u002f',
  '%ef%bc%8e',
  '%e2%88%95',
  '%c3%a9',
  'v1',
  'base',
  'http://evil/',
  '//evil',
  '@evil',
  ' ',
  '\t',
  '\0',
  '\xe9',
  '\xc0\xae',
];

const nested = fc
  .record({
    text: fc.constantFrom('.', '..', '/', '\\', ';', '?', '../', '/..;x/', '%', '\xc0\xae', '\xc0\xaf', '\0'),
    depth: fc.nat({ max: 7 }),
  })
  .map(({ text, depth }) => {
    let out: string = text;
    for (let i = 0; i < depth; i++) {
      const encode = (c: string) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`;
      out = i === 0 ? [...out].map(encode).join('') : out.replaceAll('%', '%25');
    }
    return out;
  });

/** The rest of a target, hostile to any degree. */
export const REST: fc.Arbitrary<string> = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(...BYTES) },
      { weight: 4, arbitrary: fc.constantFrom(...PIECES) },
      { weight: 2, arbitrary: nested },
      { weight: 2, arbitrary: fc.constantFrom('/', 'a', '/b') },
    ),
    { maxLength: 14, size: 'max' },
  )
  .map((parts) => parts.join(''));

const BEFORE = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(...Object.keys(UPSTREAMS).map((name) => `/${name}/`)) },
  { weight: 2, arbitrary: fc.constantFrom('/ai', '/aix', '/root', '/deep') },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '',
      '/',
      '//ai/',
      '/no/',
      'ai/',
      'http://a/ai/',
      '/ai%2f',
      '/%61i/',
      '/ai;x/',
      '/./ai/',
      '*',
    ),
  },
);

export interface TargetCase {
  readonly target: string;
}

export const TARGET_CASE: fc.Arbitrary<TargetCase> = fc
  .tuple(
    BEFORE,
    REST,
    fc.oneof(
      { weight: 60, arbitrary: fc.constant('') },
      { weight: 1, arbitrary: fc.constant(`/${'long'.repeat(1500)}`) },
    ),
  )
  .map(([before, rest, long]) => ({ target: before + rest + long }));
