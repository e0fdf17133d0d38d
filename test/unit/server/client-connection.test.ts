// One client's connection on a socket and a clock that do only what a test says: bounds, deadlines, and what happens when a
// connection ends in the middle of its own bytes.

import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { ListenerConfig } from '../../../src/config/schema.ts';
import type { Client, ClientListener } from '../../../src/proxy/client.ts';
import { ClientConnection, type ListenerSide } from '../../../src/server/client-connection.ts';
import { IdleList } from '../../../src/server/idle-list.ts';
import { FakeClock, fakeWheel } from '../../support/fake-clock.ts';

/** Takes what is written only while `open`; else it waits in the stream's buffer. */
class FakeSocket extends Duplex {
  taken = '';
  open = true;
  /** A FIN was sent. */
  ended = false;
  wasReset = false;
  /** As of a TCP connection. */
  readonly remoteAddress = '127.0.0.1';
  #held: (() => void) | null = null;

  constructor() {
    super({ allowHalfOpen: true, autoDestroy: true, emitClose: true, highWaterMark: 64 * 1024 });
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: unknown, done: () => void): void {
    const take = () => {
      this.taken += chunk.toString('latin1');
      done();
    };
    if (this.open) take();
    else this.#held = take;
  }

  override _final(done: () => void): void {
    this.ended = true;
    done();
  }

  /** The client reads one buffered write. */
  takeOne(): void {
    const held = this.#held;
    this.#held = null;
    held?.();
  }

  /** The client reads on. */
  takeAll(): void {
    this.open = true;
    this.takeOne();
  }

  setNoDelay(): void {}

  resetAndDestroy(): void {
    if (!this.destroyed) this.wasReset = true;
    this.destroy();
  }

  send(text: string): void {
    this.push(Buffer.from(text, 'latin1'));
  }

  get answers(): number {
    return this.taken.split(/HTTP\/1\.1 \d/).length - 1;
  }
}

const CONFIG: ListenerConfig = {
  maxConnections: 100,
  keepAliveTimeoutMs: 75_000,
  headTimeoutMs: 10_000,
  maxHeadBytes: 4096,
  maxHeaders: 50,
  maxPipelined: 16,
  bodyBufferBytes: 1 << 18,
  bodyMemoryBytes: 1 << 26,
  bodyMinRate: 0,
} as ListenerConfig;

/** What an exchange hears, in order. */
class Listening implements ClientListener {
  readonly heard: string[] = [];
  readonly client: Client;
  onData = (_chunk: Buffer): void => {};
  onEnd = (): void => {};

  constructor(client: Client) {
    this.client = client;
    client.listener = this;
  }

  bodyData(chunk: Buffer): void {
    this.heard.push(`data ${chunk.length}`);
    this.onData(chunk);
  }
  bodyEnd(): void {
    this.heard.push('end');
    this.onEnd();
  }
  drained(): void {
    this.heard.push('drained');
  }
  malformed(detail: string): void {
    this.heard.push(`malformed: ${detail}`);
    this.answer(400);
  }
  stopped(): void {
    this.heard.push('stopped');
    this.client.abort();
  }
  gone(): void {
    this.heard.push('gone');
    this.client.listener = null;
  }

  answer(status = 200, body = 'ok'): void {
    this.client.begin(status, '', ['content-length', String(body.length), 'date', 'x']);
    this.client.finish(Buffer.from(body));
    this.client.listener = null;
  }
}

class Bench {
  readonly clock = new FakeClock(1_000_000);
  readonly wheel = fakeWheel(this.clock);
  readonly socket = new FakeSocket();
  readonly requests: string[] = [];
  readonly refused: string[] = [];
  readonly idle = new IdleList();
  closed = 0;
  connection: ClientConnection;
  side: { closing: boolean; answersHealthz: boolean };
  onAccept: (client: Client) => void;

