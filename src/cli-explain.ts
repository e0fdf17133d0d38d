// `aiproxy explain`: asks a running aiproxy what its cache would do with a request, and prints the answer for people.

import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { buffer } from 'node:stream/consumers';
import type { Command } from 'commander';
import type { Io } from './cli.ts';
import { parseAddress } from './config/address.ts';
import type { Explanation } from './server/cache-desk.ts';

interface Flags {
  readonly stats?: string;
  readonly request?: string;
  readonly header?: readonly string[];
  readonly data?: string;
  readonly json?: boolean;
}

/** Where the stats port is. */
interface StatsPlace {
  readonly url: URL;
  /** Of its unix socket; undefined = TCP. */
  readonly socketPath: string | undefined;
  readonly shown: string;
}

/** What is wrong with the command line. It never holds a value: that may be a credential. */
class WrongUse extends Error {}

const DEFAULT_STATS = 'http://127.0.0.1:9090';
const PATIENCE_MS = 10_000;
/** A key with its parts and a few dozen variants is some kilobytes. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
const HEADER_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*$/;

const EXAMPLES = `
Examples:
  $ aiproxy explain /openai/v1/models
  $ aiproxy explain http://127.0.0.1:8080/openai/v1/models -H "Authorization: Bearer $OPENAI_API_KEY"
  $ aiproxy explain /openai/v1/embeddings -H 'Content-Type: application/json' -d '{"input":"an apple"}'
  $ aiproxy explain /openai/v1/embeddings -d @body.json --json | jq .key
  $ generate | aiproxy explain --stats http://127.0.0.1:9191 /openai/v1/embeddings -d @-

Nothing is sent to an upstream. Give the headers that your client sends: credentials, Accept, Accept-Encoding and
Content-Type count. Neither credentials nor bodies are ever printed.
Exit codes: 0 answered, 1 the stats port could not be asked, 2 wrong use.
`;

/** @param done told the exit code */
export function addExplain(program: Command, io: Io, done: (code: number) => void): void {
  program
    .command('explain')
    .description('ask a running aiproxy: would its cache answer this request, and if not, why?')
    .argument('<url>', 'a path below the proxy (/openai/v1/models), or a URL of it')
    .option('--stats <url>', `its stats port, or unix:/path.sock (default: ${DEFAULT_STATS})`)
    .option('-X, --request <method>', 'the method (default: GET, with -d POST)')
    .option('-H, --header <line>', "a header, 'name: value'; may be given again", collect)
    .option('-d, --data <body>', 'the body; @file is read from a file, @- from standard input')
    .option('--json', 'print the answer of the stats port as it is')
    .allowExcessArguments() // commander's own complaint would repeat them: the rest of an unquoted header, a credential
    .addHelpText('after', EXAMPLES)
    .action(async (url: string, _flags: unknown, command: Command) => {
      // The program has a --stats too, which takes what stands before and behind `explain`.
      const flags = command.optsWithGlobals<Flags>();
      try {
        if (command.args.length > 1) throw new WrongUse(`${command.args.length} URLs are given; is a header unquoted?`);
        done(await explain(url, flags, io));
      } catch (error) {
        if (!(error instanceof WrongUse)) throw error;
        command.error(`error: ${error.message}`);
      }
    });
}

function collect(line: string, lines: readonly string[] = []): string[] {
  return [...lines, line];
}

async function explain(url: string, flags: Flags, io: Io): Promise<number> {
  const stats = statsPlace(flags.stats ?? DEFAULT_STATS);
  const headers = readHeaders(flags.header ?? []);
  const body = flags.data === undefined ? null : await readBody(flags.data, io);
  const method = flags.request ?? (body === null ? 'GET' : 'POST');
  const { status, text } = await ask(stats, JSON.stringify({ method, url, headers, body }));
  if (status === 400 || status === 413) throw new WrongUse(`the stats port says: ${messageOf(text) ?? status}`);
  const answer = status === 200 ? readExplanation(text) : null;
  if (!answer) throw new Error(noExplanation(stats, status, text));
  io.stdout.write(flags.json ? text : describe(answer, Date.now()));
  return 0;
}

// ---- the command line

/** A URL, or an address as the config writes it. */
function statsPlace(text: string): StatsPlace {
  if (text.startsWith('unix:')) {
    const address = parseAddress(text);
    if (typeof address === 'string') throw new WrongUse(`--stats ${address}`);
    return { url: new URL('http://localhost/cache/explain'), socketPath: address.path, shown: text };
  }
  const url = URL.parse(text.includes('://') ? text : `http://${text.startsWith(':') ? '127.0.0.1' : ''}${text}`);
  if (url?.protocol !== 'http:') throw new WrongUse(`--stats must be an address such as ${DEFAULT_STATS}`);
  if (url.username || url.password) throw new WrongUse('--stats takes no user and password');
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  return { url: new URL('cache/explain', url), socketPath: undefined, shown: url.origin };
}

function readHeaders(lines: readonly string[]): Record<string, string[]> {
  const headers = new Map<string, string[]>();
  lines.forEach((line, i) => {
    const [, name, value] = HEADER_LINE.exec(line) ?? [];
    if (name === undefined) throw new WrongUse(`-H must be 'name: value'; number ${i + 1} is not`);
    headers.set(name, [...(headers.get(name) ?? []), value!]);
  });
  return Object.fromEntries(headers);
}

