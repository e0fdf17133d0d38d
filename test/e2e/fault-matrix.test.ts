// The fault matrix: whatever an upstream or a client does wrong, the client is told the truth, everything comes back, and the next request is well.

import t, { type Test } from 'tap';
import type { FailureCode } from '../../src/errors.ts';
import {
  EVENT,
  FAULTS,
  type Fault,
  type FaultName,
  INTERIM,
  type Kind,
  POISON,
  REFUSAL,
  RETRY_AFTER,
  Scene,
  UNDECLARED,
  wellText,
} from '../support/faults.ts';
import type { ConfigOverrides, TestProxy, UpstreamOverrides } from '../support/proxy.ts';
import { RawAnswer, type RawClient } from '../support/raw-client.ts';
import { type Ask, e2e, type Rig, requestText } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { chunkedHead, type RawUpstream, type Script } from '../support/upstream.ts';

/** What an exchange tells the breaker of its upstream. */
type Verdict = 'failure' | 'neutral' | 'success';

interface Judged {
  readonly failures: number;
  readonly successes: number;
}

function judged(proxy: TestProxy): Judged {
  return proxy.upstream().targets[0]!;
}

/** What the exchanges of the upstream `ai` have told its breaker since then. */
function verdictSince({ failures, successes }: Judged, proxy: TestProxy): Verdict {
  const now = judged(proxy);
  t.ok(now.failures + now.successes <= failures + successes + 1, 'one verdict at most');
  if (now.failures > failures) return 'failure';
  return now.successes > successes ? 'success' : 'neutral';
}

// ---- the matrix

interface Outcome {
  readonly status: number;
  readonly failure: FailureCode | null;
  /** Payload that reaches the client; null = an error body of aiproxy's own. */
  readonly body: string | null;
  /** All there are of these in the answer. */
  readonly fields?: Readonly<Record<string, readonly string[]>>;
  readonly attempts?: number;
  /** Connections that could not be opened. */
  readonly unopened?: number;
  readonly interim?: number;
  /** The upstream's connection is not good for another request. */
  readonly spoilt?: boolean;
}

/** The answer of a well upstream. */
const WELL = '';

/** The upstream's answer as it is. */
function whole(status: number, more: Partial<Outcome> = {}): Outcome {
  return { status, failure: null, body: WELL, ...more };
}

/** What came before the cut, and a reset. */
function cut(failure: FailureCode, body: string): Outcome {
  return { status: 200, failure, body, spoilt: true };
}

/** An answer made by aiproxy. */
function ours(failure: keyof typeof OURS, more: Partial<Outcome> = {}): Outcome {
  const { status, mayHaveRun } = OURS[failure];
  return {
    status,
    failure,
    body: null,
    fields: { 'x-should-retry': mayHaveRun ? ['false'] : [], 'retry-after': [] },
    spoilt: true,
    ...more,
  };
}

const OURS = {
  connect_failed: { status: 502, mayHaveRun: false },
  connect_timeout: { status: 504, mayHaveRun: false },
  tls_failed: { status: 502, mayHaveRun: false },
  upstream_reset: { status: 502, mayHaveRun: true },
  upstream_protocol_error: { status: 502, mayHaveRun: true },
  headers_timeout: { status: 504, mayHaveRun: true },
} as const satisfies Partial<Record<FailureCode, unknown>>;

/** Sent again on a fresh connection: the used one may have been closed before it could read. */
const GET_AGAIN: Record<Kind, Cell> = {
  GET: ['success', whole(200, { attempts: 2 })],
  POST: ['failure', ours('upstream_reset')],
  SSE: ['failure', ours('upstream_reset')],
};
const REFUSED: Partial<Outcome> = { body: REFUSAL, fields: { 'retry-after': [RETRY_AFTER], 'x-should-retry': [] } };

type Cell = readonly [breaker: Verdict, outcome: Outcome];