  constructor(
    onAccept: (client: Client) => void = (client) => new Listening(client).answer(),
    config: Partial<ListenerConfig> = {},
  ) {
    this.onAccept = onAccept;
    const side = {
      config: { ...CONFIG, ...config },
      wheel: this.wheel.wheel,
      now: this.clock.now,
      closing: false,
      answersHealthz: true,
      idle: this.idle,
      accept: (client: Client) => {
        this.requests.push(`${client.method} ${client.url}`);
        this.onAccept(client);
      },
      refused: (code: string) => this.refused.push(code),
      closed: () => this.closed++,
    };
    this.side = side;
    const socket = this.socket as unknown as Socket;
    this.connection = new ClientConnection(side as unknown as ListenerSide, socket, socket);
    this.idle.add(this.connection);
  }

  async send(text: string): Promise<void> {
    this.socket.send(text);
    await settle();
  }

  async pass(ms: number): Promise<void> {
    this.clock.pass(ms);
    await settle();
  }
}

/** Streams speak in ticks. */
async function settle(): Promise<void> {
  await turn();
  await turn();
}

function bench(name: string, run: (t: Test) => Promise<Bench>): void {
  void t.test(name, async (t) => {
    const used = await run(t);
    used.socket.destroy();
    await settle();
    t.equal(used.closed, 1, 'the listener heard of the end once');
    t.equal(used.wheel.wheel.size, 0, 'no timer is left');
  });
}

const GET = 'GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n';
const HEALTH = 'GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n';
const post = (fields: string, body = '') => `POST /ai/x HTTP/1.1\r\nhost: a\r\n${fields}\r\n${body}`;
const LAST = 'connection: close\r\n';

bench('a last request that is answered at the very end of its body is the last', async (t) => {
  const b = new Bench((client) => {
    const exchange = new Listening(client);
    exchange.onEnd = () => exchange.answer(503);
    client.readBody();
  });
  await b.send(post(`${LAST}content-length: 5\r\n`, `hello${GET}`));
  await b.send(GET);
  t.same(b.requests, ['POST /ai/x']);
  t.equal(b.socket.answers, 1);
  t.equal(b.socket.ended, true);
  return b;
});

bench('so is one with chunks', async (t) => {
  const b = new Bench((client) => {
    const exchange = new Listening(client);
    exchange.onEnd = () => exchange.answer(503);
    client.readBody();
  });
  await b.send(post(`${LAST}transfer-encoding: chunked\r\n`, `5\r\nhello\r\n0\r\n\r\n${GET}`));
  await b.send(GET);
  t.same(b.requests, ['POST /ai/x']);
  return b;
});

bench('an answer in the middle of the body lets the request behind it through, once', async (t) => {
  const b = new Bench((client) => {
    const exchange = new Listening(client);
    exchange.onData = () => exchange.answer(413);
    if (client.method === 'GET') exchange.answer();
    else client.readBody();
  });
  await b.send(post('content-length: 10\r\n', 'hello'));
  await b.send(`world${GET}${GET}`);
  t.same(b.requests, ['POST /ai/x', 'GET /ai/x', 'GET /ai/x']);
  t.equal(b.socket.answers, 3);
  return b;
});

bench('an exchange that aborts in the middle of its bytes ends all that is behind it in them', async (t) => {
  for (const body of [`1\r\na\r\n${'1\r\nb\r\n'.repeat(3)}0\r\n\r\n`, '1\r\na\r\nzzz']) {
    const b = new Bench((client) => {
      const exchange = new Listening(client);
      exchange.onData = () => client.abort();
      client.readBody();
    });
    await b.send(post('transfer-encoding: chunked\r\n', `${body}${GET}`));
    t.same(b.requests, ['POST /ai/x']);
    t.equal(b.socket.taken, '', 'nothing is said on a reset connection');
    t.equal(b.socket.wasReset, true);
  }
  const b = new Bench((client) => client.abort());
  await b.send(GET + GET);
  t.same(b.requests, ['GET /ai/x']);
  return b;
});

