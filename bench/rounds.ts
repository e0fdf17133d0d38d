// Interleaved rounds: every proxy gets the same work for about the same time per round, in an order that moves on by one each round.
import type { RunningPeer } from './peers.ts';
import type { LoadGenerator } from './processes.ts';
import { sleep } from './processes.ts';
import { usageOf } from './usage.ts';

export const CONNECTIONS = 50;
/** V8 has compiled the hot path by then; after 10 000 a relay still cost a third more. */
const WARM_UP_REQUESTS = 30_000;
/** A quick proxy goes on until then: on a shared machine, 0.2 s of nginx differ from the next by a third. */
const LEAST_SECONDS = 1;

/** One proxy in one round. */
export interface Sample {
  readonly perSecond: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
  /** CPU time of the proxy's process per request, µs. */
  readonly cpuMicros: number;
  readonly rssMb: number;
}

export type Samples = Map<string, Sample[]>;

/** The first is not counted: it warms each proxy (V8 compiles, pools open). `tell` hears what runs now. */
export async function runRounds(
  load: LoadGenerator,
  peers: readonly RunningPeer[],
  rounds: number,
  requests: number,
  tell: (line: string) => void,
): Promise<Samples> {
  const samples: Samples = new Map(peers.map((peer) => [peer.name, []]));
  for (const peer of peers) {
    tell(`warming up ${peer.name}`);
    await measure(load, peer, Math.max(requests, WARM_UP_REQUESTS));
  }
  for (let round = 0; round < rounds; round++) {
    for (let n = 0; n < peers.length; n++) {
      const peer = peers[(n + round) % peers.length]!;
      tell(`round ${round + 1} of ${rounds}: ${peer.name}`);
      samples.get(peer.name)!.push(await measure(load, peer, requests));
    }
  }
  return samples;
}

/** Sends `requests` or more through one proxy. Connections are opened before the clocks start and closed after they stop. */
export async function measure(
  load: LoadGenerator,
  peer: RunningPeer,
  requests: number,
  seconds = LEAST_SECONDS,
): Promise<Sample> {
  await load.ask({ step: 'open', port: peer.port, work: peer.work, connections: CONNECTIONS });
  const before = usageOf(peer.process.pid);
  const result = await load.ask({ step: 'go', requests, seconds });
  const after = usageOf(peer.process.pid);
  await load.ask({ step: 'close' });
  // So that the closing of these connections is not charged to the next proxy on the same core.
  await sleep(50);
  if (result.step !== 'done') throw new Error(`the load generator answered ${result.step}`);
  return {
    perSecond: result.requests / result.seconds,
    p50Micros: result.p50,
    p99Micros: result.p99,
    cpuMicros: (after.cpuMicros - before.cpuMicros) / result.requests,
    rssMb: after.rssMb,
  };
}
