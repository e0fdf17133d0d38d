// The official openai SDK, unmodified but for its baseURL, through aiproxy to a mock of the API.

import OpenAI from 'openai';
import { openaiMock } from '../../src/demo/mock-openai.ts';
import { MockServer } from '../../src/demo/mock-server.ts';
import type { TestProxy } from '../support/proxy.ts';
import type { Rig } from '../support/rig.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead } from '../support/upstream.ts';

/** The SDK's fetch keeps its idle connections as long as it may; so that none outlives its test: */
const SOON = { listener: { keepAliveTimeoutMs: 1000 } };

async function mock(rig: Rig, overrides: object = {}) {
  const server = new MockServer({ answer: openaiMock(5), tls: null });
  const url = `http://127.0.0.1:${await server.listen()}`;
  rig.closes(server);
  const proxy = await rig.one({ url, ...overrides }, SOON);
  return { server, proxy };
}

/** The SDK as a backend makes it: only the base URL differs. */
function sdk(proxy: TestProxy, options: object = {}): OpenAI {
  return new OpenAI({ apiKey: 'sk-test', baseURL: `${proxy.url}/ai/v1`, ...options });
}

const question = { model: 'gpt-4o-mini', messages: [{ role: 'user' as const, content: 'How much is in a banana?' }] };

e2e('a chat completion', async (t, rig) => {
  const { proxy } = await mock(rig);
  const { data, response } = await sdk(proxy).chat.completions.create(question).withResponse();
  t.match(data.choices[0]!.message.content, /105 kcal/);
  t.ok(data.usage!.total_tokens > 0);
  t.match(response.headers.get('x-request-id'), /^req_/);
  t.match(response.headers.get('x-ratelimit-remaining-requests'), /\d/);
  t.match(response.headers.get('server-timing'), /ttfb/);
});

e2e('a streamed chat completion, its chunks as they come', async (t, rig) => {
  const { proxy } = await mock(rig);
  const stream = await sdk(proxy).chat.completions.create({
    ...question,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = '';
  let usage = 0;
  const times = new Set<number>();
  for await (const { choices, usage: counted } of stream) {
    text += choices[0]?.delta.content ?? '';
    usage += counted?.total_tokens ?? 0;
    times.add(Math.round(performance.now()));
  }
  t.match(text, /^A banana of 118 g .* fat\.$/);
  t.ok(usage > 0);
  t.ok(times.size > 3, `the chunks came at ${times.size} different moments`);
});

e2e('an 8 MB base64 image', async (t, rig) => {
  const { proxy } = await mock(rig);
  const bytes = 8 << 20;
  const image = Buffer.alloc(bytes, 7).toString('base64');
  const { choices } = await sdk(proxy).chat.completions.create({
    model: 'gpt-4o',
    messages: [
      {
        role: 'user',
        content: [
          { type: 'text', text: 'What is it?' },
          { type: 'image_url', image_url: { url: `data:image/png;base64,${image}` } },
        ],
      },
    ],
  });
  t.match(choices[0]!.message.content, new RegExp(`${bytes} bytes`), 'the mock decoded all of it');
  t.ok(proxy.upstream().bytes_in > image.length);
});

e2e('embeddings', async (t, rig) => {
  const { proxy } = await mock(rig);
  const { data } = await sdk(proxy).embeddings.create({ model: 'text-embedding-3-small', input: ['a', 'b', 'a'] });
  t.equal(data.length, 3);
  t.equal(data[0]!.embedding.length, 1536);
  t.same(data[0]!.embedding, data[2]!.embedding);
  t.notSame(data[0]!.embedding, data[1]!.embedding);
});

e2e("the API's own errors keep their types", async (t, rig) => {
  const { proxy } = await mock(rig);
  const error = await sdk(proxy)
    .chat.completions.create({ ...question, model: 'gpt-0' })
    .catch((e) => e);
  t.ok(error instanceof OpenAI.NotFoundError);
  t.match(error, { status: 404, code: 'model_not_found', message: /does not exist/ });
  const denied = await sdk(proxy, { apiKey: ' ' })
    .models.list()
    .catch((e) => e);
  t.ok(denied instanceof OpenAI.AuthenticationError);
});

e2e('aiproxy’s own refusals are errors of the SDK too', async (t, rig) => {
  const { proxy } = await mock(rig);
  const wrong = new OpenAI({ apiKey: 'x', baseURL: `${proxy.url}/nobody/v1` });
  const error = await wrong.models.list().catch((e) => e);
  t.match(error, { status: 404, code: 'unknown_upstream', type: 'aiproxy_error', message: /known are ai/ });
});

e2e('an abort within a stream reaches the upstream', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead('content-type: text/event-stream\r\n'));
    connection.send(chunk('data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'));
  });
  const proxy = await rig.one({ url: upstream.url }, SOON);
  const stream = await sdk(proxy).chat.completions.create({ ...question, stream: true });
  for await (const part of stream) {
    t.equal(part.choices[0]!.delta.content, 'Hi');
    break; // aborts, as the SDK documents
  }
  await until('the upstream is cancelled', () => upstream.connections[0]!.left, 1000);
  await proxy.idle(1000);
  t.equal(proxy.upstream().failures.client_gone, 1);
});