bench('a body past the bound after an early answer: a FIN, and what is in the same bytes is no request', async (t) => {
  const b = new Bench();
  const length = (1 << 20) + 10;
  b.socket.send(post(`content-length: ${length}\r\n`, 'x'.repeat(length) + GET));
  await settle();
  t.same(b.requests, ['POST /ai/x']);
  t.equal(b.socket.answers, 1);
  t.equal(b.socket.ended, true, 'a FIN');
  t.equal(b.socket.destroyed, false, 'and the rest is read: a reset could overtake the answer');
  await b.send(GET);
  await b.pass(5100);
  t.equal(b.socket.destroyed, true, 'for so long');
  t.same(b.requests, ['POST /ai/x']);
  return b;
});

bench('a body up to the bound after an early answer is thrown away, and the connection kept', async (t) => {
  const b = new Bench();
  await b.send(post('content-length: 1048576\r\n', 'x'.repeat(1 << 20) + GET));
  t.same(b.requests, ['POST /ai/x', 'GET /ai/x']);
  t.equal(b.socket.ended, false);
  return b;
});

bench('a body that comes too slowly after an early answer: a FIN, later the end', async (t) => {
  const b = new Bench();
  await b.send(post('content-length: 100\r\n'));
  t.equal(b.socket.answers, 1);
  for (let i = 0; i < 4; i++) {
    await b.pass(1000);
    await b.send('x');
  }
  t.equal(b.socket.ended, false);
  await b.pass(1100);
  t.equal(b.socket.ended, true, 'drips do not extend it');
  t.equal(b.socket.destroyed, false);
  await b.pass(5100);
  t.equal(b.socket.destroyed, true);
  return b;
});

bench('a body that is malformed after its answer: a FIN, the answer stays', async (t) => {
  const b = new Bench();
  await b.send(post('transfer-encoding: chunked\r\n'));
  await b.send(`xyz\r\n${GET}`);
  t.same(b.requests, ['POST /ai/x']);
  t.equal(b.socket.answers, 1);
  t.equal(b.socket.ended, true);
  t.equal(b.socket.destroyed, false);
  t.equal(b.socket.wasReset, false);
  return b;
});

bench(
  'a body that is malformed before its answer is told to the exchange, which answers for the last time',
  async (t) => {
    let exchange: Listening | null = null;
    const b = new Bench((client) => {
      exchange = new Listening(client);
      client.readBody();
    });
    await b.send(post('transfer-encoding: chunked\r\n', `2\r\nabc\r\n${GET}`));
    t.same(exchange!.heard, ['data 2', 'malformed: a chunk is longer than its size']);
    t.same(b.requests, ['POST /ai/x']);
    t.match(b.socket.taken, /^HTTP\/1\.1 400 [\s\S]*connection: close/);
    t.equal(b.socket.ended, true);
    return b;
  },
);

bench('a body that ends exactly with its packet, and the request after it', async (t) => {
  const b = new Bench((client) => {
    const exchange = new Listening(client);
    exchange.onEnd = () => exchange.answer();
    if (client.method === 'GET') exchange.answer();
    else client.readBody();
  });
  for (const pieces of [
    [post('content-length: 5\r\n'), 'hello', GET],
    [post('content-length: 5\r\n', 'hello'), GET],
    [post('transfer-encoding: chunked\r\n'), '5\r\nhello\r\n', '0\r\n\r\n', GET],
    [post('transfer-encoding: chunked\r\n', '5\r\nhello\r\n0\r\n\r'), `\n${GET}`],
    [post('transfer-encoding: chunked\r\n', '0\r\n\r\n'), GET],
  ]) {
    b.requests.length = 0;
    for (const piece of pieces) await b.send(piece);
    t.same(b.requests, ['POST /ai/x', 'GET /ai/x']);
  }
  t.equal(b.socket.answers, 10);
  return b;
});

bench('answers to a client that sends on without reading are bounded', async (t) => {
  const b = new Bench();
  b.socket.open = false;
  await b.send(HEALTH.repeat(2000).slice(0, 60_000));
  t.ok(b.socket.writableLength < 80_000, `${b.socket.writableLength} bytes wait`);
  t.equal(b.socket.destroyed, true, 'more waiting than may be pipelined');
  return b;
});

