// Which cache rule speaks for a request.
import t from 'tap';
import { compileRules, matchRule } from '../../../src/cache/rules.ts';
import type { CacheRuleConfig } from '../../../src/config/schema.ts';

function rule(
  match: Partial<CacheRuleConfig['match']> = {},
  key: Partial<CacheRuleConfig['key']> = {},
): CacheRuleConfig {
  return {
    match: { methods: [], paths: [], operations: [], headers: [], ...match },
    ttlMs: 1000,
    staleIfErrorMs: 0,
    staleWhileRevalidateMs: 0,
    key: { body: 'canonical', queryIgnore: [], headers: [], ...key },
    statuses: [200],
    maxEntryBytes: 1000,
    pace: 'fast',
  };
}

/** Index of the rule that matches, -1 = none. */
function indexOf(
  rules: readonly CacheRuleConfig[],
  { method = 'GET', path = '/', operation = '', pairs = [] as readonly string[] } = {},
): number {
  return matchRule(compileRules(rules), method, path, operation, pairs)?.index ?? -1;
}

t.test('a rule without conditions matches all, and no rules match nothing', async (t) => {
  t.equal(indexOf([rule()]), 0);
  t.equal(indexOf([rule()], { method: 'DELETE', path: '/x/y', operation: 'o', pairs: ['a', 'b'] }), 0);
  t.equal(indexOf([]), -1);
});

t.test('the first rule that matches wins', async (t) => {
  const rules = [rule({ methods: ['POST'] }), rule({ paths: ['/v1/*'] }), rule({ paths: ['/v1/models'] }), rule()];
  t.equal(indexOf(rules, { method: 'POST', path: '/v1/models' }), 0);
  t.equal(indexOf(rules, { path: '/v1/models' }), 1);
  t.equal(indexOf(rules, { path: '/v2' }), 3);
});

t.test('all kinds of conditions must hold, and of each kind one is enough', async (t) => {
  const rules = [
    rule({
      methods: ['POST', 'PUT'],
      paths: ['/a', '/b'],
      operations: ['one', 'two'],
      headers: [
        ['x-cache', 'yes'],
        ['x-tier', 'gold'],
      ],
    }),
  ];
  const fits = { method: 'PUT', path: '/b', operation: 'two', pairs: ['X-Tier', 'gold', 'X-Cache', 'yes'] };
  t.equal(indexOf(rules, fits), 0);
  t.equal(indexOf(rules, { ...fits, method: 'POST', path: '/a', operation: 'one' }), 0);
  t.equal(indexOf(rules, { ...fits, method: 'GET' }), -1);
  t.equal(indexOf(rules, { ...fits, path: '/c' }), -1);
  t.equal(indexOf(rules, { ...fits, operation: 'three' }), -1);
  t.equal(indexOf(rules, { ...fits, operation: '' }), -1);
  t.equal(indexOf(rules, { ...fits, pairs: ['x-cache', 'yes'] }), -1, 'headers: every one');
});

t.test('methods and operations are compared exactly', async (t) => {
  t.equal(indexOf([rule({ methods: ['POST'] })], { method: 'post' }), -1);
  t.equal(indexOf([rule({ methods: ['GET'] })], { method: 'HEAD' }), -1);
  t.equal(indexOf([rule({ operations: ['embed'] })], { operation: 'embeds' }), -1);
  t.equal(indexOf([rule({ operations: ['embed'] })], { operation: 'Embed' }), -1);
});

t.test('a path is matched whole, or up to the star at its end', async (t) => {
  const table: [pattern: string, path: string, matches: boolean][] = [
    ['/v1/embeddings', '/v1/embeddings', true],
    ['/v1/embeddings', '/v1/embeddings/', false],
    ['/v1/embeddings', '/v1/embedding', false],
    ['/v1/embeddings', '/v1/Embeddings', false],
    ['/v1/embeddings', '/a/v1/embeddings', false],
    ['/static/*', '/static/', true],
    ['/static/*', '/static/a/b', true],
    ['/static/*', '/static', false],
    ['/static/*', '/a/static/b', false],
    ['/static/*', '/statics/a', false],
    ['/v1/models*', '/v1/models', true],
    ['/v1/models*', '/v1/models-old', true],
    ['/*', '/', true],
    ['*', '/anything', true],
    ['/', '/', true],
    ['/', '/a', false],
    ['/a*b', '/axb', false],
    ['/a*b', '/a*b', true],
  ];
  for (const [pattern, path, matches] of table) {
    t.equal(indexOf([rule({ paths: [pattern] })], { path }), matches ? 0 : -1, `${pattern} ${path}`);
    t.equal(
      indexOf([rule({ paths: ['/other', pattern, '/more/*'] })], { path }),
      matches ? 0 : -1,
      `${pattern} in a list`,
    );
  }
});

t.test('a header must have the value in exactly one line', async (t) => {
  const rules = [rule({ headers: [['x-cache', 'yes']] })];
  const table: [pairs: string[], matches: boolean][] = [
    [['x-cache', 'yes'], true],
    [['X-CACHE', 'yes'], true],
    [['a', 'b', 'X-Cache', 'yes', 'c', 'd'], true],
    [[], false],
    [['x-cache', 'no'], false],
    [['x-cache', 'Yes'], false],
    [['x-cache', 'yes '], false],
    [['x-cache', ''], false],
    [['x-cache2', 'yes'], false],
    [['x-cach', 'yes'], false],
    [['x-other', 'x-cache', 'y', 'yes'], false],
    [['x-cache', 'yes', 'x-cache', 'yes'], false],
    [['x-cache', 'yes', 'X-Cache', 'no'], false],
    [['x-cache', 'no', 'x-cache', 'yes'], false],
  ];
  for (const [pairs, matches] of table) t.equal(indexOf(rules, { pairs }), matches ? 0 : -1, pairs.join(' '));
  t.equal(indexOf([rule({ headers: [['x', '']] })], { pairs: ['x', ''] }), 0, 'an empty value is a value');
});

t.test('a compiled rule keeps its place and config, and its label says what decides about keys', async (t) => {
  const configs = [
    rule(),
    rule(),
    rule({}, { body: 'exact' }),
    rule({}, { queryIgnore: ['a'] }),
    rule({}, { headers: ['a'] }),
  ];
  const compiled = compileRules(configs);
  t.same(
    compiled.map(({ index }) => index),
    [0, 1, 2, 3, 4],
  );
  for (const [i, { config }] of compiled.entries()) t.equal(config, configs[i]);
  const labels = configs.map((config) => compileRules([config])[0]!.label);
  t.equal(labels[0], labels[1]);
  t.equal(new Set(labels).size, 4);
  t.not(compiled[0]!.label, compiled[1]!.label);
  const label = (headers: string[], queryIgnore: string[]) =>
    compileRules([rule({}, { headers, queryIgnore })])[0]!.label;
  t.equal(label(['b', 'a', 'B'], ['y', 'x', 'y']), label(['a', 'b'], ['x', 'y']), 'order and repeats say nothing');
});
