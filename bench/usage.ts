// CPU time and memory of a process and its children, from /proc.
import { readdirSync, readFileSync } from 'node:fs';

export interface Usage {
  /** CPU time so far of all threads, µs. */
  readonly cpuMicros: number;
  /** Time that its threads were ready to run and had to wait for a core, µs; 0 where the kernel does not say. */
  readonly waitedMicros: number;
  readonly rssMb: number;
}

const TICK_MICROS = 10_000;

/** Linux only. Exact to the ns where the kernel keeps schedstat, else to the clock tick of 10 ms. */
export function usageOf(pid: number): Usage {
  let cpuMicros = 0;
  let waitedMicros = 0;
  let rssKb = 0;
  for (const each of familyOf(pid)) {
    for (const thread of readdirSync(`/proc/${each}/task`)) {
      const { ran, waited } = threadMicros(each, thread);
      cpuMicros += ran;
      waitedMicros += waited;
    }
    rssKb += Number(/^VmRSS:\s+(\d+)/m.exec(read(`/proc/${each}/status`))?.[1] ?? 0);
  }
  return { cpuMicros, waitedMicros, rssMb: rssKb / 1024 };
}

/** The process and all below it (nginx works in a child). */
function familyOf(pid: number): number[] {
  const family = [pid];
  for (let n = 0; n < family.length; n++) {
    for (const thread of readdirSync(`/proc/${family[n]}/task`)) {
      for (const child of read(`/proc/${family[n]}/task/${thread}/children`).split(' ')) {
        if (child) family.push(Number(child));
      }
    }
  }
  return family;
}

function threadMicros(pid: number, thread: string): { ran: number; waited: number } {
  const running = read(`/proc/${pid}/task/${thread}/schedstat`);
  if (running) {
    const [ran, waited] = running.split(' ').map((ns) => Number(ns) / 1000);
    return { ran: ran!, waited: waited! };
  }
  // The name in brackets may hold blanks: count from behind it. utime and stime are fields 14 and 15.
  const fields = read(`/proc/${pid}/task/${thread}/stat`).split(') ')[1]?.split(' ') ?? [];
  return { ran: (Number(fields[11]) + Number(fields[12])) * TICK_MICROS, waited: 0 };
}

/** '' for a thread that has ended meanwhile, or a file this kernel lacks. */
function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
