// Request and response heads: what passes, what stays, and what is refused.
import fc from 'fast-check';
import t from 'tap';
import { isWellFormedHost, readRequestHead } from '../../../src/http/request-head.ts';
import { readResponseHead } from '../../../src/http/response-head.ts';

/** RFC 9110 section 7.6.1, RFC 9112 section 6, and what only the next hop is asked for. */
const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
];
/** Replaced by aiproxy's own. */
const REWRITTEN = ['host', 'content-length'];

const request = (...raw: string[]) => readRequestHead(raw, false);
const bytes = (raw: readonly string[]) => raw.map((text) => Buffer.from(text, 'latin1'));
const response = (status: number, ...raw: string[]) => readResponseHead(bytes(raw), status);
const spellings = (name: string) => [
  name,
  name.toUpperCase(),
  name.replace(/(^|-)[a-z]/g, (start) => start.toUpperCase()),
  [...name].map((c, i) => (i % 2 ? c.toUpperCase() : c)).join(''),
];

t.test('hop-by-hop fields stay here, in any case', async (t) => {
  for (const name of [...HOP_BY_HOP, ...REWRITTEN]) {
    for (const spelling of spellings(name)) {
      t.same(request('A', '1', spelling, '5', 'B', '2').forward, ['A', '1', 'B', '2'], spelling);
    }
  }
});

t.test('a field whose name only resembles one of them passes', async (t) => {
  const names = ['tf', 'hosts', 'hose', 'expecu', 'Upgradf', 'connectio', 'connections', 'Keep-Alivf', 'x-host'];
  names.push('te-x', 'xte', 'content-lengti', 'transfer-encodinh', 'proxy-authorizatioo', 'x-aiprox', 'x-aiproxyy');
  names.push('y-aiproxy-a', 'x_aiproxy-operation', 'x-aiproxy_operation', 'aiproxy-operation');
  names.push('Keep\rAlive', 'X\rAiproxy\rA');
  for (const name of names) t.same(request(name, 'v').forward, [name, 'v'], JSON.stringify(name));
});

t.test('fields named by Connection stay here, the others pass in their order', async (t) => {
  const others = ['X-Foo', '1', 'x-bar', '2', 'X-FOO', '3', 'Accept', '*/*'];
  const table: [connections: string[], left: string[]][] = [
    [[''], others],
    [['close'], others],
    [['keep-alive'], others],
    [['Keep-Alive'], others],
    [['close, keep-alive'], others],
    [['x-foo'], ['x-bar', '2', 'Accept', '*/*']],
    [['X-fOO'], ['x-bar', '2', 'Accept', '*/*']],
    [['close,X-Foo'], ['x-bar', '2', 'Accept', '*/*']],
    [['  close ,\t x-foo\t, ,x-BAR ,'], ['Accept', '*/*']],
    [
      ['x-foo', 'x-bar'],
      ['Accept', '*/*'],
    ],
    [
      ['', 'x-foo'],
      ['x-bar', '2', 'Accept', '*/*'],
    ],
    [
      ['close', 'x-bar'],
      ['X-Foo', '1', 'X-FOO', '3', 'Accept', '*/*'],
    ],
    [['x-fo'], others],
    [['x-foo;x=1'], others],
    [['x foo'], others],
    [['upgrade, http2-settings, transfer-encoding, host'], others],
  ];
  for (const [connections, left] of table) {
    const fields = connections.flatMap((value) => ['Connection', value]);
    t.same(request(...fields, ...others).forward, left, `before: ${connections}`);
    t.same(request(...others, ...fields).forward, left, `behind: ${connections}`);
    t.same(response(200, ...others, ...fields).headers, left, `answer: ${connections}`);
  }
});

t.test('a Connection field cannot take framing or Host out of sight', async (t) => {
  const head = request('Connection', 'content-length, host', 'Content-Length', '5', 'Host', 'a');
  t.match(head, { contentLength: 5, hosts: 1, hostOk: true, problem: '' });
  t.equal(request('Connection', 'transfer-encoding', 'Transfer-Encoding', 'chunked').chunked, true);
});

t.test('what a client asks of the connection is known', async (t) => {
  const table: [value: string, close: boolean, keepAlive: boolean][] = [
    ['close', true, false],
    ['Close', true, false],
    ['keep-alive', false, true],
    ['Keep-Alive', false, true],
    ['x-foo, CLOSE', true, false],
    ['keep-alive, x-foo', false, true],
    [' close ', true, false],
    ['closed', false, false],
    ['', false, false],
    ['upgrade', false, false],
  ];
  for (const [value, wantsClose, wantsKeepAlive] of table) {
    t.match(request('Connection', value), { wantsClose, wantsKeepAlive }, value);
  }
  t.match(request('connection', 'keep-alive', 'connection', 'close'), { wantsClose: true });
});

