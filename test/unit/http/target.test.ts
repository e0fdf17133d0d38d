// Request targets: what is refused, and that nothing accepted can mean another place than it says.
import fc from 'fast-check';
import t from 'tap';
import { PathPatterns, parseTarget, type Target, upstreamPath } from '../../../src/http/target.ts';

function accepted(url: string): Target {
  const target = parseTarget(url);
  if (typeof target === 'string') throw new Error(`${url} was refused: ${target}`);
  return target;
}

t.test('a target is its first segment and, byte for byte, the rest', async (t) => {
  const table: [url: string, name: string, rest: string, path: string][] = [
    ['/openai/v1/chat/completions', 'openai', '/v1/chat/completions', '/v1/chat/completions'],
    ['/openai/v1/models?limit=2&after=x', 'openai', '/v1/models?limit=2&after=x', '/v1/models'],
    ['/openai', 'openai', '', ''],
    ['/openai/', 'openai', '/', '/'],
    ['/openai?q=1', 'openai', '?q=1', ''],
    ['/openai/?q=1', 'openai', '/?q=1', '/'],
    ['/openai/?', 'openai', '/?', '/'],
    ['/openai/a?b?c', 'openai', '/a?b?c', '/a'],
    ['/', '', '', ''],
    ['/?openai/v1', '', '?openai/v1', ''],
    ['/OpenAI/v1', 'OpenAI', '/v1', '/v1'],
    ['/x/a%20b/%C3%A9%2Fc', 'x', '/a%20b/%C3%A9%2Fc', '/a%20b/%C3%A9%2Fc'],
    ['/x/100%25', 'x', '/100%25', '/100%25'],
    ['/x/50%25-off%2525', 'x', '/50%25-off%2525', '/50%25-off%2525'],
    ['/x/.well-known/a', 'x', '/.well-known/a', '/.well-known/a'],
    ['/x/.../..a/a../.a/a.', 'x', '/.../..a/a../.a/a.', '/.../..a/a../.a/a.'],
    ['/x/models/ft:gpt-4o:a;v=1', 'x', '/models/ft:gpt-4o:a;v=1', '/models/ft:gpt-4o:a;v=1'],
    ['/x/v1?path=/../..//&b=\\%00%zz', 'x', '/v1?path=/../..//&b=\\%00%zz', '/v1'],
    ["/x/~!$&'()*+,;=:@-._", 'x', "/~!$&'()*+,;=:@-._", "/~!$&'()*+,;=:@-._"],
  ];
  for (const [url, name, rest, path] of table) {
    t.same(parseTarget(url), { name, rest, queryAt: path.length }, url);
  }
});

t.test('where the whole path is one upstream’s, its first segment names nothing', async (t) => {
  const table: [url: string, path: string][] = [
    ['/v1/models?limit=2', '/v1/models'],
    ['/', '/'],
    ['/?q=1', '/'],
    ['/healthz', '/healthz'],
    ['/other/v1', '/other/v1'],
  ];
  for (const [url, path] of table) {
    const target = parseTarget(url, 'ai') as Target;
    t.same(target, { name: 'ai', rest: url, queryAt: path.length }, url);
    t.equal(upstreamPath('/base', target), `/base${url}`);
  }
});

t.test('what is not a plain path is refused with a sentence that names no query', async (t) => {
  const table: [url: string, says: RegExp][] = [
    ['*', /asterisk/],
    ['', /absolute/],
    ['http://evil.example/openai/v1', /absolute/],
    ['https://user:secret@evil.example/', /absolute/],
    ['evil.example:443', /absolute/],
    ['openai/v1', /absolute/],
    ['//evil.example/openai', /empty segment/],
    ['/openai//v1', /empty segment/],
    ['/openai/v1//', /empty segment/],
    ['/\\evil.example', /backslash/],
    ['/openai\\..\\admin', /backslash/],
    ['/openai/a b', /percent-encoded/],
    ['/openai/a\tb', /percent-encoded/],
    ['/openai/a\0b', /percent-encoded/],
    ['/openai/a\x7fb', /percent-encoded/],
    ['/openai/\xe9', /percent-encoded/],
    ['/openai/v1?a b', /query has/],
    ['/openai/v1?a\x01', /query has/],
    ['/openai/v1?a\xe9', /query has/],
    ['/openai/v1#top', /fragment/],
    ['/openai/v1?secret=1#top', /fragment/],
    ['/openai/%', /two hex digits/],
    ['/openai/%4', /two hex digits/],
    ['/openai/%4g/x', /two hex digits/],
    ['/openai/%g4', /two hex digits/],
    ['/openai/%u002e%u002e/x', /two hex digits/],
    ['/openai/%00', /control character/],
    ['/openai/a%0d%0ab', /control character/],
    ['/openai/a%1fb', /control character/],
    ['/openai/a%7f', /control character/],
    ['/openai/a%5cb', /backslash/],
    ['/openai/a%5Cb', /backslash/],
    ['/openai/a%2500', /control character/],
    ['/openai/%25255c', /backslash/],
  ];
  for (const [url, says] of table) {
    const problem = parseTarget(url);
    t.match(problem, says, JSON.stringify(url));
    t.notMatch(problem, 'secret');
    t.equal(parseTarget(url, 'ai'), problem, 'also where the whole path is one upstream’s');
  }
});

