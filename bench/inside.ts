// Loaded into a proxy by --import: on SIGUSR2 it prints how late the event loop was since the last time, and the memory at its peak.
import { writeSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** What the timer itself waits is no delay. */
const RESOLUTION_MS = 1;
const SAMPLE_MS = 25;
const MB = 1024 * 1024;

/** Of the proxy, as it prints it. */
export interface InsideReading {
  readonly loopP99Ms: number;
  readonly loopMaxMs: number;
  /** RSS at its highest, and what V8 had then: its heap, and the buffers outside of it, used ones and garbage. */
  readonly rssMb: number;
  readonly heapMb: number;
  readonly buffersMb: number;
}

let peak = process.memoryUsage();
const loop = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
loop.enable();
setInterval(() => {
  const now = process.memoryUsage();
  if (now.rss > peak.rss) peak = now;
}, SAMPLE_MS).unref();
process.on('SIGUSR2', () => {
  const reading: InsideReading = {
    loopP99Ms: Math.max(0, loop.percentile(99) / 1e6 - RESOLUTION_MS),
    loopMaxMs: Math.max(0, loop.max / 1e6 - RESOLUTION_MS),
    rssMb: peak.rss / MB,
    heapMb: peak.heapTotal / MB,
    buffersMb: peak.arrayBuffers / MB,
  };
  loop.reset();
  peak = process.memoryUsage();
  writeSync(1, `${JSON.stringify(reading)}\n`);
});
