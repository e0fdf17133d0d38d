// The profile mode: where the proxy's CPU time goes, by function and by area.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
  /** µs of the monotonic clock, the one of process.hrtime. */
  readonly startTime: number;
}

const TOP = 40;
const NODE_AREAS: readonly (readonly [prefix: string, area: string])[] = [
  ['node:_http', 'node:http'],
  ['node:internal/http', 'node:http'],
  ['node:net', 'node:net, streams'],
  ['node:stream', 'node:net, streams'],
  ['node:internal/stream', 'node:net, streams'],
  ['node:internal/streams', 'node:net, streams'],
  ['node:internal/timers', 'node: timers, ticks'],
  ['node:timers', 'node: timers, ticks'],
  ['node:internal/process', 'node: timers, ticks'],
  ['node:internal/async_hooks', 'node: timers, ticks'],
  ['node:buffer', 'node: buffers'],
  ['node:internal/buffer', 'node: buffers'],
];

/** Flags that make Node write a profile into `directory` when it exits. */
export function profileFlags(directory: string): string[] {
  return ['--cpu-prof', `--cpu-prof-dir=${directory}`, '--cpu-prof-interval=250'];
}

/** Lines to print. Counts only what was sampled between the two times (µs of the monotonic clock). */
export function profileReport(directory: string, fromMicros: number, toMicros: number): string {
  const file = readdirSync(directory).find((name) => name.endsWith('.cpuprofile'));
  if (!file) return `no profile was written to ${directory}: did the proxy exit by itself on SIGTERM?`;
  const profile = JSON.parse(readFileSync(join(directory, file), 'utf8')) as CpuProfile;
  const byFunction = new Map<string, number>();
  const byArea = new Map<string, number>();
  let total = 0;
  const self = selfMicros(profile, fromMicros, toMicros);
  for (const { id, callFrame } of profile.nodes) {
    const micros = self.get(id);
    if (!micros || callFrame.functionName === '(idle)') continue;
    total += micros;
    add(byFunction, nameOf(callFrame), micros);
    add(byArea, areaOf(callFrame), micros);
  }
  const lines = [`self time by function, top ${TOP}`, ...shares(byFunction, total).slice(0, TOP)];
  return [...lines, '', 'self time by area', ...shares(byArea, total)].join('\n');
}

/** Self time per node. A sample's delta is the time before it. */
function selfMicros(profile: CpuProfile, fromMicros: number, toMicros: number): Map<number, number> {
  const self = new Map<number, number>();
  let now = profile.startTime;
  for (let n = 0; n < profile.samples.length; n++) {
    const delta = profile.timeDeltas[n]!;
    now += delta;
    if (now >= fromMicros && now <= toMicros)
      self.set(profile.samples[n]!, (self.get(profile.samples[n]!) ?? 0) + delta);
  }
  return self;
}

function add(sums: Map<string, number>, key: string, micros: number): void {
  sums.set(key, (sums.get(key) ?? 0) + micros);
}

function shares(sums: Map<string, number>, total: number): string[] {
  const sorted = [...sums].sort((a, b) => b[1] - a[1]);
  return sorted.map(([key, micros]) => `${((micros / total) * 100).toFixed(1).padStart(5)} %  ${key}`);
}

function nameOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  const name = functionName || '(anonymous)';
  return url ? `${shortened(url)}:${lineNumber + 1} ${name}` : name;
}

/** `src/proxy/attempt.ts`, `undici/lib/dispatcher/client.js`, `node:net`. */
function shortened(url: string): string {
  const inModules = url.lastIndexOf('/node_modules/');
  if (inModules >= 0) return url.slice(inModules + '/node_modules/'.length);
  return /\/((?:src|bin|bench)\/.*)$/.exec(url)?.[1] ?? url;
}

function areaOf({ functionName, url }: CpuProfile['nodes'][number]['callFrame']): string {
  if (functionName === '(garbage collector)') return 'garbage collector';
  if (functionName === '(program)') return 'program (V8, libuv, kernel)';
  if (url.startsWith('wasm:')) return 'undici: llhttp in wasm';
  if (url === '') return 'native functions called from JS';
  const short = shortened(url);
  if (short.startsWith('node:')) return NODE_AREAS.find(([prefix]) => short.startsWith(prefix))?.[1] ?? 'node: other';
  if (short.startsWith('src/')) return short.split('/').slice(0, 2).join('/');
  return short.split('/')[0]!;
}