t.test(
  'nothing that begins with x-aiproxy- is forwarded; the operation is taken from exactly one of them',
  async (t) => {
    for (const name of [
      'x-aiproxy-operation',
      'x-aiproxy-',
      'x-aiproxy-a',
      'x-aiproxy-operation-id',
      'x-aiproxy-error',
    ]) {
      for (const spelling of spellings(name)) {
        const head = request(spelling, 'chat', 'A', '1');
        t.same(head.forward, ['A', '1'], spelling);
        t.equal(head.operation, name === 'x-aiproxy-operation' ? 'chat' : '', spelling);
      }
    }
    t.equal(request('A', '1').operation, '');
  },
);

t.test('duplicates pass in their order and their spelling', async (t) => {
  const raw = ['Accept', 'a', 'X-A', '1', 'accept', 'b', 'x-a', '', 'ACCEPT', 'a', 'Cookie', 'x', 'Cookie', 'y'];
  t.same(request(...raw).forward, raw);
  const answer = ['Set-Cookie', 'a=1', 'set-cookie', 'b=2', 'Via', '1.1 x', 'Set-Cookie', 'a=1', 'X-É', 'ü'];
  t.same(response(200, ...answer).headers, answer);
});

t.test('a head is the same whatever Host says, but each Host is judged', async (t) => {
  t.match(request(), { hosts: 0 });
  t.match(request('Host', 'a', 'HOST', 'a'), { hosts: 2, hostOk: true });
  t.match(request('Host', 'a b', 'Host', 'a'), { hosts: 2, hostOk: false });
  t.match(request('Host', 'a', 'Host', ''), { hosts: 2, hostOk: false });
});

t.test('a Host is a name or an address, with or without a port', async (t) => {
  const good = [
    'localhost',
    'LOCALHOST:8080',
    'api.openai.com',
    'a-b_c.d1',
    '127.0.0.1',
    '127.0.0.1:80',
    'a:',
    'a:65535',
    '[::1]',
    '[::1]:8080',
    '[2001:DB8::1]',
    '[::ffff:127.0.0.1]:1',
    'xn--bcher-kva.example',
    'a.',
    'a'.repeat(255),
  ];
  const bad = [
    '',
    ' ',
    'a b',
    ' a',
    'a,b',
    'a, a',
    'user@a',
    'user:secret@a',
    'a/',
    'a/b',
    'http://a',
    'a?b',
    'a#b',
    'a\\b',
    'a%41',
    'a;b',
    ':80',
    'a:b',
    'a:80x',
    'a:-1',
    'a:80:80',
    'a:123456',
    '[',
    '[]',
    '[:]',
    '[::1',
    '[::g]',
    '[::1]a',
    '[::1]:x',
    '[::1]]',
    '[fe80::1%eth0]',
    '::1',
    'a[::1]',
    'é',
    'a\0',
    'a\t',
    '[\x11\x1a\x1a]',
    '[:\x0e:]',
    'a'.repeat(256),
  ];
  for (const value of good) t.ok(isWellFormedHost(value), JSON.stringify(value));
  for (const value of bad) t.notOk(isWellFormedHost(value), JSON.stringify(value));
});

t.test('the length of a body is declared once, as a plain number', async (t) => {
  for (const [value, length] of [
    ['0', 0],
    ['5', 5],
    ['007', 7],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
    [`${'0'.repeat(100)}12`, 12],
  ] as const) {
    t.match(request('Content-Length', value), { contentLength: length, problem: '', chunked: false }, value);
  }
  const bad = ['', ' 5', '5 ', '+5', '-5', '-0', '5.0', '5e1', '0x5', 'five', '5,5', '5, 5', '٥', '9007199254740993'];
  for (const value of [...bad, '9'.repeat(400), '5\0', '5;', '1_000']) {
    t.match(request('Content-Length', value), { problem: /not a number/, contentLength: -1 }, JSON.stringify(value));
  }
  for (const second of ['5', '6', '']) {
    t.not(request('Content-Length', '5', 'content-length', second).problem, '', `5 and ${second}`);
    t.not(request('Content-Length', second, 'content-length', '5').problem, '', `${second} and 5`);
  }
});

