// The stats port's words about the cache: DELETE /cache and POST /cache/explain, from their texts to the desk and back.

import type { Explained, Explanation, PurgeOrder } from './cache-desk.ts';
import { type Answer, JSON_TYPE, ok, refusal } from './stats-answers.ts';

export interface CacheAsker {
  purge(order: PurgeOrder): Promise<{ memory: number; redis: number | null }>;
  explain(request: Explained): Promise<Explanation | string>;
}

const PURGE_KEYS = ['upstream', 'prefix', 'key'];
const EXPLAIN_SHAPE =
  'the body must be JSON such as {"method":"POST","url":"/openai/v1/embeddings","headers":{"authorization":"…"},"body":"…"}';
const METHOD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/;

export async function purge(desk: CacheAsker, query: URLSearchParams): Promise<Answer> {
  for (const key of query.keys()) {
    if (!PURGE_KEYS.includes(key)) return bad(`unknown parameter; there are ${PURGE_KEYS.join(', ')}`);
    if (query.getAll(key).length > 1) return bad(`${key} is given twice`);
  }
  const prefix = query.get('prefix');
  if (prefix !== null && (!prefix.startsWith('/') || prefix.includes('?'))) {
    return bad('prefix must be the beginning of a path below the upstream: it starts with / and has no query');
  }
  const purged = await desk.purge({ upstream: query.get('upstream'), prefix, key: query.get('key') });
  return ok(JSON_TYPE, `${JSON.stringify({ purged })}\n`);
}

export async function explain(desk: CacheAsker, body: Buffer): Promise<Answer> {
  const request = readExplained(body);
  if (typeof request === 'string') return bad(request);
  const explanation = await desk.explain(request);
  if (typeof explanation === 'string') return bad(explanation);
  return ok(JSON_TYPE, `${JSON.stringify(explanation, null, 2)}\n`);
}

function bad(message: string): Answer {
  return refusal(400, 'bad_request', message);
}

/** A text says what is wrong. */
function readExplained(bytes: Buffer): Explained | string {
  let shape: unknown;
  try {
    shape = JSON.parse(bytes.toString());
  } catch {
    return EXPLAIN_SHAPE;
  }
  if (typeof shape !== 'object' || shape === null) return EXPLAIN_SHAPE;
  const { method = 'GET', url, headers = {}, body = null } = shape as Record<string, unknown>;
  if (typeof url !== 'string') return `url is missing; ${EXPLAIN_SHAPE}`;
  if (typeof method !== 'string' || !METHOD.test(method)) return 'method must be the name of a method, such as POST';
  if (body !== null && typeof body !== 'string') return 'body must be the text of the body';
  const pairs = flatPairs(headers);
  if (!pairs) return 'headers must be an object of texts (or lists of texts)';
  return { method, url, headers: pairs, body: body ? Buffer.from(body) : null };
}

function flatPairs(headers: unknown): string[] | null {
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers)) return null;
  const pairs: string[] = [];
  for (const [name, value] of Object.entries(headers)) {
    for (const one of [value].flat()) {
      if (typeof one !== 'string') return null;
      pairs.push(name, one);
    }
  }
  return pairs;
}