t.test('a dot segment is refused in every spelling', async (t) => {
  const spellings = [
    '/openai/..',
    '/openai/../admin',
    '/openai/.',
    '/openai/./v1',
    '/..',
    '/.',
    '/../openai',
    '/openai/v1/..?q',
    '/openai/%2e%2e/admin',
    '/openai/%2E%2e',
    '/openai/.%2e/admin',
    '/openai/%2e./admin',
    '/openai/%2e',
    '/%2e%2e/openai',
    '/openai%2f..%2fadmin',
    '/openai/a%2f..',
    '/openai/..%2fadmin',
    '/openai/..%2Fadmin',
    '/openai/..%5cadmin',
    '/openai/%252e%252e/admin',
    '/openai/%25252e%25252e/admin',
    '/openai/%2525252e%2525252e/admin',
    '/openai/%252525252e%252525252e/admin',
    '/openai/%25252525252e%25252525252e/admin',
    '/openai/%252e%252e%252fadmin',
    '/openai/%%32e%%32e/admin',
    '/openai/..;/admin',
    '/openai/..;a=b/admin',
    '/openai/.;/admin',
    '/openai/..%3b/admin',
    '/openai/%2e%2e;x/admin',
    '/openai/%252e%252e%253bx/admin',
    // A broken escape that appears only after decoding must not end the search.
    '/openai/%252e%252e/%25zz',
    '/openai/%25zz/%252e%252e/admin',
    '/openai/%252e%252e%252fadmin%25',
    // Where a server decodes first and then looks for the query.
    '/openai/..%3fx',
    '/openai/..%3f/admin',
    '/openai/..%23',
    '/openai/%252e%252e%253f',
  ];
  for (const url of spellings) t.type(parseTarget(url), 'string', url);
});

t.test('a path is decoded only so many times; what is encoded deeper is refused', async (t) => {
  t.type(parseTarget('/x/%25252541'), 'object');
  t.match(parseTarget(`/x/%${'25'.repeat(10)}41`), /too many times/);
  t.match(parseTarget(`/x/%${'25'.repeat(3000)}2e`), /too many times/);
});

// ---- hostile paths; that none leaves its upstream is looked into by test/e2e/fuzz-targets.test.ts

const HOSTILE = ['/', '.', '%', '2', 'e', 'E', 'f', 'F', '5', 'c', 'C', ';', '\\', '0', 'a', '?', '#', '3', 'b', '25'];
const PIECES = [
  '..',
  '/..',
  '/../',
  '%2e',
  '%2E%2e',
  '%2f',
  '%5c',
  '%25',
  '%252e',
  '%252f',
  '%3b',
  '%3f',
  '%00',
  '%zz',
];
const nested = fc
  .record({ text: fc.constantFrom('.', '..', '/', '\\', ';', '?', '../', '/..;x/', '%'), depth: fc.nat({ max: 7 }) })
  .map(({ text, depth }) => {
    let out: string = text;
    for (let i = 0; i < depth; i++) {
      const encode = (c: string) => `%${c.charCodeAt(0).toString(16)}`;
      out = i === 0 ? [...out].map(encode).join('') : out.replaceAll('%', '%25');
    }
    return out;
  });
const hostilePath = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(...HOSTILE) },
      { weight: 2, arbitrary: fc.constantFrom(...PIECES) },
      { weight: 2, arbitrary: nested },
      { weight: 1, arbitrary: fc.constant('/') },
    ),
    { maxLength: 14, size: 'max' },
  )
  .map((parts) => parts.join(''));

