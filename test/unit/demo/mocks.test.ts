// The mock upstreams, judged by the official openai SDK and by plain fetch.
import { once } from 'node:events';
import { Agent, type ClientRequest, get, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI, { APIError } from 'openai';
import t, { type Test } from 'tap';
import { deepseekMock } from '../../../src/demo/mock-deepseek.ts';
import { fatsecretMock } from '../../../src/demo/mock-fatsecret.ts';
import { openaiMock } from '../../../src/demo/mock-openai.ts';
import { type MockOptions, MockServer } from '../../../src/demo/mock-server.ts';

async function start(t: Test, answer: MockOptions['answer']): Promise<{ mock: MockServer; url: string }> {
  const mock = new MockServer({ answer, tls: null });
  const url = `http://127.0.0.1:${await mock.listen()}`;
  t.teardown(() => mock.close());
  return { mock, url };
}

function sdk(baseURL: string): OpenAI {
  return new OpenAI({ baseURL, apiKey: 'sk-test', maxRetries: 0 });
}

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

const MESSAGES = [{ role: 'user' as const, content: 'How many calories does a banana have?' }];

t.test('the openai SDK chats with the OpenAI mock', async (t) => {
  const { url } = await start(t, openaiMock(5));
  const { data, response } = await sdk(`${url}/v1`)
    .chat.completions.create({ model: 'gpt-4o-mini', messages: MESSAGES })
    .withResponse();
  t.match(data.choices[0]?.message.content, /kcal/);
  t.equal(data.choices[0]?.finish_reason, 'stop');
  t.equal(data.usage?.total_tokens, data.usage!.prompt_tokens + data.usage!.completion_tokens);
  t.match(response.headers.get('x-request-id'), /^req_/);
  t.ok(Number(response.headers.get('openai-processing-ms')) >= 3);
  t.equal(response.headers.get('x-ratelimit-remaining-requests'), '9999');
});

t.test('a streamed answer is the whole answer in pieces, then its usage', async (t) => {
  const { url } = await start(t, openaiMock(5));
  const client = sdk(`${url}/v1`);
  const request = { model: 'gpt-4o-mini', messages: MESSAGES };
  const whole = await client.chat.completions.create(request);
  const stream = await client.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await collect(stream);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
  t.equal(text, whole.choices[0]?.message.content);
  t.equal(chunks[0]?.choices[0]?.delta.role, 'assistant');
  t.ok(chunks.length > 5);
  t.same(chunks.at(-1)?.choices, []);
  t.same(chunks.at(-1)?.usage, whole.usage);
});

t.test('an image of 8 MB arrives whole', async (t) => {
  const { url } = await start(t, openaiMock(5));
  const bytes = 8 << 20;
  const image = `data:image/png;base64,${Buffer.alloc(bytes, 7).toString('base64')}`;
  const answer = await sdk(`${url}/v1`).chat.completions.create({
    model: 'gpt-4o',
    messages: [
      {
        role: 'user',
        content: [
          { type: 'text', text: 'What is it?' },
          { type: 'image_url', image_url: { url: image } },
        ],
      },
    ],
  });
  t.match(answer.choices[0]?.message.content, `${bytes} bytes`);
});

t.test('embeddings are floats in both encodings, and models are listed', async (t) => {
  const { url } = await start(t, openaiMock(5));
  const client = sdk(`${url}/v1`);
  const request = { model: 'text-embedding-3-small', input: ['banana', 'apple'], dimensions: 64 };
  const base64 = await client.embeddings.create(request); // the SDK asks for base64 by itself
  const floats = await client.embeddings.create({ ...request, encoding_format: 'float' });
  t.equal(base64.data.length, 2);
  t.equal(base64.data[0]?.embedding.length, 64);
  t.same(Array.from(base64.data[0]!.embedding), floats.data[0]?.embedding);
  t.notSame(floats.data[0]?.embedding, floats.data[1]?.embedding);
  t.ok((await client.models.list()).data.some((model) => model.id === 'gpt-4o-mini'));
});

t.test('errors have the shape and the status that the SDK knows', async (t) => {
  const { url } = await start(t, openaiMock(5));
  const unknown = sdk(`${url}/v1`).chat.completions.create({ model: 'gpt-none', messages: MESSAGES });
  const error: unknown = await unknown.catch((reason: unknown) => reason);
  t.ok(error instanceof APIError);
  t.match(error, { status: 404, code: 'model_not_found', type: 'invalid_request_error' });
  const noKey = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: '{}' });
  t.equal(noKey.status, 401);
  t.match(await noKey.json(), { error: { type: 'invalid_request_error', message: /API key/ } });
  const headers = { authorization: 'Bearer x' };
  const broken = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: '{', headers });
  t.equal(broken.status, 400);
  t.equal((await fetch(`${url}/v2`)).status, 404);
});