bench('a client that reads again gets the answers to all it has sent, in order', async (t) => {
  const b = new Bench((client) => new Listening(client).answer(200, client.url + 'x'.repeat(7000)));
  b.socket.open = false;
  for (let i = 0; i < 16; i++) b.socket.send(`GET /ai/${i} HTTP/1.1\r\nhost: a\r\n\r\n`);
  await settle();
  const before = b.requests.length;
  t.ok(before < 16, `${before} were answered at once`);
  t.equal(b.connection.isIdle, false);
  b.socket.takeAll();
  await settle();
  t.equal(b.requests.length, 16);
  t.same(
    [...b.socket.taken.matchAll(/\/ai\/(\d+)x/g)].map((match) => Number(match[1])),
    Array.from({ length: 16 }, (_, i) => i),
  );
  t.equal(b.connection.isIdle, true);
  return b;
});

bench('a last answer that is still being read is not cut short', async (t) => {
  const b = new Bench((client) => {
    const exchange = new Listening(client);
    client.begin(200, '', ['date', 'x']);
    for (let i = 0; i < 4; i++) client.write(Buffer.alloc(30_000, 'x'));
    b.socket.open = false;
    for (let i = 0; i < 6; i++) client.write(Buffer.alloc(30_000, 'y'));
    client.finish(null);
    client.listener = null;
    exchange.heard.push('over');
  });
  await b.send('GET /ai/x HTTP/1.0\r\n\r\n');
  for (let i = 0; i < 5; i++) {
    await b.pass(70_000);
    t.equal(b.socket.destroyed, false, `after ${70 * (i + 1)} s`);
    b.socket.takeOne();
  }
  b.socket.takeAll();
  await settle();
  t.equal(b.socket.taken.length - b.socket.taken.indexOf('\r\n\r\n') - 4, 300_000, 'all of it');
  t.equal(b.socket.ended, true);
  t.equal(b.socket.wasReset, false);
  return b;
});

bench('an answer that nobody takes ends with a reset, never with a FIN', async (t) => {
  const b = new Bench((client) => {
    const exchange = new Listening(client);
    b.socket.open = false;
    exchange.answer(200, 'x'.repeat(100_000));
  });
  await b.send(`GET /ai/x HTTP/1.0\r\n\r\n`);
  await b.pass(5100);
  t.equal(b.socket.destroyed, false);
  await b.pass(75_100);
  t.equal(b.socket.wasReset, true);
  t.equal(b.socket.ended, false);
  return b;
});

bench('a connection that sends nothing ends after the idle time, without a word', async (t) => {
  const b = new Bench();
  await b.pass(74_900);
  t.equal(b.socket.destroyed, false);
  await b.pass(200);
  t.equal(b.socket.destroyed, true);
  t.equal(b.socket.taken, '');
  return b;
});

bench('empty lines do not keep a connection', async (t) => {
  const b = new Bench();
  for (let i = 0; i < 7; i++) {
    await b.send('\r\n\r\n');
    await b.pass(10_000);
  }
  t.equal(b.socket.destroyed, false);
  await b.pass(5100);
  t.equal(b.socket.destroyed, true);
  t.equal(b.refused.length, 0);
  return b;
});

bench('the deadline of a head begins with its first byte, and no drip extends it', async (t) => {
  const b = new Bench();
  await b.pass(60_000);
  for (const c of 'GET /ai/x') {
    await b.send(c);
    await b.pass(1000);
  }
  t.equal(b.socket.taken, '');
  await b.pass(1100);
  t.match(b.socket.taken, /^HTTP\/1\.1 408 [\s\S]*connection: close/);
  t.same(b.refused, ['request_timeout']);
  t.equal(b.socket.ended, true);
  await b.send(`${GET}${GET}`);
  t.equal(b.requests.length, 0, 'the end of the head comes too late');
  await b.pass(5100);
  t.equal(b.socket.destroyed, true);
  return b;
});

