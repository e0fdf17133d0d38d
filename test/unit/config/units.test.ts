import fc from 'fast-check';
import t from 'tap';
import { collide, parseAddress } from '../../../src/config/address.ts';
import { parseBaseUrl } from '../../../src/config/base-url.ts';
import type { Address } from '../../../src/config/schema.ts';
import { distance, suggest } from '../../../src/config/suggest.ts';
import { formatDuration, formatSize, parseCount, parseDuration, parseSize } from '../../../src/config/units.ts';

const ANY = { min: 0, max: 1e18 };

t.test('a duration is read in all its units', async (t) => {
  const expected = { '250ms': 250, '30s': 30_000, '10m': 600_000, '1h': 3_600_000, '2d': 172_800_000, '0s': 0, '0': 0 };
  for (const [text, ms] of Object.entries(expected)) t.equal(parseDuration(text, ANY), ms, text);
  t.equal(parseDuration(0, ANY), 0, 'plain 0');
  t.equal(parseDuration('none', { ...ANY, word: 'none' }), Number.POSITIVE_INFINITY);
});

t.test('nothing else is a duration', async (t) => {
  const refused = [
    '',
    '30',
    '1.5s',
    '-1s',
    '+1s',
    '1h30m',
    '30 s',
    ' 30s',
    '30S',
    '1w',
    'none',
    'Infinity',
    '1e3s',
    's',
  ];
  for (const raw of [...refused, 30, -0.5, Number.NaN, true, null, undefined, [], {}, `${'9'.repeat(13)}s`]) {
    t.equal(parseDuration(raw, ANY), 'must be a duration such as 250ms, 30s, 10m, 1h or 2d', `${JSON.stringify(raw)}`);
  }
});

t.test('a duration outside its bounds is told the bound', async (t) => {
  const bounds = { min: 1, max: 86_400_000, word: 'none' } as const;
  t.equal(parseDuration('0s', bounds), 'must be a duration of at least 1ms, or none');
  t.equal(parseDuration('25h', bounds), 'must be a duration of at most 1d, or none');
  t.equal(parseDuration('24h', bounds), 86_400_000);
});

t.test('a size is read in binary multiples under every spelling', async (t) => {
  const expected = { '10b': 10, '256kb': 262_144, '64mb': 67_108_864, '1gb': 1_073_741_824, '0': 0, '0b': 0 };
  for (const [text, bytes] of Object.entries(expected)) t.equal(parseSize(text, ANY), bytes, text);
  for (const text of ['1kb', '1KB', '1KiB', '1kib', '1Kb']) t.equal(parseSize(text, ANY), 1024, text);
  t.equal(parseSize('1MiB', ANY), 1024 ** 2);
  t.equal(parseSize('1GiB', ANY), 1024 ** 3);
});

t.test('nothing else is a size', async (t) => {
  for (const raw of ['64', 64, '1.5mb', '-1b', '1 mb', 'mb', '1tb', '1ib', '1k', 'unlimited', null, {}]) {
    t.match(parseSize(raw, ANY), /^must be a size such as 10b/, JSON.stringify(raw));
  }
  t.equal(parseSize('512b', { min: 1024, max: 2048 }), 'must be a size of at least 1kb');
  t.equal(parseSize('3kb', { min: 1024, max: 2048 }), 'must be a size of at most 2kb');
});

t.test('a count is a whole number within its bounds, or the word', async (t) => {
  const bounds = { min: 1, max: 10, word: 'unlimited' } as const;
  t.equal(parseCount(3, bounds), 3);
  t.equal(parseCount('unlimited', bounds), Number.POSITIVE_INFINITY);
  for (const raw of [0, -1, 1.5, '3', 'many', true, null, Number.NaN, Number.POSITIVE_INFINITY, 'Unlimited']) {
    t.equal(parseCount(raw, bounds), 'must be a whole number of at least 1, or unlimited', String(raw));
  }
  t.equal(parseCount(11, bounds), 'must be a whole number of at most 10, or unlimited');
  t.equal(parseCount('unlimited', { min: 1, max: 10 }), 'must be a whole number of at least 1');
});

t.test('every duration and size that is written is read back as the same number', async (t) => {
  fc.assert(fc.property(fc.nat(9e11), (ms) => parseDuration(formatDuration(ms), ANY) === ms));
  fc.assert(fc.property(fc.nat(9e11), (bytes) => parseSize(formatSize(bytes), ANY) === bytes));
  t.pass('held');
});

t.test('no text makes a parser throw, or give a number outside the bounds', async (t) => {
  const bounds = { min: 5, max: 5000, word: 'none' } as const;
  const text = fc.oneof(fc.string(), fc.stringMatching(/^[0-9]{1,14}(ms|s|m|h|d|b|kb|MiB)?$/), fc.anything());
  const fine = (result: number | string) =>
    typeof result === 'string' ? result.startsWith('must be ') : result >= 5 && result <= 5000;
  fc.assert(
    fc.property(text, (raw) => {
      fc.pre(raw !== 'none');
      return [parseDuration(raw, bounds), parseSize(raw, bounds), parseCount(raw, bounds)].every(fine);
    }),
  );
  t.pass('held');
});

