// Cache-Control and what else a request says about the cache: RFC 9111 section 5.2.
import fc from 'fast-check';
import t from 'tap';
import { Directives, deltaSeconds, isToken, parseDirectives } from '../../../src/cache/directives.ts';
import { NO_FIELDS, type RequestFields, readRequestFields } from '../../../src/cache/request-fields.ts';

const parse = (...lines: string[]) => parseDirectives(lines);

t.test('directives are known by name in any case, over several lines (RFC 9111 section 5.2)', async (t) => {
  const read = parse('No-Store , \tPRIVATE', '', ',,max-age=5,', 'x-unknown=1, y="a, no-cache, b"');
  t.equal(read.malformed, false);
  for (const name of ['no-store', 'private', 'max-age', 'x-unknown', 'y']) t.equal(read.has(name), true, name);
  for (const name of ['no-cache', 'public', 'no', 'store', '']) t.equal(read.has(name), false, name);
  t.equal(parse().has('no-store'), false);
});

t.test('an argument comes as a token or quoted, escapes resolved (RFC 9111 section 5.2)', async (t) => {
  const table: [line: string, seconds: number][] = [
    ['max-age=60', 60],
    ['MAX-AGE=060', 60],
    ['max-age="60"', 60],
    ['max-age="6\\0"', 60],
    ['max-age=0', 0],
    ['max-age=2147483648', 2 ** 31],
    ['max-age=99999999999999999999999999999', 2 ** 31],
    ['s-maxage=60', -1],
    ['x="max-age=60"', -1],
    ['x="\\", max-age=60"', -1],
  ];
  for (const [line, seconds] of table) {
    t.equal(parse(line).seconds('max-age'), seconds, line);
    t.equal(parse(line).malformed, false, line);
  }
});

t.test('seconds that are no number, or differ, are NaN (RFC 9111 sections 1.2.2, 4.2.1)', async (t) => {
  const bad = ['abc', '-1', '+1', '1.0', '1e3', '0x10', '""', '" 1"', '"1 "', '', "'60'", '60s'];
  for (const value of bad) t.ok(Number.isNaN(parse(`max-age=${value}`).seconds('max-age')), value);
  t.ok(Number.isNaN(parse('max-age').seconds('max-age')));
  t.ok(Number.isNaN(parse('max-age=1, max-age=2').seconds('max-age')));
  t.ok(Number.isNaN(parse('max-age=1', 'Max-Age=2').seconds('max-age')));
  t.ok(Number.isNaN(parse('max-age=1, max-age').seconds('max-age')));
  t.ok(Number.isNaN(parse('max-age=x, max-age=1').seconds('max-age')));
  t.equal(parse('max-age=1', 'max-age="01"').seconds('max-age'), 1, 'the same twice');
  t.same(['', '٣', '1 '].map(deltaSeconds), [Number.NaN, Number.NaN, Number.NaN]);
  t.ok(Number.isNaN(deltaSeconds(null)));
});

t.test('broken syntax is noticed, and what forbids is still found (RFC 9111 section 5.2)', async (t) => {
  const broken = [
    '"',
    '=5',
    '= , x',
    'max-age =5',
    'max-age= 5',
    'max-age=5 6',
    'max-age=5;',
    'a b',
    'x="open',
    'x="open\\"',
    'x="a"b',
    'x=a"b"',
    'x="\u0001"',
    'x="\\\u007f"',
    'x=a=b',
    '@',
    'é',
    'x={1}',
  ];
  for (const line of broken) {
    t.equal(parse(line).malformed, true, JSON.stringify(line));
    for (const read of [parse(`${line}, no-store`), parse('no-store', line), parse(line, 'no-store')]) {
      t.equal(read.malformed, true, JSON.stringify(line));
      t.equal(read.has('no-store'), true, JSON.stringify(line));
    }
  }
  for (const line of ['no-store;', 'no-store x', 'no-store="', 'no-store =1']) {
    t.equal(parse(line).has('no-store'), true, JSON.stringify(line));
    t.equal(parse(line).malformed, true, JSON.stringify(line));
  }
  for (const line of ['', ' ', ',', ' , ,\t', 'x=', 'x=""', 'x="\t é \\""', "a!#$%&'*+-.^_`|~=b"]) {
    t.equal(parse(line).malformed, false, line);
  }
});