t.test('DeepSeek sends blank lines before a JSON answer and comments before a stream', async (t) => {
  const { url } = await start(t, deepseekMock(30));
  const request = { model: 'deepseek-chat', messages: MESSAGES };
  const post = (body: object): Promise<Response> =>
    fetch(`${url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer x' },
      body: JSON.stringify(body),
    });
  t.match(await (await post(request)).text(), /^\n{3}\{/);
  t.match(
    await (await post({ ...request, stream: true })).text(),
    /^(: keep-alive\n\n){3}data: \{.*data: \[DONE\]\n\n$/s,
  );

  const client = sdk(url);
  const answer = await client.chat.completions.create(request);
  t.match(answer.choices[0]?.message.content, /kcal/, 'the SDK reads over blank lines');
  const chunks = await collect(await client.chat.completions.create({ ...request, stream: true }));
  t.equal(chunks.at(-1)?.choices[0]?.finish_reason, 'stop', 'and over comments');
});

t.test('FatSecret finds foods by GET, by POST form and by its newer path', async (t) => {
  const { url } = await start(t, fatsecretMock(1));
  const query = 'method=foods.search&format=json&search_expression=banana';
  const byGet: unknown = await (await fetch(`${url}/rest/server.api?${query}`)).json();
  t.match(byGet, { foods: { food: [{ food_name: 'Banana', food_description: /^Per 100g - Calories: 89kcal/ }] } });
  const form = { method: 'POST', body: new URLSearchParams(query) };
  t.same(await (await fetch(`${url}/rest/server.api`, form)).json(), byGet);
  t.same(await (await fetch(`${url}/rest/foods/search/v1?search_expression=banana`)).json(), byGet);
  t.match(await (await fetch(`${url}/rest/server.api?method=foods.get`)).json(), { error: { code: 10 } });
  t.match(await (await fetch(`${url}/rest/server.api?method=foods.search`)).json(), { error: { code: 101 } });
});

t.test('a mock counts connections, requests, concurrency and clients that left', async (t) => {
  const { mock, url } = await start(t, fatsecretMock(50));
  const agent = new Agent({ keepAlive: true, maxSockets: 3 });
  t.teardown(() => agent.destroy());
  const search = (): ClientRequest => get(`${url}/rest/foods/search/v1?search_expression=egg`, { agent });
  const answered = async (request: ClientRequest): Promise<void> => {
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    await once(response.resume(), 'close');
  };
  await Promise.all([answered(search()), answered(search()), answered(search())]);
  await answered(search());
  t.same(mock.counters, { connections: 3, requests: 4, abandoned: 0, max_concurrent: 3 });

  mock.resetCounters();
  const leaving = search().on('error', () => {});
  await until(() => mock.counters.requests === 1);
  leaving.destroy();
  await until(() => mock.counters.abandoned === 1);
  t.same(mock.counters, { connections: 0, requests: 1, abandoned: 1, max_concurrent: 1 });
});

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !holds(); i++) await sleep(5);
}
