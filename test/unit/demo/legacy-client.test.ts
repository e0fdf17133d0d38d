// The legacy client against the real mocks behind their relays: it does what the seed's backend did, and notices what is wrong.
import t from 'tap';
import { type BaseUrls, legacyCalls } from '../../../src/demo/legacy-calls.ts';
import { type LoadOptions, quantile, runLoad } from '../../../src/demo/legacy-client.ts';
import { Upstreams } from '../../../src/demo/upstreams.ts';

const calls = legacyCalls();
const upstreams = new Upstreams();
const { ports, ca } = await upstreams.start({ rtt: 4, thinkMs: { openai: 5, deepseek: 6, fatsecret: 5 } });
t.teardown(() => upstreams.close());
const baseUrls: BaseUrls = {
  openai: `https://127.0.0.1:${ports.openai}`,
  deepseek: `https://127.0.0.1:${ports.deepseek}`,
  fatsecret: `https://localhost:${ports.fatsecret}`,
};
const load: LoadOptions = {
  users: 3,
  callsPerUser: calls.length,
  calls,
  baseUrls,
  ca,
  signal: new AbortController().signal,
  onProgress: () => {},
};

t.test('every call opens a connection of its own and its answer is checked', async (t) => {
  upstreams.resetCounters();
  const seen: number[] = [];
  const result = await runLoad({ ...load, onProgress: (done) => seen.push(done) });
  t.match(result, { calls: 30, errors: 0 });
  t.equal(result.latenciesMs.length, 30);
  t.same(
    seen,
    Array.from({ length: 30 }, (_, i) => i + 1),
  );
  const { openai, deepseek, fatsecret } = upstreams.counters;
  t.match([openai.requests, deepseek.requests, fatsecret.requests], [12, 6, 12]);
  t.match([openai.connections, deepseek.connections, fatsecret.connections], [12, 6, 12]);
});

t.test('errors are counted by reason and are not in the latencies', async (t) => {
  const wrong = { ...baseUrls, openai: `${baseUrls.openai}/nothing`, deepseek: 'http://127.0.0.1:1' };
  const result = await runLoad({ ...load, users: 1, baseUrls: wrong });
  t.equal(result.errors, 6);
  t.equal(result.latenciesMs.length, 4);
  t.same(Object.fromEntries(result.reasons), { 'status 404': 4, ECONNREFUSED: 2 });
  const untrusting = await runLoad({ ...load, users: 1, callsPerUser: 1, ca: '' });
  t.equal(untrusting.errors, 1, 'a certificate that is not trusted');
});

t.test('an interrupted load rejects at once', async (t) => {
  const controller = new AbortController();
  const running = runLoad({
    ...load,
    callsPerUser: 1000,
    signal: controller.signal,
    onProgress: () => controller.abort(),
  });
  await t.rejects(running, { name: 'AbortError' });
});

t.test('a quantile is one of the values', async (t) => {
  const values = Array.from({ length: 100 }, (_, i) => i + 1);
  t.equal(quantile(values, 0.5), 50);
  t.equal(quantile(values, 0.95), 95);
  t.equal(quantile([7], 0.95), 7);
  t.ok(Number.isNaN(quantile([], 0.5)));
});