t.test('an address to listen on is host:port, and an empty host is all IPv4 interfaces', async (t) => {
  const expected: Record<string, [string, number]> = {
    '127.0.0.1:8080': ['127.0.0.1', 8080],
    '[::1]:8080': ['::1', 8080],
    ':8080': ['0.0.0.0', 8080],
    'localhost:0': ['localhost', 0],
    'my-host.internal:65535': ['my-host.internal', 65_535],
  };
  for (const [text, [host, port]] of Object.entries(expected)) {
    t.same(parseAddress(text), { host, port, path: '', text });
  }
  const refused = [
    '',
    '8080',
    8080,
    'x',
    'x:',
    ':x',
    '::1:80',
    '[::1]',
    '[x]:1',
    '300.1.1.1:1',
    '127.1:1',
    'a b:1',
    'a:-1',
    'http://x:1',
    'x:80/',
  ];
  for (const raw of refused) t.match(parseAddress(raw), /^must be host:port/, String(raw));
  t.equal(parseAddress('x:65536'), 'must have a port from 0 to 65535');
});

t.test('addresses collide on the same port of the same host or of a wildcard', async (t) => {
  const of = (text: string) => parseAddress(text) as Address;
  const pairs: [string, string, boolean][] = [
    ['127.0.0.1:80', '127.0.0.1:80', true],
    ['127.0.0.1:80', '127.0.0.1:81', false],
    ['127.0.0.1:80', ':80', true],
    ['localhost:80', '127.0.0.1:80', true],
    ['LOCALHOST:80', 'localhost:80', true],
    ['[::]:80', '127.0.0.1:80', true],
    ['[::]:80', '[::1]:80', true],
    ['0.0.0.0:80', '[::1]:80', false],
    ['[::1]:80', '[0:0::1]:80', true],
    ['[fe80::1%eth0]:80', '[fe80::1%eth1]:80', false],
    ['127.0.0.1:80', '127.0.0.2:80', false],
    ['127.0.0.1:0', '127.0.0.1:0', false],
  ];
  for (const [a, b, expected] of pairs) {
    t.equal(collide(of(a), of(b)), expected, `${a} and ${b}`);
    t.equal(collide(of(b), of(a)), expected, `${b} and ${a}`);
  }
});

t.test('a base url gives its origin and a path without a slash at the end', async (t) => {
  t.same(parseBaseUrl('https://api.openai.com'), {
    socketPath: '',
    protocol: 'https:',
    hostname: 'api.openai.com',
    port: 443,
    origin: 'https://api.openai.com',
    basePath: '',
  });
  t.match(parseBaseUrl('http://[::1]:9000/v1/'), {
    hostname: /^::1$/,
    port: 9000,
    origin: 'http://[::1]:9000',
    basePath: '/v1',
  });
  t.match(parseBaseUrl('http://x/a/b'), { port: 80, basePath: '/a/b' });
  t.match(
    parseBaseUrl('https://x:8443/..a/b..c'),
    { port: 8443, basePath: '/..a/b..c' },
    'dots in a name are no dot segment',
  );
});

t.test('a base url that would not be sent as it is written is refused', async (t) => {
  const refused: Record<string, string> = {
    'x.com': 'must be a URL',
    'ftp://x': 'must be a URL',
    'https://': 'must be a URL',
    'https:///x': 'must be a URL',
    'https:x': 'must be a URL',
    'http://x:99999': 'must be a URL',
    'http://x:0': 'must be a URL',
    'http://x/ y': 'must have no spaces',
    'http://x\n': 'must have no spaces',
    'http://x\\y': 'must have no backslash',
    'http://x/?a': 'must have no query',
    'http://x/#a': 'must have no fragment',
    'http://u:p@x/': 'must have no user name',
    'http://u@x': 'must have no user name',
    'http://x/%2E%2e/y': 'must have no %2e',
    'http://x/%5cy': 'must have no %5c',
    'http://x/../y': 'must have no dot segments',
    'http://x/a/./y': 'must have no dot segments',
    'http://x/a/..': 'must have no dot segments',
    'http://x//y': 'must have no //',
    'http://x/y//': 'must have no //',
  };
  for (const [url, rule] of Object.entries(refused))
    t.ok(String(parseBaseUrl(url)).startsWith(rule), JSON.stringify(url));
});

t.test('a suggestion is a word at most a few slips away', async (t) => {
  const keys = ['timeouts', 'pool', 'url', 'limiter', 'bypass'];
  t.equal(suggest('timeoust', keys), 'timeouts', 'neighbours swapped');
  t.equal(suggest('timeout', keys), 'timeouts');
  t.equal(suggest('Limiters', keys), 'limiter');
  t.equal(suggest('uri', keys), 'url');
  t.equal(suggest('x', keys), null);
  t.equal(suggest('something', keys), null);
  t.equal(distance('ab', 'ba'), 1);
  t.equal(distance('', 'abc'), 3);
  fc.assert(
    fc.property(
      fc.string(),
      fc.string(),
      (a, b) => distance(a, b) === distance(b, a) && (distance(a, b) === 0) === (a === b),
    ),
  );
});
