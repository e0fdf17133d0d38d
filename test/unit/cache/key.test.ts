// Cache keys: requests that differ in anything that matters never share one, those that differ in nothing else do.
import fc from 'fast-check';
import t from 'tap';
import { KeyMaker } from '../../../src/cache/key.ts';
import { KeyAliases } from '../../../src/cache/key-aliases.ts';
import { HashSink } from '../../../src/cache/key-parts.ts';
import { type CompiledRule, compileRules } from '../../../src/cache/rules.ts';
import type { CacheRuleConfig } from '../../../src/config/schema.ts';

const OAUTH = ['oauth_nonce', 'oauth_timestamp', 'oauth_signature'];

function ruleConfig(key: Partial<CacheRuleConfig['key']> = {}): CacheRuleConfig {
  return {
    match: { methods: [], paths: [], operations: [], headers: [] },
    ttlMs: 1000,
    staleIfErrorMs: 0,
    staleWhileRevalidateMs: 0,
    key: { body: 'canonical', queryIgnore: [], headers: [], ...key },
    statuses: [200],
    maxEntryBytes: 1000,
    pace: 'fast',
  };
}

function rule(key: Partial<CacheRuleConfig['key']> = {}): CompiledRule {
  return compileRules([ruleConfig(key)])[0]!;
}

type Pair = readonly [name: string, value: string];

/** A request, its upstream and its rule. */
interface Asked {
  readonly upstream: string;
  readonly partition: 'credential' | 'shared';
  readonly partitionHeaders: readonly string[];
  /** Null = HTTP mode. */
  readonly rule: CompiledRule | null;
  readonly method: string;
  readonly path: string;
  readonly pairs: readonly Pair[];
  readonly body: string | Buffer | null;
}

const BASE: Asked = {
  upstream: 'openai',
  partition: 'credential',
  partitionHeaders: ['x-tenant'],
  rule: rule({ headers: ['x-lang', 'openai-organization'], queryIgnore: OAUTH }),
  method: 'POST',
  path: '/v1/embeddings?a=1&b=2',
  pairs: [
    ['Authorization', 'Bearer one'],
    ['Accept', 'application/json'],
    ['Accept-Encoding', 'gzip, br'],
    ['Content-Type', 'application/json'],
    ['X-Lang', 'de'],
    ['User-Agent', 'test'],
  ],
  body: '{"model":"m","input":"text"}',
};

function bytesOf(body: Asked['body']): Buffer | null {
  return typeof body === 'string' ? Buffer.from(body) : body;
}

function keyOf(asked: Partial<Asked> = {}): string {
  const { upstream, partition, partitionHeaders, rule, method, path, pairs, body } = { ...BASE, ...asked };
  const maker = new KeyMaker(upstream, partition, partitionHeaders);
  if (!rule) return maker.httpKey(path, pairs.flat());
  const first = maker.ruleKeys(rule, method, path, pairs.flat(), bytesOf(body));
  const again = maker.ruleKeys(rule, method, path, pairs.flat(), bytesOf(body));
  if (first !== again) throw new Error('a repeat has another key');
  return first;
}

function withHeader(name: string, ...values: string[]): Partial<Asked> {
  const others = BASE.pairs.filter(([other]) => other.toLowerCase() !== name.toLowerCase());
  return { pairs: [...others, ...values.map((value): Pair => [name, value])] };
}

function withType(type: string | null, body: string | Buffer, coding?: string): Partial<Asked> {
  const others = BASE.pairs.filter(([name]) => name !== 'Content-Type');
  const own: Pair[] = type === null ? [] : [['Content-Type', type]];
  const coded: Pair[] = coding === undefined ? [] : [['Content-Encoding', coding]];
  return { pairs: [...others, ...own, ...coded], body };
}

/** All of them must have keys of their own. */
function allDiffer(t: Tap, requests: readonly (readonly [what: string, asked: Partial<Asked>])[]): void {
  const seen = new Map<string, string>();
  for (const [what, asked] of requests) {
    const key = keyOf(asked);
    t.match(key, /^[A-Za-z0-9_-]{43}$/, what);
    t.equal(seen.get(key), undefined, `${what} has a key of its own`);
    seen.set(key, what);
  }
}
type Tap = Pick<typeof t, 'match' | 'equal'>;

