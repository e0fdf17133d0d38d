// The work every proxy gets: one chat completion call as an OpenAI SDK sends it, and the answer as OpenAI's servers shape it.

/** A POST to forward; the same POST, or a GET, that is always answered from the proxy's cache. */
export type Work = 'forwarded' | 'post-hit' | 'get-hit';

/** Prefix of the path: what aiproxy calls the upstream, and what nginx and HAProxy take off again. */
const PATH = '/openai/v1/chat/completions';
/** What the GET asks for: a stored completion, by its id. */
const GET_PATH = `${PATH}/chatcmpl-9mT5c1Xk3cQF0rVYb2sJ7eDh4LpNw?metadata=bench`;

/** 240 bytes of JSON. */
const QUESTION = pad(
  {
    model: 'gpt-4o-mini',
    messages: [
      { role: 'system', content: 'You are a nutrition assistant. Answer in one line.' },
      { role: 'user', content: 'How many calories are in a bowl of oatmeal' },
    ],
    temperature: 0.2,
    max_tokens: 64,
    user: '',
  },
  240,
);

/** 500 bytes of JSON. */
export const ANSWER: Buffer = Buffer.from(
  pad(
    {
      id: 'chatcmpl-9mT5c1Xk3cQF0rVYb2sJ7eDh4LpNw',
      object: 'chat.completion',
      created: 1795392000,
      model: 'gpt-4o-mini-2024-07-18',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'About 150 kcal per bowl of 240 g, cooked with water.' },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: { prompt_tokens: 34, completion_tokens: 17, total_tokens: 51 },
      system_fingerprint: 'fp_0ba0d124f1',
      user: '',
    },
    500,
  ),
);

/** The bytes of one request, sent over and over on each connection. */
export function requestBytes(port: number, work: Work): Buffer {
  const fields =
    `Host: 127.0.0.1:${port}\r\n` +
    'Accept: application/json\r\n' +
    'Accept-Encoding: gzip, deflate\r\n' +
    'Content-Type: application/json\r\n' +
    'User-Agent: OpenAI/Python 2.8.1\r\n' +
    'Authorization: Bearer sk-proj-0123456789abcdefghijklmnopqrstuvwxyz\r\n' +
    'x-stainless-lang: python\r\n';
  if (work === 'get-hit') return Buffer.from(`GET ${GET_PATH} HTTP/1.1\r\n${fields}\r\n`);
  const length = `Content-Length: ${QUESTION.length}\r\n`;
  return Buffer.from(`POST ${PATH} HTTP/1.1\r\n${fields}${length}\r\n${QUESTION}`);
}

/**
 * The bytes of one answer: eight headers and what keeps the connection open.
 * @param cacheable for a shared cache too, whatever the Authorization (RFC 9111 section 3.5)
 */
export function answerBytes(cacheable: boolean): Buffer {
  const head =
    'HTTP/1.1 200 OK\r\n' +
    `Date: ${new Date().toUTCString()}\r\n` +
    'Content-Type: application/json\r\n' +
    `Content-Length: ${ANSWER.length}\r\n` +
    'Connection: keep-alive\r\n' +
    (cacheable ? 'Cache-Control: public, max-age=3600\r\n' : '') +
    'openai-organization: bench-org\r\n' +
    'openai-processing-ms: 412\r\n' +
    'openai-version: 2020-10-01\r\n' +
    'x-ratelimit-remaining-requests: 9999\r\n' +
    'x-request-id: req_8f14e45fceea167a5a36dedd4bea2543\r\n\r\n';
  return Buffer.concat([Buffer.from(head), ANSWER]);
}

/** JSON of `shape` made exactly `size` bytes long by its `user` field. */
function pad(shape: Record<string, unknown>, size: number): string {
  const missing = size - JSON.stringify(shape).length;
  if (missing < 0) throw new Error(`the work is ${-missing} bytes longer than ${size}`);
  return JSON.stringify({ ...shape, user: 'u'.repeat(missing) });
}
