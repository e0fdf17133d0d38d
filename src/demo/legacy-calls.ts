// The calls that the seed's backend makes, as plain request descriptions, and how each answer is known to be whole and right.
import type { UpstreamName } from './upstreams.ts';

/** Where each API is reached: the one thing that changes between direct and proxied. Without a slash at the end. */
export type BaseUrls = Readonly<Record<UpstreamName, string>>;

export interface LegacyCall {
  readonly upstream: UpstreamName;
  readonly method: 'GET' | 'POST';
  /** Appended to the upstream's base URL. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  /** Whether the text of a 200 is the whole answer. */
  readonly isComplete: (text: string) => boolean;
}

const IMAGE_BYTES = 48 << 10;

/** One round of calls: of ten, four go to OpenAI, two to DeepSeek, four to FatSecret. Users start at different places in it. */
export function legacyCalls(): readonly LegacyCall[] {
  const question = 'How many calories does a banana have?';
  const image = Buffer.alloc(IMAGE_BYTES, 'aiproxy demo image ').toString('base64');
  const picture = [
    { type: 'text', text: 'What is on this plate?' },
    { type: 'image_url', image_url: { url: `data:image/jpeg;base64,${image}` } },
  ];
  const analysis = chat('openai', 'gpt-4o-mini', picture, false);
  const sawImage = (text: string): boolean => text.includes(`${IMAGE_BYTES} bytes`);
  return [
    chat('openai', 'gpt-4o-mini', question, false),
    foodSearch('banana'),
    chat('deepseek', 'deepseek-chat', question, false),
    foodSearch('oatmeal'),
    chat('openai', 'gpt-4o-mini', question, true),
    foodSearch('salmon'),
    { ...analysis, isComplete: (text) => analysis.isComplete(text) && sawImage(text) },
    chat('deepseek', 'deepseek-chat', question, true),
    foodSearch('egg'),
    chat('openai', 'gpt-4o-mini', question, false),
  ];
}

function chat(upstream: 'openai' | 'deepseek', model: string, content: unknown, stream: boolean): LegacyCall {
  return {
    upstream,
    method: 'POST',
    path: upstream === 'openai' ? '/v1/chat/completions' : '/chat/completions',
    headers: { authorization: 'Bearer sk-demo', 'content-type': 'application/json' },
    body: JSON.stringify({ model, stream, messages: [{ role: 'user', content }] }),
    isComplete: stream ? isWholeStream : hasChoice,
  };
}

function foodSearch(expression: string): LegacyCall {
  return {
    upstream: 'fatsecret',
    method: 'GET',
    path: `/rest/server.api?method=foods.search&format=json&search_expression=${expression}`,
    headers: { authorization: 'Bearer demo' },
    body: null,
    isComplete: hasFood,
  };
}

function isWholeStream(text: string): boolean {
  return text.includes('"finish_reason":"stop"') && text.endsWith('data: [DONE]\n\n');
}

function hasChoice(text: string): boolean {
  const answer = parsed(text) as { choices?: { message?: { content?: unknown } }[] } | null;
  return typeof answer?.choices?.[0]?.message?.content === 'string';
}

function hasFood(text: string): boolean {
  const answer = parsed(text) as { foods?: { food?: unknown[] } } | null;
  return (answer?.foods?.food?.length ?? 0) > 0;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