const MATRIX: Record<FaultName, Cell | Record<Kind, Cell>> = {
  refused: ['failure', ours('connect_failed', { attempts: 2, unopened: 2 })],
  'SYN black hole': ['failure', ours('connect_timeout', { unopened: 1 })],
  'TLS failure: a certificate of nobody we know': ['failure', ours('tls_failed', { unopened: 1 })],
  'TLS failure: no TLS at all': ['failure', ours('tls_failed', { unopened: 1 })],
  'TLS failure: a handshake without an answer': ['failure', ours('connect_timeout', { unopened: 1 })],
  'reset before the request was read': ['failure', ours('upstream_reset')],
  'reset after the request': ['failure', ours('upstream_reset')],
  'reset after the request, on a used connection': GET_AGAIN,
  'close before the head': ['failure', ours('upstream_reset')],
  'close before the head, on a used connection': GET_AGAIN,
  'cut head': ['failure', ours('upstream_reset')],
  'cut head, on a used connection': ['failure', ours('upstream_reset')],
  junk: ['failure', ours('upstream_protocol_error')],
  'head and body one byte at a time': ['success', whole(200)],
  'stall in the body': ['failure', cut('idle_timeout', EVENT)],
  'reset in a chunk': ['failure', cut('upstream_cut', `${EVENT}half`)],
  'extra bytes with the end of the body': ['success', whole(200, { spoilt: true })],
  'extra bytes after the body': ['success', whole(200, { spoilt: true })],
  'wrong Content-Length: too long': ['failure', cut('upstream_cut', EVENT)],
  'wrong Content-Length: too short': ['success', whole(200, { body: EVENT.slice(0, -UNDECLARED), spoilt: true })],
  'flood of 1xx': ['failure', ours('upstream_protocol_error', { interim: INTERIM })],
  '429 with Retry-After': ['neutral', whole(429, REFUSED)],
  '503': ['failure', whole(503, REFUSED)],
  hang: ['failure', ours('headers_timeout')],
};

for (const [name, row] of Object.entries(MATRIX) as [FaultName, (typeof MATRIX)[FaultName]][]) {
  for (const kind of ['GET', 'POST', 'SSE'] as const) {
    const [verdict, outcome] = 'GET' in row ? row[kind] : row;
    e2e(`${name} × ${kind}: ${tell(outcome)}, and the next request is well`, async (t, rig) => {
      await runCell(t, new Scene(rig, kind), FAULTS[name], outcome, verdict);
    });
  }
}

function tell({ status, failure, attempts = 1 }: Outcome): string {
  return `${status}${failure ? ` ${failure}` : ''}${attempts > 1 ? ` after ${attempts} attempts` : ''}`;
}

/** A permit or a connection that does not come back would make the next request wait. */
async function tightProxy(rig: Rig, upstream: UpstreamOverrides, rest: Partial<ConfigOverrides> = {}) {
  return await rig.one(
    { limiter: 'gate', pool: { connections: 1 }, ...upstream },
    { ...rest, limiters: { gate: { maxConcurrent: 1, ...rest.limiters?.gate } } },
  );
}

