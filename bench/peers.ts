// The proxies that are compared: how each is started.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { benchFile, freePort, PROXY_CORE, Process, runs } from './processes.ts';
import type { Work } from './work.ts';

export interface Ports {
  readonly listen: number;
  readonly upstream: number;
  readonly stats: number;
}

export interface Peer {
  readonly name: string;
  readonly work: Work;
  /** Why it cannot run here, or null. */
  missing(): string | null;
  /** `directory` is a scratch place of its own; `nodeFlags` go to Node before the script. */
  command(ports: Ports, directory: string, nodeFlags: readonly string[]): string[];
}

const AIPROXY = benchFile('../bin/aiproxy.js');
/** Without it bin/aiproxy.js would execute itself again, without our other flags. */
const AIPROXY_FLAGS = ['--max-semi-space-size=4'];

export const PEERS: readonly Peer[] = [
  aiproxyPeer('aiproxy', 'forwarded', 'aiproxy.yaml'),
  nginxPeer('nginx', 'forwarded', 'nginx.conf'),
  {
    name: 'haproxy',
    work: 'forwarded',
    missing: () => (runs('haproxy', '-v') ? null : 'not installed'),
    command: (ports, directory) => ['haproxy', '-db', '-q', '-f', filled('haproxy.cfg', ports, directory)],
  },
  nodePeer('bare-relay', 'undici'),
  nodePeer('http-proxy-3', 'http-proxy-3'),
  nodePeer('fast-proxy', 'fast-proxy'),
  nodePeer('fastify', '@fastify/http-proxy'),
  aiproxyPeer('aiproxy-post-hit', 'post-hit', 'aiproxy-cached.yaml'),
  aiproxyPeer('aiproxy-get-hit', 'get-hit', 'aiproxy-cached.yaml'),
  nginxPeer('nginx-post-hit', 'post-hit', 'nginx-cached.conf'),
  nginxPeer('nginx-get-hit', 'get-hit', 'nginx-cached.conf'),
  {
    // No POST: to take the body into the key, Varnish needs a module that its packages do not bring.
    name: 'varnish-get-hit',
    work: 'get-hit',
    missing: () => (runs('varnishd', '-V') ? null : 'not installed'),
    command: (ports, directory) => {
      const place = ['-n', join(directory, 'varnish'), '-a', `127.0.0.1:${ports.listen}`, '-T', 'none'];
      return [
        'varnishd',
        '-F',
        '-j',
        'none',
        ...place,
        '-s',
        'malloc,64m',
        '-f',
        filled('varnish.vcl', ports, directory),
      ];
    },
  },
];

/** Those that event streams go through. */
export const STREAM_PEERS: readonly Peer[] = [
  aiproxyPeer('aiproxy', 'forwarded', 'aiproxy-streams.yaml'),
  nginxPeer('nginx', 'forwarded', 'nginx-streams.conf'),
];

function aiproxyPeer(name: string, work: Work, template: string): Peer {
  return {
    name,
    work,
    missing: () => (existsSync(AIPROXY) ? null : 'bin/aiproxy.js is not there'),
    command: (ports, directory, nodeFlags) => {
      const config = filled(template, ports, directory);
      return [process.execPath, ...AIPROXY_FLAGS, ...nodeFlags, AIPROXY, '--config', config];
    },
  };
}

function nginxPeer(name: string, work: Work, template: string): Peer {
  return {
    name,
    work,
    missing: () => (runs('nginx', '-v') ? null : 'not installed'),
    command: (ports, directory) => ['nginx', '-p', directory, '-c', filled(template, ports, directory)],
  };
}

function nodePeer(name: string, packageName: string): Peer {
  return {
    name,
    work: 'forwarded',
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
  readonly work: Work;
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
  return { name: peer.name, work: peer.work, port: ports.listen, process };
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
