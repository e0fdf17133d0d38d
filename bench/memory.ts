// The memory mode: a million requests through one proxy, and whether its memory stays flat.
import type { RunningPeer } from './peers.ts';
import type { LoadGenerator } from './processes.ts';
import { measure } from './rounds.ts';

const LIMIT_MB = 130;
const GROWTH_MB = 5;
const STEPS = 10;

/** Prints RSS after each tenth of `requests`. True when the last reading is within the limit and about that of half time. */
export async function runMemory(load: LoadGenerator, peer: RunningPeer, requests: number): Promise<boolean> {
  const readings: number[] = [];
  for (let step = 1; step <= STEPS; step++) {
    const sample = await measure(load, peer, requests / STEPS, 0);
    readings.push(sample.rssMb);
    console.log(
      `${peer.name}  ${String((requests / STEPS) * step).padStart(8)} requests` +
        `  RSS ${sample.rssMb.toFixed(1)} MB  CPU ${sample.cpuMicros.toFixed(1)} us/req`,
    );
  }
  const last = readings.at(-1)!;
  const growth = last - readings[STEPS / 2 - 1]!;
  const small = last <= LIMIT_MB;
  const flat = growth <= GROWTH_MB;
  console.log(`${small ? 'met   ' : 'MISSED'}  RSS at the end <= ${LIMIT_MB} MB: ${last.toFixed(1)}`);
  console.log(`${flat ? 'met   ' : 'MISSED'}  RSS grows <= ${GROWTH_MB} MB over the second half: ${growth.toFixed(1)}`);
  return small && flat;
}
