// What one cache key costs, ns: `node bench/micro/key.ts`.
import { KeyMaker } from '../../src/cache/key.ts';
import { compileRules } from '../../src/cache/rules.ts';
import type { CacheRuleConfig } from '../../src/config/schema.ts';

const ROUNDS = 7;
const CALLS = 100_000;

const config: CacheRuleConfig = {
  match: { methods: ['POST'], paths: ['/v1/embeddings'], operations: [], headers: [] },
  ttlMs: 3_600_000,
  staleIfErrorMs: 0,
  staleWhileRevalidateMs: 0,
  key: { body: 'canonical', queryIgnore: [], headers: [] },
  statuses: [200],
  maxEntryBytes: 1_048_576,
  pace: 'fast',
};
const oauth = { ...config.key, queryIgnore: ['oauth_nonce', 'oauth_timestamp', 'oauth_signature'] };
const [canonical, exact, signed] = compileRules([
  config,
  { ...config, key: { ...config.key, body: 'exact' } },
  { ...config, key: oauth },
]);

// What the openai package for Python sends.
const PAIRS = [
  ['Host', '127.0.0.1:8080'],
  ['Accept-Encoding', 'gzip, deflate, br'],
  ['Connection', 'keep-alive'],
  ['Accept', 'application/json'],
  ['Content-Type', 'application/json'],
  ['User-Agent', 'OpenAI/Python 2.8.0'],
  ['X-Stainless-Lang', 'python'],
  ['X-Stainless-Runtime', 'CPython'],
  ['Authorization', `Bearer sk-proj-${'a1B2'.repeat(37)}`],
  ['Content-Length', '240'],
].flat();
const text = JSON.stringify({ model: 'text-embedding-3-small', encoding_format: 'float', input: '' });
const BODY = Buffer.from(text.replace('""', `"${'x'.repeat(240 - text.length)}"`));
const SEARCH =
  '/rest/server.api?method=foods.search&search_expression=apple&format=json&oauth_consumer_key=0123456789abcdef' +
  '&oauth_nonce=8f3a91&oauth_signature_method=HMAC-SHA1&oauth_timestamp=1700000000&oauth_version=1.0&oauth_signature=x%3D';

function bestOf(call: (i: number) => string): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = process.hrtime.bigint();
    for (let i = 0; i < CALLS; i++) call(i);
    best = Math.min(best, Number(process.hrtime.bigint() - start) / CALLS);
  }
  return best;
}

const maker = new KeyMaker('openai', 'credential', []);
/** As many different bodies as the call count says, so that every one is parsed. */
const bodyOf = (i: number) => {
  BODY.write(String(1e9 + i), BODY.length - 13, 'latin1');
  return BODY;
};
const table: [what: string, call: (i: number) => string][] = [
  ['httpKey', () => maker.httpKey('/v1/models?limit=20', PAIRS)],
  ['ruleKeys, canonical, repeated body', () => maker.ruleKeys(canonical!, 'POST', '/v1/embeddings', PAIRS, BODY)],
  ['ruleKeys, exact body', () => maker.ruleKeys(exact!, 'POST', '/v1/embeddings', PAIRS, BODY)],
  ['ruleKeys, OAuth query, no body', () => maker.ruleKeys(signed!, 'GET', SEARCH, PAIRS, null)],
  ['ruleKeys, canonical, new body', (i) => maker.ruleKeys(canonical!, 'POST', '/v1/embeddings', PAIRS, bodyOf(i))],
];
console.log(`node ${process.version}, body of ${BODY.length} bytes, best of ${ROUNDS} rounds`);
for (const [what, call] of table) console.log(`${bestOf(call).toFixed(0).padStart(6)} ns  ${what}`);