function allSame(t: Tap, requests: readonly (readonly [what: string, asked: Partial<Asked>])[]): void {
  const key = keyOf(requests[0]![1]);
  for (const [what, asked] of requests) t.equal(keyOf(asked), key, what);
}

// ---- tables

t.test('requests that differ in anything that matters never share a key', async (t) => {
  const two = compileRules([ruleConfig(BASE.rule!.config.key), ruleConfig(BASE.rule!.config.key)]);
  const key = BASE.rule!.config.key;
  allDiffer(t, [
    ['the request', {}],
    ['HTTP mode', { rule: null }],
    ['another upstream', { upstream: 'deepseek' }],
    ['another rule', { rule: two[1]! }],
    ['the rule with another form of body', { rule: rule({ ...key, body: 'exact' }) }],
    ['the rule with a parameter more to ignore', { rule: rule({ ...key, queryIgnore: [...OAUTH, 'z'] }) }],
    ['the rule with a header more that counts', { rule: rule({ ...key, headers: [...key.headers, 'x-other'] }) }],
    ['another method', { method: 'PUT' }],
    ['another path', { path: '/v1/embedding?a=1&b=2' }],
    ['a path with a slash at the end', { path: '/v1/embeddings/?a=1&b=2' }],
    ['a path in capitals', { path: '/V1/embeddings?a=1&b=2' }],
    ['no query', { path: '/v1/embeddings' }],
    ['an empty query', { path: '/v1/embeddings?' }],
    ['a query with a question mark', { path: '/v1/embeddings??a=1&b=2' }],
    ['a question mark in the path', { path: '/v1/embeddings%3Fa=1&b=2' }],
    ['an empty parameter', { path: '/v1/embeddings?&a=1&b=2' }],
    ['an empty parameter at the end', { path: '/v1/embeddings?a=1&b=2&' }],
    ['another value', { path: '/v1/embeddings?a=1&b=3' }],
    ['another name', { path: '/v1/embeddings?a=1&c=2' }],
    ['a parameter less', { path: '/v1/embeddings?a=1' }],
    ['a parameter twice', { path: '/v1/embeddings?a=1&b=2&b=2' }],
    ['another order', { path: '/v1/embeddings?b=2&a=1' }],
    ['no value', { path: '/v1/embeddings?a=1&b' }],
    ['an empty value', { path: '/v1/embeddings?a=1&b=' }],
    ['another spelling of a value', { path: '/v1/embeddings?a=1&b=%32' }],
    ['another credential', withHeader('Authorization', 'Bearer two')],
    ['a credential in capitals', withHeader('Authorization', 'BEARER ONE')],
    ['no credential', withHeader('Authorization')],
    ['an empty credential', withHeader('Authorization', '')],
    ['a credential twice', withHeader('Authorization', 'Bearer one', 'Bearer one')],
    ['two credentials', withHeader('Authorization', 'Bearer one', 'Bearer two')],
    ['two credentials the other way round', withHeader('Authorization', 'Bearer two', 'Bearer one')],
    ['two credentials in one line', withHeader('Authorization', 'Bearer one, Bearer two')],
    ['shared', { partition: 'shared' }],
    ['more credentials by config', { partitionHeaders: ['x-tenant', 'x-user'] }],
    ...['x-api-key', 'api-key', 'x-goog-api-key', 'cookie', 'x-tenant'].map(
      (name) => [name, withHeader(name, 'Bearer one')] as const,
    ),
    ['another cookie', withHeader('cookie', 'a=1')],
    ['another Accept', withHeader('Accept', 'text/event-stream')],
    ['no Accept', withHeader('Accept')],
    ['an empty Accept', withHeader('Accept', '')],
    ['two Accepts', withHeader('Accept', 'application/json', 'application/json')],
    ['another Accept-Encoding', withHeader('Accept-Encoding', 'gzip')],
    ['another order of Accept-Encoding', withHeader('Accept-Encoding', 'br, gzip')],
    ['no Accept-Encoding', withHeader('Accept-Encoding')],
    ['an empty Accept-Encoding', withHeader('Accept-Encoding', '')],
    ['another key header', withHeader('X-Lang', 'en')],
    ['a key header in capitals', withHeader('X-Lang', 'DE')],
    ['no key header', withHeader('X-Lang')],
    ['an empty key header', withHeader('X-Lang', '')],
    ['a key header twice', withHeader('X-Lang', 'de', 'de')],
    ['the value in another key header', withHeader('OpenAI-Organization', 'de')],
    ['another Content-Type', withHeader('Content-Type', 'application/vnd.api+json')],
    ['a Content-Type in capitals', withHeader('Content-Type', 'Application/JSON')],
    ['no Content-Type', withHeader('Content-Type')],
    ['two Content-Types', withHeader('Content-Type', 'application/json', 'application/json')],
    ['a Content-Encoding', withHeader('Content-Encoding', 'gzip')],
    ['Content-Encoding: identity', withHeader('Content-Encoding', 'identity')],
    ['another body', { body: '{"model":"m","input":"Text"}' }],
    ['a number that is a neighbour', { body: '12345678901234567890' }],
    ['and its neighbour', { body: '12345678901234567891' }],
    ['a body that is no JSON', { body: '{"model":"m","input":"text"' }],
    ['that body with a blank', { body: '{"model":"m", "input":"text"' }],
    ['an empty body', { body: '' }],
    ['no body', { body: null }],
  ]);
});