bench('the deadline of a head that came behind another request begins when its turn comes', async (t) => {
  let first: Listening | null = null;
  const b = new Bench((client) => {
    first = new Listening(client);
  });
  await b.send(`${GET}GET /ai/sec`);
  await b.pass(60_000);
  first!.answer();
  await settle();
  t.equal(b.connection.isIdle, false);
  await b.pass(9900);
  t.equal(b.socket.answers, 1);
  await b.pass(200);
  t.match(b.socket.taken, / 408 /);
  return b;
});

bench('a head over the bound is refused before it is whole, a head at the bound is not', async (t) => {
  const fields = 'GET /ai/x HTTP/1.1\r\nhost: a\r\n';
  const b = new Bench();
  await b.send(`${fields}x: ${'y'.repeat(4096 - fields.length - 3)}\r\n\r\n`);
  t.equal(b.socket.answers, 1);
  t.same(b.refused, []);
  await b.send(`${fields}x: ${'y'.repeat(4097 - fields.length - 3)}`);
  t.same(b.refused, ['headers_too_large']);
  t.equal(b.socket.ended, true);
  return b;
});

bench('a bare LF is refused at once, and nothing behind it is read', async (t) => {
  const b = new Bench();
  await b.send('GET /ai/x HTTP/1.1\nhost');
  t.same(b.refused, ['bad_request']);
  await b.send(`: a\n\n${GET}`);
  t.equal(b.requests.length, 0);
  t.equal(b.socket.ended, true);
  return b;
});

bench('a refused head is the last thing that is read, also with more behind it in the same bytes', async (t) => {
  for (const head of [
    'GET /ai/x HTTP/1.2\r\n\r\n',
    'GET /ai/x HTTP/1.1\r\n x: y\r\n\r\n',
    'GET /\xe9 HTTP/1.1\r\n\r\n',
    `GET / HTTP/1.1\r\n${'x: y\r\n'.repeat(51)}\r\n`,
  ]) {
    const b = new Bench();
    await b.send(head + GET);
    await b.send(GET);
    t.same([b.requests.length, b.socket.answers, b.socket.ended], [0, 1, true], JSON.stringify(head.slice(0, 40)));
    b.socket.destroy();
  }
  return new Bench();
});

for (const [name, head] of Object.entries({
  'doubtful framing': post('content-length: 5\r\ntransfer-encoding: chunked\r\n'),
  'a CONNECT': 'CONNECT /ai/x HTTP/1.1\r\nhost: a\r\n\r\n',
  'an absolute target': 'GET http://evil/ai/x HTTP/1.1\r\nhost: a\r\n\r\n',
  'a last request': `GET /ai/x HTTP/1.1\r\nhost: a\r\n${LAST}\r\n`,
  'HTTP/1.0': 'GET /ai/x HTTP/1.0\r\n\r\n',
  'an Expect whose body was not asked for': post('expect: 100-continue\r\ncontent-length: 5\r\n'),
})) {
  bench(`after ${name} no request follows, however much comes`, async (t) => {
    let exchange: Listening | null = null;
    const b = new Bench((client) => {
      exchange = new Listening(client);
    });
    await b.send(head + GET.repeat(20));
    if (!head.includes('expect')) {
      await b.send(GET.repeat(10_000).slice(0, 300_000));
      t.equal(b.socket.destroyed, false, 'more than may wait, but nothing waits');
    }
    exchange!.answer();
    await b.send(GET);
    t.equal(b.requests.length, 1);
    t.equal(b.socket.answers, 1);
    t.match(b.socket.taken, /connection: close/);
    t.equal(b.socket.ended, true);
    return b;
  });
}

bench(
  '100 Continue is sent when the body is asked for, and not to HTTP/1.0 nor for a body that has come',
  async (t) => {
    const run = async (text: string) => {
      const b = new Bench((client) => {
        new Listening(client);
        client.readBody();
      });
      await b.send(text);
      const { taken } = b.socket;
      b.socket.destroy();
      return taken;
    };
    t.equal(await run(post('expect: 100-Continue\r\ncontent-length: 5\r\n')), 'HTTP/1.1 100 Continue\r\n\r\n');
    t.equal(await run(post('expect: 100-continue\r\n')), '');
    t.equal(await run('POST /ai/x HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n'), '');
    return new Bench();
  },
);