t.test('a qualified directive lists fields, in lower case (RFC 9111 sections 5.2.2.4, 5.2.2.7)', async (t) => {
  for (const name of ['private', 'no-cache']) {
    const table: [line: string, names: string[] | null][] = [
      [`${name}="Set-Cookie"`, ['set-cookie']],
      [`${name}=X-A`, ['x-a']],
      [`${name}="X-A, x-b ,,\tX-C"`, ['x-a', 'x-b', 'x-c']],
      [`${name}="a", ${name}="b"`, ['a', 'b']],
      [name, null],
      [`${name}=""`, null],
      [`${name}=`, null],
      [`${name}=, x`, null],
      [`${name}=" , "`, null],
      [`${name}="a", ${name}`, null],
      [`${name}="a", ${name}=""`, null],
      ['public', null],
    ];
    for (const [line, names] of table) {
      t.same(parse(line).fieldNames(name), names, line);
      t.equal(parse(line).malformed, false, line);
    }
    for (const list of ['a b', 'a; b', '"', 'a, (b)', 'é', 'a=b']) {
      const line = `${name}="${list.replaceAll('"', '\\"')}"`;
      t.equal(parse(line).malformed, true, line);
      t.equal(parse(line).fieldNames(name), null, line);
    }
  }
  t.equal(parse('x="a b"').malformed, false, 'the argument of an unknown one is nothing to us');
});