t.test('what does not matter leaves the key as it is', async (t) => {
  const reversed = [...BASE.pairs].reverse();
  allSame(t, [
    ['the request', {}],
    ['other fields', withHeader('User-Agent', 'other')],
    ['other fields more', withHeader('X-Request-Id', '123')],
    ['names in capitals', { pairs: BASE.pairs.map(([name, value]): Pair => [name.toUpperCase(), value]) }],
    ['fields in another order', { pairs: reversed }],
    ['the body in another order', { body: '{"input":"text","model":"m"}' }],
    ['the body with blanks', { body: ' { "model" : "m",\n"input":"text"}' }],
    ['the body with escapes', { body: '{"model":"\\u006d","input":"te\\u0078t"}' }],
    ['Accept in capitals', withHeader('Accept', 'Application/JSON')],
    ['Accept with blanks', withHeader('Accept', ' application/json\t')],
    ['Accept-Encoding without blanks', withHeader('Accept-Encoding', 'gzip,br')],
    ['Accept-Encoding with more', withHeader('Accept-Encoding', ' GZIP \t,  br ')],
    ['credentials of the config in another spelling and order', { partitionHeaders: ['X-Tenant', 'cookie'] }],
    ['ignored parameters', { path: '/v1/embeddings?oauth_nonce=1&a=1&oauth_signature=x&b=2&oauth_timestamp' }],
  ]);
});

t.test('a quoted Accept and what is not ASCII stay as they are', async (t) => {
  allDiffer(
    t,
    [
      'a;p="x, y"',
      'a;p="x,y"',
      'a;p="X, y"',
      'A;p="x, y"',
      'é',
      'É',
      'AÉ',
      'aé',
      'a b',
      'a  b',
      'ab',
      'a,,b',
      'a,b',
    ].map((accept) => [accept, withHeader('Accept', accept)]),
  );
});

t.test('a shared partition takes no notice of credentials', async (t) => {
  const shared = { partition: 'shared' } as const;
  allSame(t, [
    ['the request', shared],
    ['another credential', { ...shared, ...withHeader('Authorization', 'Bearer two') }],
    ['none', { ...shared, ...withHeader('Authorization') }],
    ['a cookie', { ...shared, ...withHeader('Cookie', 'a=1') }],
    ['one of the config', { ...shared, ...withHeader('X-Tenant', 'a') }],
  ]);
});

t.test('HTTP mode covers the target and the credentials, and leaves the rest to Vary', async (t) => {
  const http = { rule: null };
  allSame(t, [
    ['a GET', { ...http, method: 'GET' }],
    ['a HEAD', { ...http, method: 'HEAD' }],
    ['another Accept', { ...http, ...withHeader('Accept', 'text/html') }],
    ['a Content-Type', { ...http, ...withHeader('Content-Type', 'text/html') }],
  ]);
  allDiffer(t, [
    ['the request', http],
    ['another upstream', { ...http, upstream: 'deepseek' }],
    ['another path', { ...http, path: '/v1/embedding?a=1&b=2' }],
    ['no query', { ...http, path: '/v1/embeddings' }],
    ['an empty query', { ...http, path: '/v1/embeddings?' }],
    ['another order', { ...http, path: '/v1/embeddings?b=2&a=1' }],
    ['what a rule would ignore', { ...http, path: '/v1/embeddings?a=1&b=2&oauth_nonce=1' }],
    ['another credential', { ...http, ...withHeader('Authorization', 'Bearer two') }],
    ['no credential', { ...http, ...withHeader('Authorization') }],
    ['an empty credential', { ...http, ...withHeader('Authorization', '') }],
    ['shared', { ...http, partition: 'shared' }],
  ]);
});