t.test('whatever is accepted goes on byte for byte', async () => {
  const anything = fc.oneof(
    hostilePath,
    fc.string({ unit: 'binary', maxLength: 30 }),
    fc.webPath(),
    fc.webUrl({ withQueryParameters: true, withFragments: true }),
  );
  fc.assert(
    fc.property(anything, fc.constantFrom('', '/', '/up', '/up/', '/up/x?'), (text, before) => {
      const url = before + text;
      const target = parseTarget(url);
      if (typeof target === 'string') {
        if (target === '') throw new Error('refused without a reason');
        return;
      }
      const { name, rest, queryAt } = target;
      if (`/${name}${rest}` !== url) throw new Error(`${JSON.stringify(target)} is not ${url}`);
      if (name.includes('/') || name.includes('?')) throw new Error(`a name of ${name}`);
      const path = rest.slice(0, queryAt);
      if (path.includes('?')) throw new Error(`a query in the path ${path}`);
      if (queryAt < rest.length && rest[queryAt] !== '?') throw new Error(`no query at ${queryAt} of ${rest}`);
      if (path !== '' && path[0] !== '/') throw new Error(`path ${path}`);
      if (/[^!-~]|[\\#]/.test(path) || /[^!-~]|#/.test(rest)) throw new Error(`bytes of ${rest}`);
      const sent = upstreamPath('/base', target);
      if (!sent.endsWith(rest) || !sent.startsWith('/base/')) throw new Error(`sent ${sent}`);
    }),
    { numRuns: 5000 },
  );
});

t.test('ordinary paths are accepted whatever they say', async () => {
  const word = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 12 })
    .filter((text) => !/[\p{Cc}\\%.;?#]/u.test(text) && text.isWellFormed())
    .map(encodeURIComponent);
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 6 }), fc.webQueryParameters(), (segments, query) => {
      const rest = `/${segments.join('/')}?${query}`;
      const target = accepted(`/openai${rest}`);
      if (target.rest !== rest) throw new Error(target.rest);
    }),
    { numRuns: 1000 },
  );
});

// ---- what is made of a target

t.test('the path sent is the base path and the rest', async (t) => {
  const table: [base: string, url: string, sent: string][] = [
    ['', '/openai/v1/models?a=1', '/v1/models?a=1'],
    ['', '/openai', '/'],
    ['', '/openai?a=1', '/?a=1'],
    ['', '/openai/', '/'],
    ['/api/v2', '/openai/v1/models?a=1', '/api/v2/v1/models?a=1'],
    ['/api/v2', '/openai', '/api/v2/'],
    ['/api/v2', '/openai?a=1', '/api/v2/?a=1'],
    ['/api/v2', '/openai/', '/api/v2/'],
    ['/api', '/openai/a%2Fb', '/api/a%2Fb'],
  ];
  for (const [base, url, sent] of table) t.equal(upstreamPath(base, accepted(url)), sent, `${base} + ${url}`);
});

t.test('path patterns match the whole path, or what begins like them before a star', async (t) => {
  const patterns = new PathPatterns(['/health', '/static/*', '/v1/models*', '/']);
  const table: [url: string, matches: boolean][] = [
    ['/x/health', true],
    ['/x/health?deep=1', true],
    ['/x/health/', false],
    ['/x/healthy', false],
    ['/x/Health', false],
    ['/x/a/health', false],
    ['/x/static/', true],
    ['/x/static/a/b.css?v=2', true],
    ['/x/static', false],
    ['/x/a/static/b', false],
    ['/x/v1/models', true],
    ['/x/v1/models/gpt', true],
    ['/x/v1/model', false],
    ['/x/?q=/health', true],
    ['/x/y?q=/health', false],
    ['/x/', true],
    ['/x', true],
    ['/x?q', true],
    ['/health/x', false],
  ];
  for (const [url, matches] of table) t.equal(patterns.matches(accepted(url)), matches, url);
  const none = new PathPatterns([]);
  t.notOk(none.matches(accepted('/x/health')));
  t.notOk(none.matches(accepted('/x')));
  const all = new PathPatterns(['*']);
  t.ok(all.matches(accepted('/x/anything')));
  t.ok(new PathPatterns(['/*']).matches(accepted('/x')), 'the upstream is sent / for it');
});

t.test('a pattern cannot be reached by a path that means another', async (t) => {
  const patterns = new PathPatterns(['/static/*']);
  for (const url of ['/x/static/../v1', '/x/static/%2e%2e/v1', '/x/static/..%2fv1', '/x/static/..;/v1']) {
    t.type(parseTarget(url), 'string', url);
  }
  t.notOk(patterns.matches(accepted('/x/%73tatic/a')), 'only the plain spelling');
});