async function runCell(t: Test, scene: Scene, fault: Fault, outcome: Outcome, verdict: Verdict): Promise<void> {
  const { rig, kind } = scene;
  const { upstream, heal, ...where } = await fault.place(scene);
  const proxy = await tightProxy(rig, { ...where, timeouts: fault.timeouts ?? {} });
  const client = await rig.client(proxy);
  scene.proxy = proxy;
  scene.client = client;
  if (fault.onUsed) await checkWell(t, proxy, client, kind, '/before');

  const first = proxy.exchanges.length;
  const judgedBefore = judged(proxy);
  const before = upstream.requests.length;
  scene.faulty = true;
  client.send(askFor(kind, '/fault'));
  const { got, interim } = await read(client);
  checkAnswer(t, got, kind, outcome);
  t.equal(interim, outcome.interim ?? 0, 'interim answers');
  t.equal(proxy.limiter('gate').in_flight, 0, 'its permit is back at once');
  await proxy.idle(1000);

  const { status, failure, attempts = 1, unopened = 0 } = outcome;
  t.equal(proxy.exchanges.length, first + 1, 'one access line');
  const line = { upstream: 'ai', method: methodOf(kind), path: '/fault', status, failure, attempts };
  t.match(proxy.exchanges[first], line);
  t.equal(proxy.exchanges[first]!.bytes_in, bodyOf(kind, '/fault').length, 'bytes of the request');
  t.equal(proxy.exchanges[first]!.bytes_out, got.body.length, 'bytes of the answer');
  const arrived = before + (fault.arrives ? attempts : 0);
  t.equal(upstream.requests.length, arrived, 'what the upstream was sent');
  checkCounters(t, proxy, outcome, first);
  t.equal(proxy.pool().connect_failed, unopened, 'connections that could not be opened');
  t.equal(verdictSince(judgedBefore, proxy), verdict, 'what the breaker was told');

  await scene.course;
  await heal?.();
  const last = upstream.requests.at(-1)?.connection;
  const isReset = got.ending !== 'clean';
  t.equal(client.state, isReset ? 'reset' : 'open', "the client's connection");
  await checkWell(t, proxy, isReset ? await rig.client(proxy) : client, kind, '/next');
  await proxy.idle(1000);
  t.equal(proxy.exchanges.length, first + 2, 'one access line more');
  t.equal(upstream.requests.length, arrived + 1, 'and one request');
  if (!fault.arrives) return;
  if (outcome.spoilt) await until('the upstream has lost the connection', () => last!.left);
  t.equal(upstream.requests.at(-1)!.connection === last, !outcome.spoilt, 'a good connection is used again, no other');
}

function methodOf(kind: Kind): string {
  return kind === 'GET' ? 'GET' : 'POST';
}

function bodyOf(kind: Kind, path: string): string {
  return kind === 'GET' ? '' : JSON.stringify({ path, stream: kind === 'SSE' });
}

function askFor(kind: Kind, path: string): string {
  const ask: Ask =
    kind === 'GET' ? {} : { method: 'POST', headers: 'content-type: application/json\r\n', body: bodyOf(kind, path) };
  return requestText(`/ai${path}`, ask);
}

/** The next answer, and how many interim ones came before it. */
async function read(client: RawClient): Promise<{ got: RawAnswer; interim: number }> {
  let interim = 0;
  let head = await client.head();
  for (; head.status < 200; head = await client.head()) interim++;
  const { body, ending } = await client.rest();
  return { got: new RawAnswer(head, body, ending), interim };
}

function checkAnswer(t: Test, got: RawAnswer, kind: Kind, outcome: Outcome): void {
  t.equal(got.status, outcome.status);
  t.equal(got.ending, outcome.failure && outcome.body !== null ? 'reset' : 'clean', 'how it ended');
  if (outcome.body === null) {
    t.equal(got.code, outcome.failure, 'the code in header and body');
    t.match(got.get('proxy-status'), /^aiproxy; error=/);
  } else {
    t.equal(got.get('x-aiproxy-error'), undefined, "the upstream's answer is not ours");
    t.equal(
      got.body.toString(),
      outcome.body === WELL ? wellText(kind, '/fault', bodyOf(kind, '/fault')) : outcome.body,
    );
  }
  for (const [name, values] of Object.entries(outcome.fields ?? {})) t.same(got.all(name), values, name);
  t.notMatch(got.body.toString(), POISON);
}

function checkCounters(t: Test, proxy: TestProxy, { status, failure, attempts = 1 }: Outcome, before: number): void {
  const { failures, status: statuses, retries, requests } = proxy.upstream();
  t.same(failures, failure ? { [failure]: 1 } : {}, 'failures by code');
  const expected: Record<string, number> = before > 0 ? { 200: before } : {};
  expected[status] = (expected[status] ?? 0) + 1;
  t.same(statuses, expected, 'answers by status');
  t.equal(retries, attempts - 1, 'retries');
  t.equal(requests, before + 1, 'requests');
}

/** One request to an upstream that is well, and its own answer. */
async function checkWell(t: Test, proxy: TestProxy, client: RawClient, kind: Kind, path: string): Promise<void> {
  client.send(askFor(kind, path));
  const { got, interim } = await read(client);
  t.strictSame(
    { status: got.status, body: got.body.toString(), ending: got.ending, code: got.get('x-aiproxy-error'), interim },
    { status: 200, body: wellText(kind, path, bodyOf(kind, path)), ending: 'clean', code: undefined, interim: 0 },
    `the answer to ${path}`,
  );
  await proxy.idle(1000);
  t.match(proxy.exchanges.at(-1), { path, status: 200, failure: null, attempts: 1 });
}