t.test('FatSecret: nonce, time and signature do not count, consumer and token do', async (t) => {
  const fatsecret = rule({ queryIgnore: OAUTH });
  const get = (query: string): Partial<Asked> => ({
    rule: fatsecret,
    method: 'GET',
    body: null,
    path: `/rest/server.api?${query}`,
  });
  const search = 'method=foods.search&search_expression=apple';
  const who = 'oauth_consumer_key=c&oauth_token=t';
  allSame(t, [
    ['signed once', get(`${search}&${who}&oauth_nonce=1&oauth_timestamp=2&oauth_signature=a%3D`)],
    ['signed again', get(`${search}&${who}&oauth_nonce=9&oauth_timestamp=8&oauth_signature=b`)],
    ['signed in front', get(`oauth_timestamp=2&oauth_nonce=1&${search}&oauth_signature=z&${who}`)],
    ['unsigned', get(`${search}&${who}`)],
    ['twice', get(`${search}&oauth_nonce=1&oauth_nonce=2&${who}`)],
    ['without a value', get(`${search}&oauth_nonce&${who}&oauth_signature=`)],
    ['with an encoded name', get(`${search}&%6fauth_nonce=1&o%61uth%5Fsignatur%65=2&${who}&oauth%5ftimestamp`)],
    ['with an equals sign in the value', get(`${search}&oauth_signature=a=b==&${who}`)],
  ]);
  allDiffer(t, [
    ['unsigned', get(`${search}&${who}`)],
    ['another consumer', get(`${search}&oauth_consumer_key=d&oauth_token=t`)],
    ['another token', get(`${search}&oauth_consumer_key=c&oauth_token=u`)],
    ['no token', get(`${search}&oauth_consumer_key=c`)],
    ['another search', get(`method=foods.search&search_expression=pear&${who}`)],
    ['a longer name', get(`${search}&${who}&oauth_nonce2=1`)],
    ['a shorter name', get(`${search}&${who}&oauth_nonc=1`)],
    ['a name in capitals', get(`${search}&${who}&OAUTH_NONCE=1`)],
    ['a name with a blank', get(`${search}&${who}&+oauth_nonce=1`)],
    ['a name with an encoded equals sign', get(`${search}&${who}&oauth_nonce%3D1`)],
    ['the name as a value', get(`${search}&${who}&x=oauth_nonce`)],
    ['a broken escape', get(`${search}&${who}&%6auth_nonce%6=1`)],
    ['doubly encoded', get(`${search}&${who}&%256fauth_nonce=1`)],
    ['a parameter behind a semicolon', get(`${search}&${who}&oauth_nonce=1;id=5`)],
    ['another there', get(`${search}&${who}&oauth_nonce=1;id=6`)],
  ]);
});

t.test('a query of which nothing counts is no query, and names are compared as they decode', async (t) => {
  const odd = rule({ queryIgnore: ['a b', 'größe', '50%', 'x=y', 'q'] });
  allSame(
    t,
    [
      '/p',
      '/p?q',
      '/p?q=1&q=2',
      '/p?a+b=1',
      '/p?a%20b=1',
      '/p?gr%C3%B6%c3%9Fe=1',
      '/p?50%=1',
      '/p?50%25',
      '/p?x%3Dy=2',
    ].map((path) => [path, { rule: odd, path }]),
  );
  allDiffer(
    t,
    ['/p', '/p?', '/p?&', '/p?ab=1', '/p?a%2Bb=1', '/p?x=y', '/p?=q', '/p?%71%'].map((path) => [
      path,
      { rule: odd, path },
    ]),
  );
});

// ---- bodies

