// The load generator: a process that runs one closed loop of requests per `open`/`go`, told so by its parent.
import { createHistogram, performance } from 'node:perf_hooks';
import { LoadConnection } from './load-connection.ts';
import { requestBytes, type Work } from './work.ts';

/** What the parent says: open connections; send so many requests, and go on for so many seconds at least; close them. */
export type LoadCommand =
  | { step: 'open'; port: number; work: Work; connections: number }
  | { step: 'go'; requests: number; seconds: number }
  | { step: 'close' };

/** What it gets back. Latencies in µs. */
export type LoadReport =
  | { step: 'opened' }
  | { step: 'closed' }
  | { step: 'failed'; reason: string }
  | { step: 'done'; requests: number; seconds: number; p50: number; p99: number; max: number };

/** No answer at all for this long ends the run. */
const STALL_MS = 10_000;

let connections: LoadConnection[] = [];

process.on('disconnect', () => process.exit(0));
process.on('message', (command: LoadCommand) => {
  perform(command).then(report, (error: Error) => {
    closeAll();
    report({ step: 'failed', reason: error.message });
  });
});

function report(message: LoadReport): void {
  process.send?.(message);
}

function closeAll(): void {
  for (const connection of connections) connection.close();
  connections = [];
}

async function perform(command: LoadCommand): Promise<LoadReport> {
  if (command.step === 'open') {
    closeAll();
    const request = requestBytes(command.port, command.work);
    for (let n = 0; n < command.connections; n++) connections.push(new LoadConnection(command.port, request));
    await Promise.all(connections.map((connection) => connection.opened));
    return { step: 'opened' };
  }
  if (command.step === 'close') {
    closeAll();
    return { step: 'closed' };
  }
  return run(command.requests, command.seconds);
}

/** Every connection sends its next request when the answer to the last is whole, until both aims are reached. */
function run(leastRequests: number, leastSeconds: number): Promise<LoadReport> {
  const latency = createHistogram({ lowest: 1, highest: 60_000_000, figures: 3 });
  const startedAt = performance.now();
  const endsAt = startedAt + leastSeconds * 1000;
  let sent = 0;
  let received = 0;
  let ending = false;
  return new Promise((resolve, reject) => {
    let seen = -1;
    const watch = setInterval(() => {
      if (seen === received) fail(new Error(`stalled after ${received} answers of ${sent} requests`));
      seen = received;
    }, STALL_MS);
    const fail = (error: Error) => {
      clearInterval(watch);
      reject(error);
    };
    const answered = (micros: number, now: number): boolean => {
      latency.record(micros);
      received++;
      ending ||= received >= leastRequests && now >= endsAt;
      if (!ending) sent++;
      else if (received === sent) {
        clearInterval(watch);
        const [p50, p99] = [latency.percentile(50), latency.percentile(99)];
        resolve({ step: 'done', requests: sent, seconds: (now - startedAt) / 1000, p50, p99, max: latency.max });
      }
      return !ending;
    };
    for (const connection of connections) {
      sent++;
      connection.run(answered, fail);
    }
  });
}