t.test('what is written is read again, whatever the order and the quoting (property)', async (t) => {
  const name = fc.stringMatching(/^[a-z][a-z0-9!#$%&'*+.^_`|~-]{0,8}$/);
  const argument = fc.option(fc.integer({ min: 0, max: 2 ** 31 }), { nil: null });
  const directive = fc.tuple(name, argument, fc.boolean(), fc.constantFrom(',', ' , ', ',,', ',\t'));
  const property = fc.property(
    fc.uniqueArray(directive, { selector: ([key]) => key, maxLength: 12 }),
    fc.nat(),
    (all, cut) => {
      const usable = all.filter(([key]) => key !== 'private' && key !== 'no-cache');
      const parts = usable.map(([key, value, quoted, comma]) => {
        const spelled = quoted ? key.toUpperCase() : key;
        if (value === null) return spelled + comma;
        return `${spelled}=${quoted ? `"${value}"` : value}${comma}`;
      });
      const half = parts.length === 0 ? 0 : cut % parts.length;
      const read = parse(parts.slice(0, half).join(''), parts.slice(half).join(''));
      if (read.malformed) return false;
      return usable.every(([key, value]) => {
        const seconds = read.seconds(key);
        return read.has(key) && (value === null ? Number.isNaN(seconds) && read.isBare(key) : seconds === value);
      });
    },
  );
  t.doesNotThrow(() => fc.assert(property));
});

t.test('a quoted string is opaque, whatever is in it (property)', async (t) => {
  const text = fc.string({ unit: fc.constantFrom('a', ',', ' ', '=', '"', '\\', ';', 'no-store', 'é', '\t') });
  const property = fc.property(text, (raw) => {
    const read = parse(`x="${raw.replace(/["\\]/g, '\\$&')}", public`);
    return !read.malformed && !read.has('no-store') && read.has('public');
  });
  t.doesNotThrow(() => fc.assert(property));
});

t.test('any bytes are read, in time that grows with their length only (property)', async (t) => {
  const text = fc.string({ unit: fc.constantFrom('a', ',', ' ', '=', '"', '\\', '\u0000', 'é'), maxLength: 60 });
  t.doesNotThrow(() => fc.assert(fc.property(text, (line) => parse(line, line) instanceof Directives)));
  const began = performance.now();
  parse('a="\\",'.repeat(40_000), 'a="\\"\\"'.repeat(40_000), '"'.repeat(200_000));
  t.ok(performance.now() - began < 2000);
});

t.test('a token is one or more tchar (RFC 9110 section 5.6.2)', async (t) => {
  const tchars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  for (let c = 0; c < 256; c++) {
    const character = String.fromCharCode(c);
    if (isToken(character) !== tchars.includes(character)) t.fail(`character ${c}`);
  }
  t.equal(isToken(tchars), true);
  t.equal(isToken(''), false);
  t.equal(isToken('a b'), false);
});

t.test('request directives are read (RFC 9111 section 5.2.1, RFC 5861 section 4)', async (t) => {
  const table: [control: string, found: Partial<RequestFields>][] = [
    ['', {}],
    ['no-store', { noStore: true }],
    ['NO-CACHE', { noCache: true }],
    ['only-if-cached', { onlyIfCached: true }],
    ['max-age=0', { maxAgeMs: 0 }],
    ['max-age=5, min-fresh=6', { maxAgeMs: 5000, minFreshMs: 6000 }],
    ['max-stale', { maxStaleMs: Number.POSITIVE_INFINITY }],
    ['max-stale=7', { maxStaleMs: 7000 }],
    ['stale-if-error=8', { staleIfErrorMs: 8000 }],
    ['unknown=x, public', {}],
  ];
  for (const [control, found] of table) {
    t.same(readRequestFields(['cache-CONTROL', control]), { ...NO_FIELDS, ...found }, control);
  }
  const lines = ['Cache-Control', 'no-store', 'A', 'b', 'Cache-Control', 'max-age=1'];
  t.same(readRequestFields(lines), { ...NO_FIELDS, noStore: true, maxAgeMs: 1000 }, 'several lines');
  t.same(readRequestFields([]), NO_FIELDS);
  t.throws(() => {
    (NO_FIELDS as RequestFields).noCache = true;
  }, TypeError);
});

t.test(
  'a request directive that cannot be read asks the upstream, and no-store stays (RFC 9111 section 4.2.1)',
  async (t) => {
    const bad = [
      'max-age=abc',
      'max-age',
      'max-age=1, max-age=2',
      'min-fresh=-1',
      'max-stale=x',
      'max-stale, max-stale=1',
    ];
    for (const control of [...bad, 'stale-if-error=', '=', 'max-age=5;', 'x="']) {
      const fields = readRequestFields(['Cache-Control', control]);
      t.match(fields, { noCache: true, noStore: false }, control);
      t.equal(Number.isNaN(fields.maxAgeMs + fields.minFreshMs + fields.maxStaleMs), false, control);
      t.match(readRequestFields(['Cache-Control', `${control}, no-store`]), { noCache: true, noStore: true }, control);
    }
  },
);

t.test('Pragma: no-cache counts only without Cache-Control (RFC 9111 section 5.4)', async (t) => {
  t.equal(readRequestFields(['Pragma', 'no-cache']).noCache, true);
  t.equal(readRequestFields(['PRAGMA', 'x=1, No-Cache']).noCache, true);
  t.equal(readRequestFields(['Pragma', 'a', 'Pragma', 'no-cache']).noCache, true);
  t.equal(readRequestFields(['Pragma', 'no-cached']).noCache, false);
  t.equal(readRequestFields(['Pragma', 'no-cache', 'Cache-Control', 'max-age=5']).noCache, false);
  t.equal(readRequestFields(['Cache-Control', '', 'Pragma', 'no-cache']).noCache, false);
});

t.test('conditions, ranges and credentials of a request are found (RFC 9110 sections 13, 14)', async (t) => {
  const table: [pairs: string[], found: Partial<RequestFields>][] = [
    [['IF-none-match', '"a"'], { ifNoneMatch: '"a"' }],
    [['If-None-Match', '"a"', 'X', 'y', 'if-none-match', 'W/"b"'], { ifNoneMatch: '"a", W/"b"' }],
    [['If-Modified-Since', 'x'], { ifModifiedSince: 'x' }],
    [['Range', 'bytes=0-1', 'If-Range', '"a"'], { range: 'bytes=0-1', ifRange: '"a"' }],
    [['Range', 'bytes=0-1', 'Range', 'bytes=2-3'], { range: 'bytes=0-1, bytes=2-3' }],
    [['If-Match', '*'], { precondition: true }],
    [['if-unmodified-since', ''], { precondition: true }],
    [['authorization', ''], { authorized: true }],
    [['If-None-Matcj', 'x', 'If-Modified-Sincf', 'x', 'Rangf', 'x', 'If-Rangf', 'x', 'If-Matci', 'x'], {}],
    [['Authorizatioo', 'x', 'If-Unmodified-Sincf', 'x', 'Cache-Controk', 'no-store', 'Pragmb', 'no-cache'], {}],
  ];
  for (const [pairs, found] of table) {
    t.same(readRequestFields(pairs), { ...NO_FIELDS, ...found }, pairs.join(' '));
  }
});
