// Behaviour 4 of DESIGN.md, exactly: what is read from an upstream is written to the client before that turn of the event loop is over.
// The sockets of this process tell: bytes in, and before anything else can happen the same bytes out.

import { Socket } from 'node:net';
import type { TestProxy, UpstreamOverrides } from '../support/proxy.ts';
import type { RawClient } from '../support/raw-client.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { COALESCE, get, RULE, silent, twins } from '../support/twins.ts';
import { chunk, chunkedHead, LAST_CHUNK, type RawUpstream, type UpstreamConnection } from '../support/upstream.ts';

/** Occurs in bodies only. */
const MARK = 0x7e;
const EVENTS = 'content-type: text/event-stream\r\n';

function marksOf(bytes: string | Uint8Array): number {
  let marks = 0;
  for (const byte of Buffer.from(bytes as string, 'latin1')) if (byte === MARK) marks++;
  return marks;
}

/** Follows the marks through the proxy, turn by turn. */
class Turns {
  /** Marks, and pieces of anything, that came from the upstream and went to clients. */
  marksIn = 0;
  marksOut = 0;
  reads = 0;
  writes = 0;
  /** What had not left at the end of its turn. */
  readonly late: string[] = [];
  readonly #stop: () => void;

  /** @param copies clients that get each byte */
  constructor(proxy: TestProxy, upstream: RawUpstream, copies: number) {
    const own = Object.getOwnPropertyDescriptors(Socket.prototype);
    const { push, write } = Socket.prototype;
    const turns = this;
    Socket.prototype.push = function (this: Socket, bytes: Uint8Array | null, ...rest) {
      if (bytes && this.remotePort === upstream.port) turns.#read(bytes, copies);
      return push.call(this, bytes, ...rest);
    };
    Socket.prototype.write = function (this: Socket, ...args: unknown[]) {
      if (this.localPort === proxy.port) {
        turns.writes++;
        turns.marksOut += marksOf(args[0] as Uint8Array);
      }
      return write.apply(this, args as never);
    } as typeof write;
    this.#stop = () => {
      for (const [name, method] of [
        ['push', push],
        ['write', write],
      ] as const) {
        if (name in own) Object.assign(Socket.prototype, { [name]: method });
        else delete (Socket.prototype as unknown as Record<string, unknown>)[name];
      }
    };
  }

  #read(bytes: Uint8Array, copies: number): void {
    this.reads++;
    this.marksIn += marksOf(bytes);
    const { reads, writes, marksIn } = this;
    const isHead = reads === 1;
    // Runs when all that was read in this turn has been seen to, and before any timer or any further read.
    setImmediate(() => {
      if (isHead && this.writes < writes + copies) this.late.push(`the head: ${this.writes - writes} writes`);
      if (this.marksOut < copies * marksIn) this.late.push(`read ${reads}: ${marksIn} in, ${this.marksOut} out`);
    });
  }

  stop(): void {
    this.#stop();
  }
}

const SIZES = [1, 2, 100, 1000, 16_383, 16_384, 16_385, 65_536, 200_000];

const SHAPES: [name: string, head: string, frame: (piece: string) => string, end: string][] = [
  ['chunks', chunkedHead(EVENTS), chunk, LAST_CHUNK],
  [
    'a declared length',
    `HTTP/1.1 200 OK\r\ncontent-length: ${SIZES.reduce((sum, size) => sum + size, 0)}\r\n\r\n`,
    (piece) => piece,
    '',
  ],
];

async function check(
  rig: Rig,
  config: Partial<UpstreamOverrides>,
  copies: number,
  run: (connection: UpstreamConnection, clients: readonly RawClient[]) => Promise<void>,
): Promise<Turns> {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...config });
  const clients = await twins(rig, proxy, copies, get('/ai/x'));
  const { connection } = await upstream.request(0);
  const turns = new Turns(proxy, upstream, copies);
  try {
    await run(connection, clients);
  } finally {
    turns.stop();
  }
  return turns;
}

const CONFIGS: [name: string, config: Partial<UpstreamOverrides>, copies: number][] = [
  ['a plain upstream', {}, 1],
  [
    'every deadline and every watch on',
    { timeouts: { firstEventMs: 5000 }, stream: { heartbeatMs: 5000, minRate: 1 } },
    1,
  ],
  ['an answer that is stored', RULE, 1],
  ['three who share a fetch', COALESCE, 3],
  ['three who share a fetch that is stored', RULE, 3],
];

for (const [name, config, copies] of CONFIGS) {
  for (const [shape, head, frame, end] of SHAPES) {
    e2e(`${name}, ${shape}: the head, and pieces of any size, leave in the turn they come in`, async (t, rig) => {
      const turns = await check(rig, config, copies, async (connection, clients) => {
        connection.send(head);
        for (const client of clients) t.equal((await client.head()).status, 200, 'the head alone');
        for (const size of SIZES) {
          connection.send(frame('~'.repeat(size)));
          await Promise.all(
            clients.map(async (client) => {
              for (let got = 0; got < size; ) got += (await client.piece())!.length;
            }),
          );
        }
        if (end !== '') connection.send(end);
        for (const client of clients) t.equal((await client.rest()).ending, 'clean');
      });
      const total = SIZES.reduce((sum, size) => sum + size, 0);
      t.same([turns.marksIn, turns.marksOut], [total, copies * total], 'all of it was seen');
      t.ok(turns.reads > SIZES.length);
      t.same(turns.late, []);
    });
  }
}