bench(
  '/healthz with a body is answered, its body thrown away, and with doubtful framing it is a request like others',
  async (t) => {
    const b = new Bench();
    await b.send(
      `GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello${HEALTH}HEAD /healthz HTTP/1.1\r\n\r\n`,
    );
    t.equal(b.socket.answers, 3);
    t.equal(b.requests.length, 0);
    await b.send('GET /healthz HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n');
    t.same(b.requests, ['GET /healthz']);
    return b;
  },
);

bench('a client that leaves is told once, whether it ends or closes', async (t) => {
  let exchange: Listening | null = null;
  const b = new Bench((client) => {
    exchange = new Listening(client);
  });
  await b.send(GET);
  b.socket.push(null);
  await settle();
  t.same(exchange!.heard, ['gone']);
  b.socket.destroy();
  await settle();
  t.same(exchange!.heard, ['gone']);
  return b;
});

bench('room again is told to the exchange that waits for it, and to nobody else', async (t) => {
  let exchange: Listening | null = null;
  const b = new Bench((client) => {
    exchange = new Listening(client);
  });
  await b.send(GET);
  b.socket.open = false;
  exchange!.client.begin(200, '', ['date', 'x']);
  t.equal(exchange!.client.write(Buffer.alloc(10)), true);
  t.equal(exchange!.client.write(Buffer.alloc(100_000)), false);
  t.same(exchange!.heard, []);
  b.socket.takeAll();
  await settle();
  t.same(exchange!.heard, ['drained']);
  t.equal(exchange!.client.write(Buffer.alloc(10)), true);
  b.socket.open = false;
  t.equal(exchange!.client.write(Buffer.alloc(100_000)), false);
  exchange!.client.finish(null);
  exchange!.client.listener = null;
  b.socket.takeAll();
  await settle();
  t.same(exchange!.heard, ['drained'], 'an exchange that is over hears nothing');
  return b;
});

bench('a listener that stops: idle connections go at once, busy ones after their answer', async (t) => {
  let exchange: Listening | null = null;
  const busy = new Bench((client) => {
    exchange = new Listening(client);
  });
  await busy.send(GET + GET);
  busy.side.closing = true;
  busy.connection.stop();
  t.equal(busy.socket.destroyed, false);
  exchange!.answer();
  await settle();
  t.match(busy.socket.taken, /connection: close/);
  t.equal(busy.socket.ended, true);
  t.equal(busy.requests.length, 1, 'what waits behind it is not begun');
  const idle = new Bench();
  idle.connection.stop();
  await settle();
  t.equal(idle.socket.ended, true);
  t.equal(idle.socket.destroyed, true);
  busy.socket.destroy();
  return idle;
});

bench('a listener that stops while an answer is still on its way: the connection goes when it has left', async (t) => {
  const b = new Bench();
  b.socket.open = false;
  await b.send(GET);
  b.connection.stop();
  await settle();
  t.equal(b.socket.ended, false);
  b.socket.takeAll();
  await settle();
  t.equal(b.socket.answers, 1);
  t.equal(b.socket.ended, true);
  b.socket.destroy();
  return b;
});

bench('a connection waits for a request from its start, not while one runs, and again after the answer', async (t) => {
  let exchange: Listening | null = null;
  const b = new Bench((client) => {
    exchange = new Listening(client);
  });
  t.equal(b.connection.waits, true, 'it has never sent a byte');
  await b.send(GET);
  t.equal(b.connection.waits, false);
  t.equal(b.idle.oldest, null);
  exchange!.answer();
  t.equal(b.connection.waits, true);
  await b.send(post('content-length: 5\r\n', 'he'));
  exchange!.answer();
  t.equal(b.connection.waits, true, 'only the rest of a body that nobody wants is still to come');
  await b.send('llo');
  t.equal(b.connection.waits, true);
  await b.send('junk\r\n\r\n');
  t.equal(b.connection.waits, true, 'answered; there is nothing but its FIN to wait for');
  return b;
});