async function readBody(data: string, io: Io): Promise<string> {
  if (!data.startsWith('@')) return data;
  const bytes = data === '@-' ? await buffer(io.stdin) : readFile(data.slice(1));
  if (!isUtf8(bytes)) throw new WrongUse('the body is not UTF-8, and the stats port takes no other');
  return bytes.toString();
}

function readFile(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new WrongUse(`-d: ${file} cannot be read (${code})`);
  }
}

// ---- the question

/** @throws Error that says which address, and what to do */
async function ask({ url, socketPath, shown }: StatsPlace, body: string): Promise<{ status: number; text: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
  const agent = new Agent(); // not the global one, which may go through a proxy
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  const asking = request(url, { socketPath, method: 'POST', agent, headers }, (response) => {
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (piece: string) => {
      text += piece;
      if (text.length > MAX_ANSWER_BYTES) asking.destroy(new Error('its answer does not end'));
    });
    response.on('error', reject);
    response.on('end', () => resolve({ status: response.statusCode!, text }));
  });
  const late = setTimeout(() => asking.destroy(new Error(`no answer in ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  asking.on('error', reject);
  asking.end(body);
  try {
    return await promise;
  } catch (error) {
    throw new Error(unreachable(shown, error as NodeJS.ErrnoException), { cause: error });
  } finally {
    clearTimeout(late);
    agent.destroy();
  }
}

function unreachable(shown: string, error: NodeJS.ErrnoException): string {
  const why = REASONS[error.code ?? ''] ?? (error.message || error.code);
  return (
    `the stats port at ${shown} cannot be reached: ${why}. Is aiproxy running, and is that its stats address? ` +
    'Its log says it at start ("stats"); give it with --stats.'
  );
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOENT: 'there is no such socket',
  EACCES: 'permission denied',
  ENOTFOUND: 'the host name is unknown',
  ECONNRESET: 'it closed the connection',
  HPE_INVALID_CONSTANT: 'what listens there does not speak HTTP',
};

function noExplanation({ shown }: StatsPlace, status: number, text: string): string {
  const said = messageOf(text);
  if (said !== null && status !== 404) return `the stats port at ${shown} refuses (${status}): ${printable(said)}`;
  return `what listens at ${shown} is no stats port of an aiproxy that explains (it answers ${status}); see --stats`;
}

/** Of an error in our shape; null = it is none. */
function messageOf(text: string): string | null {
  const message = (parse(text) as { error?: { message?: unknown } } | null)?.error?.message;
  return typeof message === 'string' ? message : null;
}

function readExplanation(text: string): Explanation | null {
  const answer = parse(text) as Partial<Explanation> | null;
  const isOne = typeof answer?.verdict === 'string' && Array.isArray(answer.parts) && Array.isArray(answer.stored);
  return isOne ? (answer as Explanation) : null;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// ---- the answer in words

const VERDICTS: Readonly<Record<string, string>> = {
  hit: 'HIT: it would be answered from the cache',
  stale: 'STALE: it would be answered from the cache',
  miss: 'MISS: no stored answer would be used',
  bypass: 'BYPASS: the cache would have no part in it',
};

function describe(answer: Explanation, now: number): string {
  const { verdict, because, upstream, method, path, policy, key, parts, stored } = answer;
  const facts = [
    ['request', `${method} ${path}`],
    ['upstream', upstream],
    ['policy', policy ?? 'none'],
    ['key', key ?? 'none'],
  ];
  const said = [`${VERDICTS[verdict] ?? verdict}; ${because}.`, '', ...table(facts)];
  if (parts.length > 0) said.push('', 'The key is made of', ...indented(table(parts.map(partRow))));
  if (stored.length > 0)
    said.push('', 'Stored under this key', ...indented(table(stored.map((it) => variant(it, now)))));
  else if (key !== null) said.push('', 'Nothing is stored under this key.');
  return `${said.map(printable).join('\n')}\n`;
}

function partRow({ part, value }: Explanation['parts'][number]): string[] {
  if (typeof value === 'string') return [part, value === '' ? '(empty)' : value];
  if (value.form === 'none') return [part, 'none'];
  return [
    part,
    `${value.form === 'canonical' ? 'as JSON' : 'byte by byte'}, ${value.bytes} bytes, SHA-256 ${value.sha256}…`,
  ];
}

function variant(it: Explanation['stored'][number], now: number): string[] {
  const leftS = Math.round((Date.parse(it.fresh_until) - now) / 1000);
  const fresh = leftS >= 0 ? `fresh for ${seconds(leftS)}` : `stale since ${seconds(-leftS)}`;
  const vary = it.vary.length > 0 ? `varies by ${it.vary.join(', ')}` : 'for every request';
  const mine = it.selected ? `this request's: ${it.judgement.replaceAll('_', ' ')}` : "another request's";
  return [it.where, String(it.status), `${it.bytes} bytes`, `age ${seconds(it.age_s)}`, fresh, vary, mine];
}

function seconds(s: number): string {
  if (s < 600) return `${s} s`;
  if (s < 36_000) return `${Math.floor(s / 60)} min`;
  return s < 172_800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86_400)} d`;
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}

/** Names and values come from elsewhere: no control character reaches the terminal. */
function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, '?');
}