t.test('the only Transfer-Encoding is chunked, once, and never beside a length', async (t) => {
  for (const value of ['chunked', 'Chunked', 'CHUNKED']) {
    t.match(request('Transfer-Encoding', value), { chunked: true, problem: '', contentLength: -1 }, value);
  }
  const bad = [
    '',
    'identity',
    'gzip',
    'gzip, chunked',
    'chunked, gzip',
    'chunked,',
    ',chunked',
    ' chunked',
    'chunked ',
  ];
  for (const value of [...bad, 'chunke', 'chunkedx', 'xchunked', 'chunked, chunked', '\x0bchunked', '"chunked"']) {
    t.match(request('Transfer-Encoding', value), { problem: /only Transfer-Encoding/ }, JSON.stringify(value));
    t.not(request('Transfer-Encoding', value, 'Transfer-Encoding', 'chunked').problem, '', `${value} and chunked`);
    t.not(request('Transfer-Encoding', 'chunked', 'Transfer-Encoding', value).problem, '', `chunked and ${value}`);
  }
  t.not(request('Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked').problem, '');
  for (const length of ['0', '5', 'x', '']) {
    t.not(request('Transfer-Encoding', 'chunked', 'Content-Length', length).problem, '', `chunked and ${length}`);
    t.not(request('Content-Length', length, 'Transfer-Encoding', 'chunked').problem, '', `${length} and chunked`);
  }
  t.not(readRequestHead(['Transfer-Encoding', 'chunked'], true).problem, '', 'HTTP/1.0 has none');
  t.equal(readRequestHead(['Content-Length', '5'], true).problem, '');
});

t.test('Expect is 100-continue or a mistake', async (t) => {
  t.match(request('Expect', '100-Continue'), { expectsContinue: true, problem: '' });
  t.match(request('A', '1'), { expectsContinue: false });
  for (const value of ['', '100', '100-continue, x', 'teapot']) t.not(request('Expect', value).problem, '', value);
});

// ---- answers

t.test('an answer keeps everything but what was meant for the hop', async (t) => {
  const gone = ['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'trailer', 'upgrade'];
  for (const name of [...gone, 'transfer-encoding']) {
    for (const spelling of spellings(name))
      t.same(response(200, 'A', '1', spelling, 'x').headers, ['A', '1'], spelling);
  }
  const kept = ['Retry-After', '7', 'x-ratelimit-remaining-tokens', '9', 'Content-Encoding', 'br', 'x-aiproxy-x', '1'];
  kept.push(
    'Server',
    's',
    'Date',
    'd',
    'te-x',
    '1',
    'upgrades',
    '2',
    'X-Should-Retry',
    'true',
    'Age',
    '1',
    'Vary',
    '*',
  );
  t.same(response(429, ...kept).headers, kept);
});

t.test('an answer says how its body ends', async (t) => {
  t.match(response(200, 'Content-Length', '12'), {
    contentLength: 12,
    chunked: false,
    headers: ['Content-Length', '12'],
  });
  t.match(response(200, 'Transfer-Encoding', 'chunked'), { contentLength: -1, chunked: true, headers: [] });
  t.match(response(200, 'A', '1'), { contentLength: -1, chunked: false, problem: '' });
  t.match(response(304, 'content-length', '12'), { headers: ['content-length', '12'] }, 'the length of what is cached');
  t.same(response(204, 'content-length', '0').headers, [], 'RFC 9110 section 8.6: none with 204');
  t.same(response(103, 'content-length', '5', 'link', 'x').headers, ['link', 'x'], 'nor with an interim answer');
});

t.test('an answer whose length could be read in two ways has a problem', async (t) => {
  for (const value of ['', '+5', '-5', '5, 5', '5 ', ' 5', '0x5', '5.0', '5e0', '9007199254740992', '1'.repeat(400)]) {
    t.match(response(200, 'Content-Length', value).problem, /Content-Length is not a number/, `"${value}"`);
  }
  t.match(response(200, 'Content-Length', '9007199254740991'), { contentLength: 2 ** 53 - 1, problem: '' });
  t.match(response(200, 'Content-Length', '05'), { contentLength: 5, problem: '' });
  t.match(response(200, 'Content-Length', '5', 'content-length', '5').problem, /more than one/);
  for (const pairs of [
    ['Content-Length', '5', 'Transfer-Encoding', 'chunked'],
    ['Transfer-Encoding', 'chunked', 'Content-Length', '5'],
  ])
    t.match(response(200, ...pairs).problem, /both/);
});

t.test('an answer is of HTTP/1.1 or of HTTP/1.0, and that has no Transfer-Encoding', async (t) => {
  const of = (version: number, ...raw: string[]) => readResponseHead(bytes(raw), 200, version).problem;
  t.equal(of(11, 'transfer-encoding', 'chunked'), '');
  t.equal(of(10, 'content-length', '5'), '');
  t.match(of(10, 'transfer-encoding', 'chunked'), /HTTP\/1.0 has no/);
  for (const version of [9, 12, 20, 30]) t.match(of(version, 'content-length', '5'), /its status line/, `${version}`);
});

t.test('bytes above 127 of an answer pass as they are', async (t) => {
  const all = Buffer.from(Array.from({ length: 128 }, (_, i) => 128 + i));
  const { headers } = readResponseHead([Buffer.from('X-A'), all], 200);
  t.same(Buffer.from(headers[1]!, 'latin1'), all);
});

// ---- any head

const randomCase = (name: string) =>
  fc
    .array(fc.boolean(), { minLength: name.length, maxLength: name.length })
    .map((upper) => [...name].map((c, i) => (upper[i] ? c.toUpperCase() : c)).join(''));
const PASSING = ['accept', 'x-a', 'x-b', 'authorization', 'cookie', 'x-aiprox', 'te2', 'keep-alives', 'trailers'];
const OWN = ['x-aiproxy-operation', 'x-aiproxy-x', 'x-aiproxy-'];
const anyName = fc
  .oneof(
    { weight: 3, arbitrary: fc.constantFrom(...PASSING) },
    { weight: 2, arbitrary: fc.constantFrom(...HOP_BY_HOP, ...REWRITTEN) },
    { weight: 1, arbitrary: fc.constantFrom(...OWN) },
  )
  .chain(randomCase);
const space = fc.constantFrom('', ' ', '\t', '  ');
const tokens = fc
  .array(
    fc
      .tuple(space, fc.oneof(anyName, fc.constantFrom('close', 'keep-alive', '')), space)
      .map((parts) => parts.join('')),
    { maxLength: 4 },
  )
  .map((list) => list.join(','));
const field = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(anyName, fc.string({ maxLength: 6 })) },
  { weight: 1, arbitrary: fc.tuple(randomCase('connection').map(String), tokens) },
);
const fields = fc.array(field, { maxLength: 14, size: 'max' });