t.test('only what says it is JSON, in UTF-8 and not coded, is read as JSON', async (t) => {
  const one = '{"a":1,"b":2}';
  const other = '{ "b":2,"a":1 }';
  const table: [type: string | null, coding: string | undefined, readAsJson: boolean][] = [
    ['application/json', undefined, true],
    [null, undefined, true],
    ['application/json; charset=utf-8', undefined, true],
    ['application/json;charset="UTF-8"', undefined, true],
    ['Application/JSON ; v=1', undefined, true],
    ['application/vnd.api+json', undefined, true],
    ['application/json', 'identity', true],
    ['application/json', 'Identity', true],
    [null, 'gzip', false],
    ['application/json', 'gzip', false],
    ['application/json', 'identity, gzip', false],
    ['application/json', '', false],
    ['application/json; charset=iso-8859-1', undefined, false],
    ['application/json; charset=utf-16; x=charset=utf-8', undefined, false],
    ['text/plain', undefined, false],
    ['text/plain; application/json', undefined, false],
    ['application/jsonl', undefined, false],
    ['application/x-www-form-urlencoded', undefined, false],
    ['multipart/form-data; boundary=application/json', undefined, false],
    ['', undefined, false],
  ];
  for (const [type, coding, readAsJson] of table) {
    const same = keyOf(withType(type, one, coding)) === keyOf(withType(type, other, coding));
    t.equal(same, readAsJson, `${type} ${coding}`);
  }
  const twice: Pair[] = [
    ['Content-Type', 'application/json'],
    ['Content-Type', 'application/json'],
  ];
  t.not(keyOf({ pairs: twice, body: one }), keyOf({ pairs: twice, body: other }), 'two lines');
  const exact = { rule: rule({ body: 'exact' }) };
  t.not(keyOf({ ...exact, body: one }), keyOf({ ...exact, body: other }), 'a rule that says exact');
});

t.test('an exact body and a canonical one of the same bytes never collide', async (t) => {
  const sink = new HashSink();
  const keys = (['exact', 'canonical', 'none'] as const).map((form) => {
    sink.body(form, Buffer.from('{}'));
    return sink.digest();
  });
  t.equal(new Set(keys).size, 3);
  t.not(keyOf({ body: '{}' }), keyOf({ body: '{}', rule: rule({ ...BASE.rule!.config.key, body: 'exact' }) }));
});

t.test('bodies count whole, however long they are and whatever came before', async (t) => {
  const maker = new KeyMaker('u', 'credential', []);
  const exact = rule({ body: 'exact' });
  const seen = new Set<string>();
  const lengths = [0, 1, 1000, 65_000, 65_300, 65_400, 65_500, 65_530, 65_531, 65_536, 70_000, 300_000];
  for (const length of lengths) {
    for (const last of [0, 1]) {
      const body = Buffer.alloc(length, 7);
      if (length > 0) body[length - 1] = last;
      const key = maker.ruleKeys(exact, 'POST', '/', [], body);
      t.equal(key, new KeyMaker('u', 'credential', []).ruleKeys(exact, 'POST', '/', [], body), `${length}`);
      seen.add(key);
    }
  }
  t.equal(seen.size, lengths.length * 2 - 1);
});

t.test('the body a key was made of may be overwritten afterwards', async (t) => {
  const maker = new KeyMaker('u', 'credential', []);
  const body = Buffer.from('{"a":1}');
  const one = maker.ruleKeys(rule(), 'POST', '/', [], body);
  body.write('{"a":2}');
  const two = maker.ruleKeys(rule(), 'POST', '/', [], body);
  t.not(one, two);
  t.equal(maker.ruleKeys(rule(), 'POST', '/', [], Buffer.from('{"a":1}')), one);
});

t.test('a repeat is not parsed again, and other bytes of the same meaning find the same key', async (t) => {
  const maker = new KeyMaker('u', 'credential', []);
  const ask = (text: string, type = 'application/json') =>
    maker.ruleKeys(rule(), 'POST', '/', ['content-type', type], Buffer.from(text));
  const key = ask('{"a":1,"b":2}');
  t.equal(maker.aliases, 1);
  t.equal(ask('{"a":1,"b":2}'), key);
  t.equal(maker.aliases, 1);
  t.equal(ask('{"b":2,"a":1}'), key);
  t.equal(maker.aliases, 2);
  t.not(ask('{"b":2,"a":1}', 'text/plain'), key);
  t.not(ask('{"b":2,"a":1', 'application/json'), key);
  maker.httpKey('/', []);
  maker.ruleKeys(rule({ body: 'exact' }), 'POST', '/', [], Buffer.from('{}'));
  maker.ruleKeys(rule(), 'GET', '/', [], null);
  t.equal(maker.aliases, 4, 'only bodies that may be canonical have one');
});

