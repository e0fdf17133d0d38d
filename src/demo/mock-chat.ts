// The chat completion shapes that OpenAI defined and DeepSeek speaks too: the answer, its stream of chunks, and errors.
import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Call, jsonBody, sendJson } from './mock-server.ts';

/** Between two chunks of a stream, in ms. */
const CHUNK_GAP_MS = 4;

export interface ChatRequest {
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Text of all messages together, in characters. */
  readonly textLength: number;
  /** Decoded size of the images in the messages, in bytes. */
  readonly imageBytes: number;
}

/** The chat request in a call; null once it has been refused with the vendor's error. */
export function readChat(call: Call, models: readonly string[]): ChatRequest | null {
  if (!isAuthorized(call)) return null;
  const body = jsonBody(call);
  if (body === null) {
    sendError(call.response, 400, 'We could not parse the JSON body of your request.', null);
    return null;
  }
  const model = typeof body.model === 'string' ? body.model : '';
  if (!isKnownModel(call, model, models)) return null;
  if (!Array.isArray(body.messages)) {
    sendError(call.response, 400, "Missing required parameter: 'messages'.", 'missing_required_parameter', 'messages');
    return null;
  }
  const options = body.stream_options as { include_usage?: unknown } | undefined;
  return {
    model,
    stream: body.stream === true,
    includeUsage: options?.include_usage === true,
    ...measure(body.messages as Message[]),
  };
}

export function isAuthorized(call: Call): boolean {
  if (/^Bearer \S/.test(call.request.headers.authorization ?? '')) return true;
  sendError(call.response, 401, "You didn't provide an API key. Provide it in an Authorization header (Bearer).", null);
  return false;
}

export function isKnownModel(call: Call, model: string, models: readonly string[]): boolean {
  if (models.includes(model)) return true;
  const message = `The model \`${model}\` does not exist or you do not have access to it.`;
  sendError(call.response, 404, message, 'model_not_found');
  return false;
}

export function sendError(
  response: ServerResponse,
  status: number,
  message: string,
  code: string | null,
  param: string | null = null,
): void {
  sendJson(response, status, { error: { message, type: 'invalid_request_error', param, code } });
}

interface Message {
  content?: string | { type?: string; text?: string; image_url?: { url?: string } }[] | null;
}

function measure(messages: Message[]): { textLength: number; imageBytes: number } {
  let textLength = 0;
  let imageBytes = 0;
  for (const { content } of messages) {
    if (typeof content === 'string') textLength += content.length;
    if (!Array.isArray(content)) continue;
    for (const part of content) {
      textLength += part.text?.length ?? 0;
      const url = part.image_url?.url ?? '';
      // Only inlined images have a size here: data:image/png;base64,...
      if (url.startsWith('data:')) imageBytes += Buffer.byteLength(url.slice(url.indexOf(',') + 1), 'base64');
    }
  }
  return { textLength, imageBytes };
}

/** The words the mock answers with; says how large an image was, so that a test can see that it arrived whole. */
function answerText(chat: ChatRequest): string {
  if (chat.imageBytes > 0) return `I see a bowl of oatmeal with banana in your image of ${chat.imageBytes} bytes.`;
  return 'A banana of 118 g has about 105 kcal: 27 g of carbohydrates, 1.3 g of protein and 0.4 g of fat.';
}

/** Four characters or 512 image bytes to a token: near enough for a mock. */
function usage(chat: ChatRequest): object {
  const prompt = Math.ceil(chat.textLength / 4) + Math.ceil(chat.imageBytes / 512);
  const completion = Math.ceil(answerText(chat).length / 4);
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
}

function frame(chat: ChatRequest, object: string): { id: string; object: string; created: number; model: string } {
  return { id: `chatcmpl-${randomUUID()}`, object, created: Math.floor(Date.now() / 1000), model: chat.model };
}

export function completion(chat: ChatRequest): object {
  const message = { role: 'assistant', content: answerText(chat), refusal: null };
  return {
    ...frame(chat, 'chat.completion'),
    choices: [{ index: 0, message, logprobs: null, finish_reason: 'stop' }],
    usage: usage(chat),
  };
}

/** Writes the events of a streamed answer, a word or so at a time, and ends it. The head is the caller's. */
export async function sendChunks(response: ServerResponse, chat: ChatRequest): Promise<void> {
  const common = frame(chat, 'chat.completion.chunk');
  const tail = chat.includeUsage ? { usage: null } : {};
  const send = (choices: object[], more: object = tail): void => {
    response.write(`data: ${JSON.stringify({ ...common, choices, ...more })}\n\n`);
  };
  const choice = (delta: object, finish_reason: string | null = null): object[] => [{ index: 0, delta, finish_reason }];
  send(choice({ role: 'assistant', content: '' }));
  for (const words of answerText(chat).match(/(\S+\s*){1,2}/g) ?? []) {
    await sleep(CHUNK_GAP_MS);
    if (response.destroyed) return;
    send(choice({ content: words }));
  }
  send(choice({}, 'stop'));
  if (chat.includeUsage) send([], { usage: usage(chat) });
  response.end('data: [DONE]\n\n');
}