/** The rule by the book: which pairs stay here, slowly. */
function passing(pairs: readonly (readonly [string, string])[], always: readonly string[]): string[] {
  const named = pairs
    .filter(([name]) => name.toLowerCase() === 'connection')
    .flatMap(([, value]) => value.split(',').map((token) => token.trim().toLowerCase()));
  return pairs
    .filter(([name]) => {
      const lower = name.toLowerCase();
      return !always.includes(lower) && !named.includes(lower);
    })
    .flat();
}

t.test('of any request exactly the pairs that may pass are forwarded, in their order', async () => {
  fc.assert(
    fc.property(fields, fc.boolean(), (pairs, http10) => {
      const { forward } = readRequestHead(pairs.flat(), http10);
      const expected = passing(pairs, [...HOP_BY_HOP, ...REWRITTEN, ...OWN]);
      if (JSON.stringify(forward) !== JSON.stringify(expected)) throw new Error(`${forward} is not ${expected}`);
    }),
    { numRuns: 3000 },
  );
});

t.test('of any answer exactly the pairs that may pass are forwarded, in their order', async () => {
  const gone = HOP_BY_HOP.filter((name) => !['te', 'expect', 'proxy-authorization'].includes(name));
  fc.assert(
    fc.property(fields, (all) => {
      // One Content-Length at most, as undici lets through.
      const pairs = all.filter(([name], i) => {
        const lower = name.toLowerCase();
        return lower !== 'content-length' || all.findIndex(([other]) => other.toLowerCase() === lower) === i;
      });
      const { headers } = readResponseHead(bytes(pairs.flat()), 200);
      const expected = passing(pairs, gone);
      if (JSON.stringify(headers) !== JSON.stringify(expected)) throw new Error(`${headers} is not ${expected}`);
    }),
    { numRuns: 2000 },
  );
});

t.test('an answer whose transfer coding is not chunked alone has a problem', async (t) => {
  for (const value of ['gzip, chunked', 'gzip', 'chunked, chunked', '']) {
    t.not(readResponseHead(bytes(['Transfer-Encoding', value]), 200).problem, '', value);
  }
  t.not(
    readResponseHead(bytes(['transfer-encoding', 'chunked', 'transfer-encoding', 'chunked']), 200).problem,
    '',
    'twice',
  );
  for (const value of ['Chunked', 'chunked ', 'chunked \t'])
    t.equal(readResponseHead(bytes(['Transfer-Encoding', value]), 200).problem, '', `"${value}"`);
});
