// What an upstream can do wrong, each as one small script: it goes wrong once and is well from then on.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Worker } from 'node:worker_threads';
import type { TimeoutsConfig, TlsConfig } from '../../src/config/schema.ts';
import { makeAuthority, makeCertificate } from '../../src/demo/certificate.ts';
import type { TestProxy } from './proxy.ts';
import type { RawClient } from './raw-client.ts';
import type { Rig } from './rig.ts';
import { until } from './until.ts';
import {
  answer,
  chunk,
  chunkedHead,
  LAST_CHUNK,
  type RawUpstream,
  type Script,
  type UpstreamConnection,
  type UpstreamRequest,
} from './upstream.ts';

/** Two plain calls with answers of declared length, and a POST whose answer is a chunked event stream. */
export type Kind = 'GET' | 'POST' | 'SSE';

/** One fault and all it concerns. */
export class Scene {
  readonly rig: Rig;
  readonly kind: Kind;
  /** Set once there is one: a fault may wait for what they have seen. */
  proxy!: TestProxy;
  client!: RawClient;
  /** The next request meets the fault. */
  faulty = false;
  /** Over when the fault has done all it does. */
  course: Promise<unknown> = Promise.resolve();

  constructor(rig: Rig, kind: Kind) {
    this.rig = rig;
    this.kind = kind;
  }

  /** What is cut before the client has read it may be lost on the client's own side. */
  async clientHas(text: string): Promise<void> {
    await until(`the client has ${JSON.stringify(text)}`, () => this.client.text.includes(text));
  }
}

/** An upstream with its fault in place. */
export interface Placed {
  readonly url: string;
  readonly tls?: Partial<TlsConfig>;
  /** Where all requests arrive that are not lost on the way. */
  readonly upstream: RawUpstream;
  /** Ends a fault that does not end by itself. */
  heal?(): Promise<void>;
}

export interface Fault {
  /** The one deadline that it is about; all others are far away. */
  readonly timeouts?: Partial<TimeoutsConfig>;
  /** It befalls a connection that has served a request before. */
  readonly onUsed?: boolean;
  /** The request arrives. */
  readonly arrives: boolean;
  place(scene: Scene): Promise<Placed>;
}

/** The payload of a good answer: tells every request from every other. */
export function wellText(kind: Kind, target: string, body: string): string {
  const text = `${kind} ${target} ${body}`;
  return kind === 'SSE' ? `data: ${text}\n\ndata: [DONE]\n\n` : text;
}

const EVENT_STREAM = 'content-type: text/event-stream\r\n';

async function wellAnswer(kind: Kind, request: UpstreamRequest): Promise<string> {
  const text = wellText(kind, request.target, String(await request.whole()));
  if (kind !== 'SSE') return answer(text);
  const [event = '', done = ''] = text.split(/(?<=\n\n)/);
  return chunkedHead(EVENT_STREAM) + chunk(event) + chunk(done) + LAST_CHUNK;
}

// ---- faults of an upstream that has got the request

type Play = (request: UpstreamRequest, connection: UpstreamConnection, scene: Scene) => unknown;

function scripted(play: Play, rest: Pick<Fault, 'timeouts' | 'onUsed'> = {}): Fault {
  return {
    ...rest,
    arrives: true,
    async place(scene) {
      const script: Script = async (request, connection) => {
        if (!scene.faulty) return connection.send(await wellAnswer(scene.kind, request));
        scene.faulty = false;
        await request.whole();
        scene.course = Promise.resolve(play(request, connection, scene));
        await scene.course;
      };
      const upstream = await scene.rig.upstream(script);
      return { upstream, url: upstream.url };
    },
  };
}

/** The part of an answer that gets through before its end goes wrong. */
export const EVENT = 'data: first\n\n';

function opening(kind: Kind): string {
  if (kind === 'SSE') return chunkedHead(EVENT_STREAM) + chunk(EVENT);
  return `HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n${EVENT}`;
}

/** An answer that the proxy must never take for one: nobody asked for it. */
export const POISON = 'poison';

/** So many of a flood of interim answers may pass. */
export const INTERIM = 16;

async function trickles(request: UpstreamRequest, connection: UpstreamConnection, { kind }: Scene): Promise<void> {
  await connection.trickle(await wellAnswer(kind, request));
}

function stalls(_request: UpstreamRequest, connection: UpstreamConnection, { kind }: Scene): void {
  connection.send(opening(kind));
}

async function resetsInChunk(_request: UpstreamRequest, connection: UpstreamConnection, scene: Scene): Promise<void> {
  connection.send(`${chunkedHead(scene.kind === 'SSE' ? EVENT_STREAM : '')}${chunk(EVENT)}ff\r\nhalf`);
  await scene.clientHas('half');
  connection.resetAndDestroy();
}

