// A mock of the OpenAI API: chat (whole and streamed, with images), embeddings and models, with the headers its clients read.
import { createHash, randomUUID } from 'node:crypto';
import { completion, isAuthorized, isKnownModel, readChat, sendChunks, sendError } from './mock-chat.ts';
import { type Call, jsonBody, sendJson, think } from './mock-server.ts';

const CHAT_MODELS = ['gpt-4o', 'gpt-4o-mini', 'gpt-4.1', 'gpt-4.1-mini', 'gpt-5', 'gpt-5-mini'];
const EMBEDDING_MODELS = ['text-embedding-3-small', 'text-embedding-3-large'];
const DEFAULT_DIMENSIONS = 1536;

/** Answers like api.openai.com after thinking for about `thinkMs`. */
export function openaiMock(thinkMs: number): (call: Call) => Promise<void> {
  return async (call) => {
    const startedAt = performance.now();
    const { request, response, url } = call;
    const addHeaders = (): void => {
      response.setHeader('openai-processing-ms', String(Math.round(performance.now() - startedAt)));
    };
    setVendorHeaders(call);
    const route = `${request.method} ${url.pathname}`;
    if (route === 'GET /v1/models') return sendModels(call);
    if (route === 'POST /v1/embeddings') {
      await think(thinkMs / 2);
      addHeaders();
      return sendEmbeddings(call);
    }
    if (route !== 'POST /v1/chat/completions') {
      return sendError(response, 404, `Invalid URL (${route})`, null);
    }
    const chat = readChat(call, CHAT_MODELS);
    if (chat === null) return;
    await think(thinkMs);
    addHeaders();
    if (!chat.stream) return sendJson(response, 200, completion(chat));
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
    await sendChunks(response, chat);
  };
}

function setVendorHeaders({ response }: Call): void {
  response.setHeader('x-request-id', `req_${randomUUID().replaceAll('-', '')}`);
  response.setHeader('openai-organization', 'aiproxy-demo');
  response.setHeader('openai-version', '2020-10-01');
  response.setHeader('x-ratelimit-limit-requests', '10000');
  response.setHeader('x-ratelimit-remaining-requests', '9999');
  response.setHeader('x-ratelimit-reset-requests', '6ms');
  response.setHeader('x-ratelimit-limit-tokens', '2000000');
  response.setHeader('x-ratelimit-remaining-tokens', '1999000');
  response.setHeader('x-ratelimit-reset-tokens', '30ms');
}

function sendModels(call: Call): void {
  if (!isAuthorized(call)) return;
  const models = [...CHAT_MODELS, ...EMBEDDING_MODELS];
  const list = models.map((id) => ({ id, object: 'model', created: 1_715_367_049, owned_by: 'openai' }));
  sendJson(call.response, 200, { object: 'list', data: list });
}

function sendEmbeddings(call: Call): void {
  if (!isAuthorized(call)) return;
  const body = jsonBody(call);
  const model = typeof body?.model === 'string' ? body.model : '';
  if (!isKnownModel(call, model, EMBEDDING_MODELS)) return;
  const input = body?.input;
  const texts = Array.isArray(input) ? input.map(String) : [String(input ?? '')];
  const dimensions = Math.min(Number(body?.dimensions ?? DEFAULT_DIMENSIONS) || DEFAULT_DIMENSIONS, 3072);
  const list = texts.map((text, index) => {
    const values = vector(text, dimensions);
    // The official SDKs ask for base64 of little-endian floats unless told otherwise.
    const embedding = body?.encoding_format === 'base64' ? Buffer.from(values.buffer).toString('base64') : [...values];
    return { object: 'embedding', index, embedding };
  });
  const tokens = Math.ceil(texts.join('').length / 4);
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  sendJson(call.response, 200, { object: 'list', data: list, model, usage });
}

/** The same text always gives the same unit vector. */
function vector(text: string, dimensions: number): Float32Array<ArrayBuffer> {
  const seed = createHash('sha256').update(text).digest();
  const values = Float32Array.from(
    { length: dimensions },
    (_, i) => seed[i % seed.length]! / 127.5 - 1 + i / dimensions,
  );
  const length = Math.hypot(...values);
  return values.map((value) => value / length);
}