t.test('aliases are bounded, and the ones in use stay', async (t) => {
  const maker = new KeyMaker('u', 'credential', []);
  const ask = (n: number) => maker.ruleKeys(rule(), 'POST', '/', [], Buffer.from(`{"n":${n}}`));
  let most = 0;
  for (let n = 0; n < 25_000; n++) {
    ask(n);
    most = Math.max(most, maker.aliases);
  }
  t.ok(most > 5000 && most <= 10_000, `${most}`);

  const aliases = new KeyAliases(100);
  aliases.set('used', 'its key');
  for (let n = 0; n < 1000; n++) {
    aliases.set(`${n}`, `key ${n}`);
    if (n % 40 === 0) t.equal(aliases.get('used'), 'its key');
    if (aliases.size > 100) t.fail(`${aliases.size} kept`);
  }
  t.equal(aliases.get('999'), 'key 999');
  t.equal(aliases.get('960'), 'key 960', 'the last 50 used are kept');
  t.equal(aliases.get('0'), undefined);
});

// ---- properties

const word = fc.string({ unit: fc.constantFrom('a', 'b', '1', ':', ',', ' ', '2', '0', '\n', 'é', '"'), maxLength: 5 });
const parts = fc.array(fc.tuple(word, word), { maxLength: 5 });

function digestOf(list: readonly (readonly [string, string])[], body: string): string {
  const sink = new HashSink();
  for (const [part, value] of list) sink.text(part, value);
  sink.body('exact', Buffer.from(body));
  return sink.digest();
}

t.test('two lists of parts have one digest only if they are the same', async () => {
  fc.assert(
    fc.property(parts, word, parts, word, (one, body, other, otherBody) => {
      const same = JSON.stringify([one, body]) === JSON.stringify([other, otherBody]);
      if ((digestOf(one, body) === digestOf(other, otherBody)) !== same) throw new Error('collision');
    }),
    { numRuns: 500 },
  );
});

t.test('the boundaries between parts cannot be moved', async () => {
  const texts = fc.array(fc.string({ unit: fc.constantFrom('1', '2', ':', 'a', '3:b'), minLength: 1, maxLength: 12 }), {
    minLength: 3,
    maxLength: 8,
  });
  fc.assert(
    fc.property(texts, fc.nat(), (list, at) => {
      const i = at % (list.length - 1);
      const moved = [...list];
      moved[i] = list[i]! + list[i + 1]![0];
      moved[i + 1] = list[i + 1]!.slice(1);
      if (asParts(moved) === asParts(list)) throw new Error(`${moved} and ${list}`);
      const joined = [...list.slice(0, i), list[i]! + list[i + 1]!, ...list.slice(i + 2)];
      if (asParts(joined) === asParts(list)) throw new Error(`${joined} and ${list}`);
      const split = [...list.slice(0, i), '', ...list.slice(i)];
      if (asParts(split) === asParts(list)) throw new Error(`${split} and ${list}`);
    }),
    { numRuns: 500 },
  );
});

/** The texts as names and values by turns, the last as the body. */
function asParts(list: readonly string[]): string {
  const sink = new HashSink();
  for (let i = 0; i + 1 < list.length; i += 2) sink.text(list[i]!, i + 2 < list.length ? list[i + 1]! : '');
  sink.body('exact', Buffer.from(list.at(-1)!));
  return sink.digest();
}

t.test('a body that looks like parts is a body', async (t) => {
  const part = '4:body5:exact';
  t.not(digestOf([['body', 'exact']], ''), digestOf([], part));
});

t.test('a lone surrogate is not the replacement character', async (t) => {
  const texts = ['\ud83d', '\ude00', '\ufffd', '\ud83d\ude00', '\ude00\ud83d'];
  t.equal(new Set(texts.map((text) => digestOf([['p', text]], ''))).size, texts.length);
});