async function addsBytes(request: UpstreamRequest, connection: UpstreamConnection, { kind }: Scene): Promise<void> {
  connection.send((await wellAnswer(kind, request)) + answer(POISON));
  await until('the proxy has dropped the connection', () => connection.left);
}

async function addsBytesLater(request: UpstreamRequest, connection: UpstreamConnection, scene: Scene): Promise<void> {
  const whole = await wellAnswer(scene.kind, request);
  connection.send(whole);
  await scene.clientHas(whole.slice(-9));
  connection.send(answer(POISON));
  await until('the proxy has dropped the connection', () => connection.left);
}

/** An event stream of declared length here: a wrong length of a chunk is junk, or a cut. */
function declares(length: number, kind: Kind): string {
  return `HTTP/1.1 200 OK\r\n${kind === 'SSE' ? EVENT_STREAM : ''}content-length: ${length}\r\n\r\n${EVENT}`;
}

async function declaresMore(_request: UpstreamRequest, connection: UpstreamConnection, scene: Scene): Promise<void> {
  connection.send(declares(EVENT.length + 1, scene.kind));
  await scene.clientHas(EVENT);
  connection.end();
}

/** Bytes beyond a length that is too short; the last two are blank lines, which alone would pass for nothing. */
export const UNDECLARED = 4;

async function declaresLess(_request: UpstreamRequest, connection: UpstreamConnection, { kind }: Scene): Promise<void> {
  connection.send(declares(EVENT.length - UNDECLARED, kind));
  await until('the proxy has dropped the connection', () => connection.left);
}

export const RETRY_AFTER = '7';
export const REFUSAL = '{"error":{"message":"not now","type":"the upstream\'s own"}}';

function refuses(status: string): Play {
  const headers = `Retry-After: ${RETRY_AFTER}\r\ncontent-type: application/json\r\n`;
  return (_request, connection) => connection.send(answer(REFUSAL, headers, status));
}

// ---- faults on the way to the upstream

/** A port whose owner decides, connection by connection, where it leads. */
class Door {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  /** @param onConnection gets the socket paused */
  constructor(rig: Rig, onConnection: (door: Door, socket: Socket, index: number) => void) {
    let accepted = 0;
    this.#server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => {
      this.#adopt(socket);
      onConnection(this, socket, accepted++);
    });
    rig.closes(this);
  }

  /** @param port 0 = any that is free */
  async listen(port = 0): Promise<number> {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  lead(socket: Socket, { port }: RawUpstream): void {
    const beyond = connect({ port, host: '127.0.0.1', noDelay: true });
    this.#adopt(beyond);
    socket.pipe(beyond).pipe(socket);
    socket.once('close', () => beyond.destroy());
    beyond.once('close', () => socket.destroy());
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  #adopt(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => this.#sockets.delete(socket));
  }
}

const authority = makeAuthority('the authority that the proxy knows');
const good = makeCertificate({ names: ['127.0.0.1'], issuer: authority });
const bad = makeCertificate({ names: ['127.0.0.1'], issuer: makeAuthority('another authority') });

async function wellUpstream({ rig, kind }: Scene, tls?: typeof good): Promise<RawUpstream> {
  const script: Script = async (request, connection) => connection.send(await wellAnswer(kind, request));
  return await rig.upstream(script, tls ? { tls } : {});
}

/** The first connection goes wrong. */
function onTheWay(goesWrong: (socket: Socket, scene: Scene) => unknown, rest: Pick<Fault, 'timeouts'> = {}): Fault {
  return {
    ...rest,
    arrives: false,
    async place(scene) {
      const upstream = await wellUpstream(scene);
      const door = new Door(scene.rig, (door, socket, index) => {
        if (index > 0) door.lead(socket, upstream);
        else scene.course = Promise.resolve(goesWrong(socket, scene));
      });
      return { upstream, url: `http://127.0.0.1:${await door.listen()}` };
    },
  };
}

/** The same within TLS, before or instead of a handshake. */
function withinTls(
  goesWrong: (socket: Socket, door: Door, wrong: RawUpstream) => unknown,
  rest: Pick<Fault, 'timeouts'> = {},
): Fault {
  return {
    ...rest,
    arrives: false,
    async place(scene) {
      const upstream = await wellUpstream(scene, good);
      const wrong = await scene.rig.upstream(() => {}, { tls: bad });
      const door = new Door(scene.rig, (door, socket, index) => {
        if (index > 0) door.lead(socket, upstream);
        else goesWrong(socket, door, wrong);
      });
      return { upstream, url: `https://127.0.0.1:${await door.listen()}`, tls: { ca: authority.cert } };
    },
  };
}

