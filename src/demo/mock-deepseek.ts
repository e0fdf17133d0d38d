// A mock of the DeepSeek API: OpenAI's chat shapes, and the filler it sends while a request waits for its turn
// (api-docs.deepseek.com/quick_start/rate_limit): blank lines before a JSON answer, `: keep-alive` comments before a stream.
import { completion, isAuthorized, readChat, sendChunks, sendError } from './mock-chat.ts';
import { type Call, sendJson, think } from './mock-server.ts';

const MODELS = ['deepseek-chat', 'deepseek-reasoner'];
const FILLERS = 3;

/** Answers like api.deepseek.com after thinking for about `thinkMs`, with the filler spread over that time. */
export function deepseekMock(thinkMs: number): (call: Call) => Promise<void> {
  return async (call) => {
    const { request, response, url } = call;
    const path = url.pathname.replace(/^\/v1\//, '/');
    if (request.method === 'GET' && path === '/models') return sendModels(call);
    if (request.method !== 'POST' || path !== '/chat/completions') {
      return sendError(response, 404, `Not Found (${request.method} ${url.pathname})`, null);
    }
    const chat = readChat(call, MODELS);
    if (chat === null) return;
    // The head leaves at once; only the answer waits.
    response.writeHead(200, { 'content-type': chat.stream ? 'text/event-stream; charset=utf-8' : 'application/json' });
    for (let i = 0; i < FILLERS; i++) {
      response.write(chat.stream ? ': keep-alive\n\n' : '\n');
      await think(thinkMs / FILLERS);
      if (response.destroyed) return;
    }
    if (chat.stream) await sendChunks(response, chat);
    else response.end(JSON.stringify(completion(chat)));
  };
}

function sendModels(call: Call): void {
  if (!isAuthorized(call)) return;
  const list = MODELS.map((id) => ({ id, object: 'model', owned_by: 'deepseek' }));
  sendJson(call.response, 200, { object: 'list', data: list });
}
