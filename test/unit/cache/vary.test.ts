// Vary: RFC 9111 section 4.1.
import fc from 'fast-check';
import t from 'tap';
import { ABSENT, sameVariant, varyNames, varyValues } from '../../../src/cache/vary.ts';

const entryFor = (names: string[], pairs: string[]) => ({ vary: names, varyValues: varyValues(names, pairs) });

t.test('the names of all Vary lines come in lower case, sorted, once (RFC 9110 section 12.5.5)', async (t) => {
  const table: [lines: string[], names: ReturnType<typeof varyNames>][] = [
    [[], []],
    [[''], []],
    [['Origin'], ['origin']],
    [['X-B, accept , ,\tx-a'], ['accept', 'x-a', 'x-b']],
    [
      ['Origin', 'ORIGIN, Accept'],
      ['accept', 'origin'],
    ],
    [['*'], '*'],
    [['Accept, *'], '*'],
    [['Accept', ' * '], '*'],
    [['a b, *'], '*'],
    [['a b'], null],
    [['a;b'], null],
    [['é'], null],
    [['"a"'], null],
    [[Array.from({ length: 32 }, (_, i) => `x-${10 + i}`).join()], Array.from({ length: 32 }, (_, i) => `x-${10 + i}`)],
    [[Array.from({ length: 33 }, (_, i) => `x-${i}`).join()], null],
    [[Array.from({ length: 33 }, () => 'x').join()], null],
  ];
  for (const [lines, names] of table) {
    t.same(varyNames(lines.flatMap((line) => ['vary', line])), names, lines.join(' | '));
  }
  t.same(varyNames(['X-Vary', '*', 'Vary', 'a', 'Content-Type', 'b']), ['a']);
});

t.test('values are compared after normalisation (RFC 9111 section 4.1)', async (t) => {
  const table: [name: string, pairs: string[], value: string][] = [
    ['accept-encoding', ['Accept-Encoding', 'GZIP ,br'], 'gzip, br'],
    ['accept-encoding', ['accept-encoding', 'gzip', 'A', 'b', 'Accept-Encoding', 'br'], 'gzip, br'],
    ['accept', ['Accept', 'Text/HTML;q=0.5'], 'text/html;q=0.5'],
    ['accept-language', ['Accept-Language', 'de-DE'], 'de-de'],
    ['x-a', ['X-A', '  Abc\t,  d e  '], 'Abc, d e'],
    ['x-a', ['X-A', '"a , \\" , b" , c'], '"a , \\" , b", c'],
    ['x-a', ['X-A', ''], ''],
    ['x-a', ['X-A', '', 'X-A', ''], ', '],
    ['x-a', ['X-AB', 'v', 'X', 'v'], ABSENT],
  ];
  for (const [name, pairs, value] of table) t.same(varyValues([name], pairs), [value], pairs.join(' '));
  t.same(varyValues(['a', 'b', 'c'], ['C', '3', 'A', '1']), ['1', ABSENT, '3']);
  t.same(varyValues([], ['A', '1']), []);
});

t.test('a variant is for requests that agree in every named field (RFC 9111 section 4.1)', async (t) => {
  const entry = entryFor(['accept-encoding', 'x-a'], ['Accept-Encoding', 'gzip, br', 'X-A', 'v']);
  t.equal(sameVariant(entry, ['x-a', ' v ', 'Other', 'o', 'Accept-Encoding', 'GZIP', 'accept-encoding', 'br']), true);
  t.equal(sameVariant(entry, ['X-A', 'v', 'Accept-Encoding', 'br, gzip']), false, 'order may matter');
  t.equal(sameVariant(entry, ['X-A', 'V', 'Accept-Encoding', 'gzip, br']), false, 'case of others may matter');
  t.equal(sameVariant(entry, ['X-A', 'v']), false);
  t.equal(sameVariant(entry, []), false);
  t.equal(sameVariant(entryFor([], ['A', '1']), ['B', '2']), true);
});

t.test('an absent field is not an empty one (RFC 9111 section 4.1)', async (t) => {
  t.equal(sameVariant(entryFor(['x'], []), []), true);
  t.equal(sameVariant(entryFor(['x'], ['X', '']), ['x', '']), true);
  t.equal(sameVariant(entryFor(['x'], []), ['X', '']), false);
  t.equal(sameVariant(entryFor(['x'], ['X', '']), []), false);
});

t.test(
  'a request always matches what it stored itself, and blanks or split lines change nothing (property)',
  async (t) => {
    const word = fc.stringMatching(/^[a-zA-Z0-9;=*-]{1,6}$/);
    const blank = fc.constantFrom('', ' ', '\t', '  ');
    const property = fc.property(
      fc.array(word, { minLength: 1, maxLength: 6 }),
      blank,
      blank,
      fc.nat(),
      (words, a, b, cut) => {
        const entry = entryFor(['x-list'], ['X-List', words.join(',')]);
        const half = 1 + (cut % words.length);
        const pairs = ['x-list', words.slice(0, half).join(`${a},${b}`)];
        if (half < words.length) pairs.push('X-LIST', words.slice(half).join(`${b},${a}`));
        return sameVariant(entry, pairs) && !sameVariant(entry, [...pairs, 'X-List', 'more']);
      },
    );
    t.doesNotThrow(() => fc.assert(property));
  },
);