e2e('an abort before the answer reaches the upstream', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url }, SOON);
  const abort = new AbortController();
  const asked = sdk(proxy).chat.completions.create(question, { signal: abort.signal });
  const failed = asked.catch((e) => e);
  await upstream.request(0);
  abort.abort();
  t.ok((await failed) instanceof OpenAI.APIUserAbortError);
  await until('the upstream is cancelled', () => upstream.connections[0]!.left, 1000);
});

e2e('a stream that is cut is an error of the SDK, never a complete answer', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead('content-type: text/event-stream\r\n'));
    connection.send(chunk('data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'));
    await until('it has been passed on', () => proxy.upstream().bytes_out > 0 || proxy.upstream().in_flight === 1);
    setTimeout(() => connection.resetAndDestroy(), 30);
  });
  const proxy = await rig.one({ url: upstream.url }, SOON);
  const stream = await sdk(proxy).chat.completions.create({ ...question, stream: true });
  await t.rejects(async () => {
    for await (const part of stream) t.equal(part.choices[0]!.delta.content, 'Hi');
  });
});

e2e('the SDK retries our 503 after Retry-After, and succeeds', async (t, rig) => {
  let hold = true;
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    await until('released', () => !hold);
    connection.send(answer('{"choices":[]}', 'content-type: application/json\r\n'));
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate' },
    { ...SOON, limiters: { gate: { maxConcurrent: 1, maxQueue: 0 } } },
  );
  // One pulse a second makes the rate known; then Retry-After is short.
  const stuck = rig.ask(proxy, '/ai/x');
  await upstream.request(0);
  const started = performance.now();
  const asked = sdk(proxy, { maxRetries: 2 }).chat.completions.create(question);
  await until('it was refused once', () => proxy.limiter('gate').refused === 1);
  hold = false;
  await stuck;
  const done = await asked;
  t.same(done.choices, []);
  t.equal(proxy.limiter('gate').refused, 1);
  const took = performance.now() - started;
  const refused = proxy.exchanges.find((line) => line.failure === 'queue_full');
  t.equal(refused?.status, 503);
  t.ok(took >= 900, `it waited for ${Math.round(took)} ms, as Retry-After said`);
});

e2e('the SDK does not resend where x-should-retry says false: an accepted request is not run twice', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.resetAndDestroy());
  const proxy = await rig.one({ url: upstream.url }, SOON);
  const error = await sdk(proxy, { maxRetries: 5 })
    .chat.completions.create(question)
    .catch((e) => e);
  t.match(error, { status: 502, code: 'upstream_reset' });
  t.equal(upstream.requests.length, 1);
});

e2e('many calls share few connections', async (t, rig) => {
  const { server, proxy } = await mock(rig, { pool: { connections: 5 } });
  const client = sdk(proxy);
  const answers = await Promise.all(Array.from({ length: 60 }, () => client.chat.completions.create(question)));
  t.equal(answers.length, 60);
  t.ok(server.counters.connections <= 5);
  t.ok(proxy.pool().reuse_rate! > 0.9);
});