const token = fc.string({ unit: fc.constantFrom('a', 'B', '1', '-', ' ', ':'), maxLength: 4 });
const query = fc.array(
  fc.tuple(fc.constantFrom('a', 'b', 'id', ...OAUTH, 'oauth_token'), token.map(encodeURIComponent)),
  {
    maxLength: 6,
  },
);
const lines = fc.array(
  fc.tuple(
    fc.constantFrom(
      'authorization',
      'x-api-key',
      'cookie',
      'x-tenant',
      'accept',
      'accept-encoding',
      'x-lang',
      'x-none',
    ),
    token,
  ),
  { maxLength: 6 },
);
const asked = fc.record({
  upstream: fc.constantFrom('a', 'b', 'ab'),
  partition: fc.constantFrom('credential' as const, 'shared' as const),
  path: fc.constantFrom('/', '/a', '/a/b'),
  method: fc.constantFrom('GET', 'POST'),
  query,
  lines,
  type: fc.constantFrom('application/json', 'text/plain', null),
  body: fc.option(
    fc.constantFrom('{}', '{ }', '{"a":1,"b":2}', '{"b":2,"a":1}', '{"a":2,"b":1}', '[1.0]', '[1]', 'x', ''),
  ),
});
type Drawn = Parameters<Parameters<typeof asked.map>[0]>[0];

