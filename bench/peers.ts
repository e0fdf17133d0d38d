// The proxies that are compared: how each is started.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { benchFile, freePort, PROXY_CORE, Process, runs } from './processes.ts';

export interface Ports {
  readonly listen: number;
  readonly upstream: number;
  readonly stats: number;
}

export interface Peer {
  readonly name: string;
  /** Why it cannot run here, or null. */
  missing(): string | null;
  /** `directory` is a scratch place of its own; `nodeFlags` go to Node before the script. */
  command(ports: Ports, directory: string, nodeFlags: readonly string[]): string[];
}

const AIPROXY = benchFile('../bin/aiproxy.js');
/** Without it bin/aiproxy.js would execute itself again, without our other flags. */
const AIPROXY_FLAGS = ['--max-semi-space-size=4'];

export const PEERS: readonly Peer[] = [
  {
    name: 'aiproxy',
    missing: () => (existsSync(AIPROXY) ? null : 'bin/aiproxy.js is not there'),
    command: (ports, directory, nodeFlags) => {
      const config = filled('aiproxy.yaml', ports, directory);
      return [process.execPath, ...AIPROXY_FLAGS, ...nodeFlags, AIPROXY, '--config', config];
    },
  },
  {
    name: 'nginx',
    missing: () => (runs('nginx', '-v') ? null : 'not installed'),
    command: (ports, directory) => ['nginx', '-p', directory, '-c', filled('nginx.conf', ports, directory)],
  },
  {
    name: 'haproxy',
    missing: () => (runs('haproxy', '-v') ? null : 'not installed'),
    command: (ports, directory) => ['haproxy', '-db', '-q', '-f', filled('haproxy.cfg', ports, directory)],
  },
  nodePeer('bare-relay', 'undici'),
  nodePeer('http-proxy-3', 'http-proxy-3'),
  nodePeer('fast-proxy', 'fast-proxy'),
  nodePeer('fastify', '@fastify/http-proxy'),
];

function nodePeer(name: string, packageName: string): Peer {
  return {
    name,
    missing: () => (existsSync(benchFile(`../node_modules/${packageName}`)) ? null : 'not installed'),
    command: (ports, _directory, nodeFlags) => [
      process.execPath,
      ...nodeFlags,
      benchFile(`peers/${name}.ts`),
      String(ports.listen),
      String(ports.upstream),
    ],
  };
}

/** A peer that runs. */
export interface RunningPeer {
  readonly name: string;
  readonly port: number;
  readonly process: Process;
}

/** Throws with a word why it does not run. */
export async function startPeer(
  peer: Peer,
  upstream: number,
  directory: string,
  nodeFlags: readonly string[] = [],
): Promise<RunningPeer> {
  const missing = peer.missing();
  if (missing) throw new Error(missing);
  const ports = { listen: await freePort(), upstream, stats: await freePort() };
  const process = new Process(peer.command(ports, directory, nodeFlags), PROXY_CORE);
  try {
    await process.listening(ports.listen);
  } catch (error) {
    await process.stop();
    throw error;
  }
  return { name: peer.name, port: ports.listen, process };
}

/** Fills in a template of bench/peers/ and returns where it was written. */
function filled(template: string, ports: Ports, directory: string): string {
  const text = readFileSync(benchFile(`peers/${template}`), 'utf8')
    .replaceAll('@LISTEN@', String(ports.listen))
    .replaceAll('@UPSTREAM@', String(ports.upstream))
    .replaceAll('@STATS@', String(ports.stats))
    .replaceAll('@DIR@', directory);
  const path = join(directory, template);
  writeFileSync(path, text);
  return path;
}
