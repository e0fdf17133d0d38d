// The reader of the stream bench: a process that opens streams as its parent says, and knows how late each event came.
import { connect, type Socket } from 'node:net';
import { createHistogram } from 'node:perf_hooks';
import { eachEvent, microsNow } from './event-stream.ts';
import { sleep } from './processes.ts';

export type StreamCommand =
  | { step: 'open'; port: number; streams: number }
  | { step: 'measure'; seconds: number }
  | { step: 'close' };

/** Delays in µs. `alive` streams had an event. */
export interface StreamReport {
  readonly events: number;
  readonly alive: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

const REQUEST =
  'GET /openai/v1/chat/completions HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\nauthorization: Bearer sk-bench\r\n\r\n';
const AT_ONCE = 50;
const READY_TIMEOUT_MS = 20_000;
/** Reads are one after the other, and nothing of one is kept: they can share a buffer. */
const buffer = Buffer.allocUnsafe(64 * 1024);

const delay = createHistogram({ lowest: 1, highest: 60_000_000, figures: 3 });
let streams: Stream[] = [];

class Stream {
  events = 0;
  readonly #socket: Socket;

  constructor(port: number) {
    const seen = (sent: number) => {
      this.events++;
      delay.record(Math.max(1, Math.round(microsNow() - sent)));
    };
    this.#socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer,
        callback: (length) => {
          eachEvent(buffer.subarray(0, length), seen);
          return true;
        },
      },
    });
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.write(REQUEST);
  }

  close(): void {
    this.#socket.destroy();
  }
}

process.on('disconnect', () => process.exit(0));
process.on('message', (command: StreamCommand) => {
  void perform(command).then((report) => process.send?.(report));
});

async function perform(command: StreamCommand): Promise<StreamReport> {
  if (command.step === 'open') await open(command.port, command.streams);
  else if (command.step === 'measure') {
    for (const stream of streams) stream.events = 0;
    delay.reset();
    await sleep(command.seconds * 1000);
  } else {
    for (const stream of streams) stream.close();
    streams = [];
  }
  const [p50, p99] = [delay.percentile(50), delay.percentile(99)];
  const alive = streams.filter(({ events }) => events > 0).length;
  return { events: delay.count, alive, p50, p99, max: delay.max };
}

/** Returns when each has had an event, or after a while. */
async function open(port: number, count: number): Promise<void> {
  const giveUpAt = performance.now() + READY_TIMEOUT_MS;
  while (streams.length < count) {
    for (let n = 0; n < AT_ONCE && streams.length < count; n++) streams.push(new Stream(port));
    await sleep(20);
  }
  while (streams.some(({ events }) => events === 0) && performance.now() < giveUpAt) await sleep(20);
}