/** What matters of it, told in another way than the code does. */
function matters(drawn: Drawn): string {
  const { upstream, partition, path, method, query, lines, type, body } = drawn;
  const names = ['accept', 'accept-encoding', 'x-lang'];
  if (partition === 'credential') names.push('authorization', 'x-api-key', 'cookie', 'x-tenant');
  const fields = names.map((name) =>
    lines
      .filter(([other]) => other === name)
      .map(([, value]) => (name.startsWith('accept') ? value.trim().toLowerCase() : value)),
  );
  const counted = query.filter(([name]) => !OAUTH.includes(name));
  let content: unknown = null;
  if (body !== null) {
    const meaning = /^[{]/.test(body) ? Object.entries(JSON.parse(body)).sort() : body;
    content = type === 'text/plain' ? [type, body] : [type, body[0], meaning];
  }
  return JSON.stringify([upstream, partition, path, method, counted, fields, content]);
}

function keyOfDrawn({ upstream, partition, path, method, query, lines, type, body }: Drawn): string {
  const text = query.map(([name, value]) => `${name}=${value}`).join('&');
  return keyOf({
    upstream,
    partition,
    method,
    path: query.length ? `${path}?${text}` : path,
    pairs: type === null ? lines : [...lines, ['Content-Type', type]],
    body,
    rule: rule({ queryIgnore: OAUTH, headers: ['x-lang'] }),
  });
}

t.test('two requests share a key if and only if they agree in all that matters', async () => {
  fc.assert(
    fc.property(asked, asked, fc.subarray(Object.keys(BASE_DRAWN) as (keyof Drawn)[]), (one, two, taken) => {
      // Near misses: the other request differs only in what is taken from a second one.
      const other = { ...one } as Record<string, unknown>;
      for (const name of taken) other[name] = two[name];
      const near = other as unknown as Drawn;
      const same = matters(one) === matters(near);
      if ((keyOfDrawn(one) === keyOfDrawn(near)) !== same) throw new Error(`${matters(one)} and ${matters(near)}`);
    }),
    { numRuns: 1500 },
  );
});

const BASE_DRAWN = { upstream: 0, partition: 0, path: 0, method: 0, query: 0, lines: 0, type: 0, body: 0 };

t.test('signing again in any order of parameters that do not count leaves the key', async () => {
  const signature = fc.tuple(fc.constantFrom(...OAUTH), token.map(encodeURIComponent), fc.nat());
  fc.assert(
    fc.property(asked, fc.array(signature, { maxLength: 4 }), (one, signatures) => {
      const query = [...one.query];
      for (const [name, value, at] of signatures) query.splice(at % (query.length + 1), 0, [name, value]);
      if (keyOfDrawn(one) !== keyOfDrawn({ ...one, query })) throw new Error(`${query}`);
    }),
    { numRuns: 500 },
  );
});

// ---- for people

t.test('the parts are shown in the order they are hashed, without secrets', async (t) => {
  const maker = new KeyMaker('openai', 'credential', ['x-tenant']);
  const pairs = BASE.pairs.flat();
  const path = '/v1/embeddings?a=hidden&oauth_nonce=hidden&b=hidden&flag';
  const shown = maker.parts(BASE.rule, 'POST', path, pairs, Buffer.from('{ "b":1, "a":2 }'));
  t.same(shown, [
    { part: 'mode', value: 'rule' },
    { part: 'upstream', value: 'openai' },
    {
      part: 'rule',
      value:
        '{"index":0,"body":"canonical","queryIgnore":["oauth_nonce","oauth_signature","oauth_timestamp"],' +
        '"headers":["openai-organization","x-lang"]}',
    },
    { part: 'method', value: 'POST' },
    { part: 'path', value: '/v1/embeddings' },
    { part: 'query', value: 'a&b&flag' },
    { part: 'partition', value: 'credential: api-key, authorization, cookie, x-api-key, x-goog-api-key, x-tenant' },
    // printf 'Bearer one' | sha256sum
    { part: 'credential authorization', value: '0b84d71f' },
    // printf 'de' | sha256sum
    { part: 'header x-lang', value: '959a45d4' },
    { part: 'accept', value: 'application/json' },
    { part: 'accept-encoding', value: 'gzip,br' },
    { part: 'content-type', value: 'application/json' },
    // printf '{"a":2,"b":1}' | sha256sum
    { part: 'body', value: { form: 'canonical', bytes: 13, sha256: 'd3626ac30a87e6f7' } },
  ]);
  t.notMatch(JSON.stringify(shown), /hidden|Bearer|one"/);
});

t.test('the parts of HTTP mode, of no body and of a body that is no JSON', async (t) => {
  const maker = new KeyMaker('openai', 'shared', []);
  const http = maker.parts(null, 'GET', '/v1/models', BASE.pairs.flat(), Buffer.from('ignored'));
  t.same(http, [
    { part: 'mode', value: 'http' },
    { part: 'upstream', value: 'openai' },
    { part: 'path', value: '/v1/models' },
    { part: 'partition', value: 'shared' },
    { part: 'body', value: { form: 'none', bytes: 0, sha256: '' } },
  ]);
  const bodyOf = (body: Buffer | null) => maker.parts(BASE.rule, 'POST', '/', BASE.pairs.flat(), body).at(-1)!.value;
  t.same(bodyOf(null), { form: 'none', bytes: 0, sha256: '' });
  t.match(bodyOf(Buffer.from('no JSON')), { form: 'exact', bytes: 7 });
  const exact = maker.parts(rule({ body: 'exact' }), 'POST', '/', [], Buffer.from('{ }'));
  t.match(exact.at(-1), { value: { form: 'exact', bytes: 3 } });
});

t.test('what is shown differs exactly where keys differ', async () => {
  const show = (drawn: Drawn) => {
    const maker = new KeyMaker(drawn.upstream, drawn.partition, ['x-tenant']);
    const pairs = [...drawn.lines, ...(drawn.type === null ? [] : [['Content-Type', drawn.type]])].flat();
    // Values of parameters are not shown, so none differ here.
    const text = drawn.query.map(([name]) => name).join('&');
    const path = drawn.query.length ? `${drawn.path}?${text}` : drawn.path;
    const compiled = rule({ queryIgnore: OAUTH, headers: ['x-lang'] });
    const body = bytesOf(drawn.body);
    return {
      key: maker.ruleKeys(compiled, drawn.method, path, pairs, body),
      shown: JSON.stringify(maker.parts(compiled, drawn.method, path, pairs, body)),
    };
  };
  fc.assert(
    fc.property(asked, asked, fc.subarray(Object.keys(BASE_DRAWN) as (keyof Drawn)[]), (one, two, taken) => {
      const other = { ...one } as Record<string, unknown>;
      for (const name of taken) other[name] = two[name];
      const a = show(one);
      const b = show(other as unknown as Drawn);
      if ((a.key === b.key) !== (a.shown === b.shown)) throw new Error(`${a.shown} and ${b.shown}`);
    }),
    { numRuns: 500 },
  );
});