// ---- what is the client's doing, or ours, is not held against the upstream

/** Who stands around a client's fault. */
class Stand {
  readonly rig: Rig;
  readonly proxy: TestProxy;
  readonly upstream: RawUpstream;

  constructor(rig: Rig, proxy: TestProxy, upstream: RawUpstream) {
    this.rig = rig;
    this.proxy = proxy;
    this.upstream = upstream;
  }

  async ask(path = '/fault'): Promise<RawClient> {
    return (await this.rig.client(this.proxy)).send(askFor('POST', path));
  }

  /** A client that has sent the beginning of a request. */
  async starts(framing: string, body: string | Uint8Array): Promise<RawClient> {
    const client = await this.rig.client(this.proxy);
    return client.send(`POST /ai/fault HTTP/1.1\r\nhost: proxy.test\r\n${framing}\r\n\r\n`).send(body);
  }
}

interface ClientRow {
  readonly breaker: Verdict;
  readonly failure: FailureCode;
  readonly status: number;
  /** Another request has the only permit. */
  readonly queues?: boolean;
  readonly upstream?: Omit<UpstreamOverrides, 'url'>;
  readonly rest?: Partial<ConfigOverrides>;
  /** What the upstream does with the request. */
  readonly script?: Script;
  /** Nobody is left to read an answer, or it has begun and is cut. */
  readonly untold?: boolean;
  /** The connection is closed behind the answer. */
  readonly closes?: boolean;
  /** Still sent when the answer has come; it must not be taken for a request. */
  readonly late?: string;
  /** Requests the upstream has seen of it; default 0. */
  readonly arrives?: number;
  act(stand: Stand): Promise<RawClient>;
}

const hangs: Script = () => {};
const begins: Script = (_request, connection) => connection.send(`${chunkedHead()}5\r\nhello\r\n`);
const floods: Script = (_request, connection) => {
  connection.send('HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n');
  const more = () => {
    while (!connection.socket.destroyed && connection.socket.write(Buffer.alloc(65_536)));
  };
  connection.socket.on('drain', more);
  more();
};

const CHUNKED = 'transfer-encoding: chunked';
const gone = { breaker: 'neutral', failure: 'client_gone', untold: true } as const;

function leaving(how: 'halfClose' | 'reset'): Record<string, ClientRow> {
  const leave = (client: RawClient) => {
    client[how]();
    return client;
  };
  return {
    [`leaves (${how}) while its body is read`]: {
      ...gone,
      status: 499,
      async act(stand) {
        const client = await stand.starts('content-length: 1000', 'half');
        await until('it is read', () => stand.proxy.stats().listener.body_memory_bytes === 4);
        return leave(client);
      },
    },
    [`leaves (${how}) while queued`]: {
      ...gone,
      status: 499,
      queues: true,
      async act(stand) {
        const client = await stand.ask();
        await until('it is queued', () => stand.proxy.limiter('gate').queued === 1);
        return leave(client);
      },
    },
    [`leaves (${how}) before the head`]: {
      ...gone,
      status: 499,
      script: hangs,
      arrives: 1,
      async act(stand) {
        const client = await stand.ask();
        await stand.upstream.request(0);
        return leave(client);
      },
    },
    [`leaves (${how}) within the body`]: {
      ...gone,
      status: 200,
      script: begins,
      arrives: 1,
      async act(stand) {
        const client = await stand.ask();
        await client.head();
        await client.piece();
        return leave(client);
      },
    },
  };
}