/** Nothing listens, until it is healed. */
async function placeRefusal(scene: Scene): Promise<Placed> {
  const upstream = await wellUpstream(scene);
  const before = new Door(scene.rig, () => {});
  const port = await before.listen();
  await before.close();
  const door = new Door(scene.rig, (door, socket) => door.lead(socket, upstream));
  return { upstream, url: `http://127.0.0.1:${port}`, heal: async () => void (await door.listen(port)) };
}

/** More than fit a backlog of 1 (Linux: 2). */
const FILLERS = 6;

/**
 * A backlog that is full, so that the kernel drops every further SYN. Node accepts all there are, hence a thread that listens and
 * then stands still.
 */
async function placeBlackHole(scene: Scene): Promise<Placed> {
  const upstream = await wellUpstream(scene);
  const listener = new Worker(
    `const server = require('node:net').createServer();
     server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
       require('node:worker_threads').parentPort.postMessage(server.address().port);
       Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
     });`,
    { eval: true },
  );
  const [port] = (await once(listener, 'message')) as [number];
  const fillers = Array.from({ length: FILLERS }, () => connect({ port, host: '127.0.0.1' }));
  for (const filler of fillers) filler.on('error', () => {});
  const door = new Door(scene.rig, (door, socket) => door.lead(socket, upstream));
  const close = async () => {
    for (const filler of fillers) filler.destroy();
    await listener.terminate();
  };
  scene.rig.closes({ close });
  await until('the backlog is full', () => fillers.filter((filler) => !filler.connecting).length >= 2);
  return {
    upstream,
    url: `http://127.0.0.1:${port}`,
    heal: async () => {
      await close();
      await door.listen(port);
    },
  };
}

/** Short, and the only one in its row. */
const DEADLINE_MS = 300;

async function resetsUnread(socket: Socket, scene: Scene): Promise<void> {
  // From the turn on in which it is in use the request is on its way; here nobody has read it.
  await until('the proxy uses the connection', () => scene.proxy.pool().active === 1);
  socket.resetAndDestroy();
}

export const FAULTS = {
  refused: { arrives: false, place: placeRefusal },
  'SYN black hole': { arrives: false, timeouts: { connectMs: DEADLINE_MS }, place: placeBlackHole },
  'TLS failure: a certificate of nobody we know': withinTls((socket, door, wrong) => door.lead(socket, wrong)),
  'TLS failure: no TLS at all': withinTls((socket) => socket.write('220 smtp.test ESMTP\r\n')),
  'TLS failure: a handshake without an answer': withinTls(() => {}, { timeouts: { connectMs: DEADLINE_MS } }),
  'reset before the request was read': onTheWay(resetsUnread),
  'reset after the request': scripted((_request, connection) => connection.resetAndDestroy()),
  'reset after the request, on a used connection': scripted((_request, connection) => connection.resetAndDestroy(), {
    onUsed: true,
  }),
  'close before the head': scripted((_request, connection) => connection.end()),
  'close before the head, on a used connection': scripted((_request, connection) => connection.end(), { onUsed: true }),
  'cut head': scripted((_request, connection) => connection.send('HTTP/1.1 200 OK\r\ncontent-le').end()),
  'cut head, on a used connection': scripted(
    (_request, connection) => connection.send('HTTP/1.1 200 OK\r\ncontent-le').end(),
    { onUsed: true },
  ),
  junk: scripted((_request, connection) => connection.send('HELLO WORLD\r\n\r\n')),
  'head and body one byte at a time': scripted(trickles),
  'stall in the body': scripted(stalls, { timeouts: { idleMs: DEADLINE_MS } }),
  'reset in a chunk': scripted(resetsInChunk),
  'extra bytes with the end of the body': scripted(addsBytes),
  'extra bytes after the body': scripted(addsBytesLater),
  'wrong Content-Length: too long': scripted(declaresMore),
  'wrong Content-Length: too short': scripted(declaresLess),
  'flood of 1xx': scripted((_request, connection) => connection.send('HTTP/1.1 102 Processing\r\n\r\n'.repeat(500))),
  '429 with Retry-After': scripted(refuses('429 Too Many Requests')),
  '503': scripted(refuses('503 Service Unavailable')),
  hang: scripted(() => {}, { timeouts: { headersMs: DEADLINE_MS } }),
} as const satisfies Record<string, Fault>;

export type FaultName = keyof typeof FAULTS;