bench('a head that has begun counts as a sign of life, and makes room in its turn', async (t) => {
  const b = new Bench();
  const other = { older: null, newer: null, waits: false, unsent: 0, drop: () => {} };
  b.idle.add(other);
  t.equal(b.idle.oldest, b.connection);
  await b.send('GET / HT');
  t.equal(b.idle.oldest, other);
  await b.send('TP/1.1\r\nx');
  b.idle.remove(other);
  b.idle.add(other);
  await b.send(': y\r\n');
  t.equal(b.idle.oldest, b.connection, 'the bytes behind the first move it no more');
  return b;
});

bench(
  'a connection that is dropped for another ends at once, with a reset if an answer is still on its way',
  async (t) => {
    const quiet = new Bench();
    quiet.connection.drop();
    t.equal(quiet.closed, 1, 'it counts no more, though its socket is not closed yet');
    await settle();
    t.same([quiet.socket.ended, quiet.socket.wasReset, quiet.socket.destroyed], [true, false, true]);
    const slow = new Bench();
    slow.socket.open = false;
    await slow.send(GET);
    slow.connection.drop();
    t.same([slow.socket.ended, slow.socket.wasReset], [false, true]);
    await settle();
    t.same([quiet.wheel.wheel.size, slow.wheel.wheel.size], [0, 0], 'no timer is left');
    return new Bench();
  },
);

bench('/healthz is an upstream’s where every path is', async (t) => {
  const b = new Bench();
  b.side.answersHealthz = false;
  await b.send(GET.replace(/^GET \S+/, 'GET /healthz'));
  t.same(b.requests, ['GET /healthz']);
  return b;
});

bench('a listener that stops while a body is thrown away: the connection goes when it is', async (t) => {
  const b = new Bench();
  await b.send(post('content-length: 10\r\n', 'hello'));
  t.match(b.socket.taken, /keep-alive/);
  b.side.closing = true;
  b.connection.stop();
  t.equal(b.socket.ended, false);
  await b.send(`world${GET}`);
  t.equal(b.socket.ended, true);
  t.equal(b.requests.length, 1);
  return b;
});

const LAST_WORDS = Buffer.from('event: error\n\n');

bench('last words leave behind what was written, and then a FIN where the end of the answer would be', async (t) => {
  const b = new Bench((client) => {
    client.begin(200, '', ['date', 'x']);
    client.write(Buffer.from('one'));
    client.write(Buffer.from('two'));
    client.abort(LAST_WORDS);
  });
  b.socket.open = false;
  await b.send(GET + GET);
  t.equal(b.socket.ended, false);
  b.socket.takeAll();
  await settle();
  t.match(b.socket.taken, /\r\n\r\n3\r\none\r\n3\r\ntwo\r\ne\r\nevent: error\n\n\r\n$/);
  t.equal(b.socket.ended, true);
  t.equal(b.socket.wasReset, false);
  t.same(b.requests, ['GET /ai/x'], 'what is behind it is no request');
  await b.pass(5100);
  t.equal(b.socket.destroyed, true, 'a client that does not close is not waited for');
  return b;
});

bench('last words that nobody takes: a reset in the end', async (t) => {
  const b = new Bench((client) => {
    client.begin(200, '', ['date', 'x']);
    client.abort(LAST_WORDS);
  });
  b.socket.open = false;
  await b.send(GET);
  await b.pass(5100);
  t.equal(b.socket.destroyed, false);
  await b.pass(76_000);
  t.equal(b.socket.wasReset, true);
  return b;
});

bench('one that was cut behind a last word, and is not read, makes room like any other that is answered', async (t) => {
  const b = new Bench((client) => {
    client.begin(200, '', ['content-type', 'text/event-stream']);
  });
  b.idle.remove(b.connection);
  await b.send(GET);
  b.socket.open = false;
  t.equal(b.idle.oldest, null);
  b.connection.abort(Buffer.from('event: error\n\n'));
  t.equal(b.idle.oldest, b.connection);
  b.connection.drop();
  t.equal(b.socket.wasReset, true);
  b.closed = 0; // drop() tells of the end at once, and the close again
  return b;
});