const CLIENT_ROWS: Record<string, ClientRow> = {
  ...leaving('halfClose'),
  ...leaving('reset'),
  'takes no byte of the answer': {
    breaker: 'neutral',
    failure: 'client_stalled',
    status: 200,
    untold: true,
    script: floods,
    arrives: 1,
    upstream: { timeouts: { writeStallMs: 300 } },
    async act(stand) {
      const client = await stand.ask();
      client.pause();
      return client;
    },
  },
  'sends a bad chunk': {
    breaker: 'neutral',
    failure: 'bad_request',
    status: 400,
    closes: true,
    act: (stand) => stand.starts(CHUNKED, 'zz\r\n'),
  },
  'sends a bad chunk while the rest is with the upstream': {
    breaker: 'neutral',
    failure: 'bad_request',
    status: 400,
    closes: true,
    script: hangs,
    arrives: 1,
    rest: { listener: { bodyBufferBytes: 1024 } },
    async act(stand) {
      const client = await stand.starts(CHUNKED, `1000\r\n${'x'.repeat(0x1000)}\r\n`);
      const request = await stand.upstream.request(0);
      await until('the first chunk is there', () => request.bodyBytes === 0x1000);
      return client.send('zz\r\n');
    },
  },
  'takes longer than total to send its body': {
    breaker: 'neutral',
    failure: 'total_timeout',
    status: 504,
    late: 'x'.repeat(996),
    upstream: { timeouts: { totalMs: 300 } },
    act: (stand) => stand.starts('content-length: 1000', 'half'),
  },
  'finds the queue full': {
    breaker: 'neutral',
    failure: 'queue_full',
    status: 503,
    queues: true,
    rest: { limiters: { gate: { maxQueue: 0 } } },
    act: (stand) => stand.ask(),
  },
  'waits in the queue for too long': {
    breaker: 'neutral',
    failure: 'queue_timeout',
    status: 503,
    queues: true,
    rest: { limiters: { gate: { queueTimeoutMs: 150 } } },
    act: (stand) => stand.ask(),
  },
  'finds no memory for its body': {
    breaker: 'neutral',
    failure: 'body_memory_full',
    status: 503,
    rest: { listener: { bodyMemoryBytes: 10 } },
    act: (stand) => stand.ask(),
  },
};

for (const [name, row] of Object.entries(CLIENT_ROWS)) {
  e2e(`a client that ${name} is ${row.status} ${row.failure}, and its upstream is not blamed`, async (t, rig) => {
    await runClientRow(t, rig, row);
  });
}

async function runClientRow(t: Test, rig: Rig, row: ClientRow): Promise<void> {
  let isHeld = true;
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.target === '/fault' && row.script) return row.script(request, connection);
    if (request.target === '/hold') await until('it is let go', () => !isHeld);
    connection.send(`HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell`);
  });
  const proxy = await tightProxy(rig, { ...row.upstream, url: upstream.url }, row.rest);
  const stand = new Stand(rig, proxy, upstream);
  const holder = row.queues ? await stand.ask('/hold') : null;
  if (holder) await upstream.request(0);
  const client = await row.act(stand);
  const got = row.untold ? null : await client.answer();
  if (got) {
    t.equal(got.status, row.status);
    t.equal(got.code, row.failure);
  }
  const line = await until('its line', () => proxy.exchanges[0]);
  t.match(line, { path: '/fault', status: row.status, failure: row.failure });
  t.same(proxy.upstream().failures, { [row.failure]: 1 });
  t.equal(upstream.requests.filter(({ target }) => target === '/fault').length, row.arrives ?? 0);
  t.equal(verdictSince({ failures: 0, successes: 0 }, proxy), row.breaker, 'what the breaker was told');

  isHeld = false;
  if (holder) t.equal((await holder.answer()).status, 200, 'who had the permit is not disturbed');
  await proxy.idle(1000);
  if (row.closes) t.equal(await client.ended(), 'fin', 'where the next request would begin nobody knows');
  const next = got && !row.closes ? client.send(row.late ?? '') : await rig.client(proxy);
  next.send(requestText('/ai/next'));
  t.equal((await next.answer()).body.toString(), 'well');
  await proxy.idle(1000);
  t.strictSame(
    proxy.exchanges.map(({ path, failure }) => [path, failure]),
    [['/fault', row.failure], ...(holder ? [['/hold', null]] : []), ['/next', null]],
    'one access line each',
  );
}
