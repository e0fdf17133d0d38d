// Reads a `host:port` or a `unix:/path` to listen on, and tells when two of them would fight for the same place.

import { isIPv4, isIPv6 } from 'node:net';
import { posix } from 'node:path';
import type { Address } from './schema.ts';
import { SOCKET_PREFIX, socketPathRule } from './socket-address.ts';

const RULE =
  'must be host:port such as 127.0.0.1:8080, [::1]:8080, localhost:8080 or :8080 (all interfaces), or unix:/path.sock';
const HOST_NAME = /^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*$/;

/** The address, or the rule it breaks. An empty host is 0.0.0.0: all IPv4 interfaces. Port 0 lets the system choose. */
export function parseAddress(raw: unknown): Address | string {
  if (typeof raw !== 'string') return RULE;
  if (raw.startsWith(SOCKET_PREFIX)) {
    const path = raw.slice(SOCKET_PREFIX.length);
    return socketPathRule(path) ?? { host: '', port: 0, path, text: raw };
  }
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(raw);
  if (!match) return RULE;
  const [, bracketed, plain, digits] = match;
  const port = Number(digits);
  if (port > 65_535) return 'must have a port from 0 to 65535';
  if (bracketed !== undefined) return isIPv6(bracketed) ? { host: bracketed, port, path: '', text: raw } : RULE;
  const host = plain === '' ? '0.0.0.0' : plain!;
  // 300.1.1.1 and 127.1 are meant as addresses: as names they would fail much later, at start.
  const allowed = isIPv4(host) || (HOST_NAME.test(host) && !/^[0-9.]+$/.test(host));
  return allowed ? { host, port, path: '', text: raw } : RULE;
}

export function isHostName(raw: unknown): raw is string {
  return typeof raw === 'string' && HOST_NAME.test(raw);
}

/** Whether both cannot be listened on at once: the same socket, or the same port on a host that is or includes the other's. */
export function collide(a: Address, b: Address): boolean {
  if (a.path !== '' || b.path !== '') return posix.normalize(a.path) === posix.normalize(b.path);
  if (a.port === 0 || a.port !== b.port) return false;
  const hostA = canonical(a.host);
  const hostB = canonical(b.host);
  return hostA === hostB || covers(hostA, hostB) || covers(hostB, hostA);
}

/** Whether only this machine can reach it. A name but localhost may stand for anything. */
export function isLocal({ host, path }: Address): boolean {
  const known = canonical(host);
  return path !== '' || known === '::1' || (isIPv4(known) && known.startsWith('127.'));
}

/** Node binds `::` to both families, 0.0.0.0 to IPv4 alone. */
function covers(wildcard: string, host: string): boolean {
  return wildcard === '::' || (wildcard === '0.0.0.0' && !isIPv6(host));
}

function canonical(host: string): string {
  const lower = host.toLowerCase();
  if (lower === 'localhost') return '127.0.0.1';
  // URL writes an IPv6 address in its one short form; it knows no zone (`fe80::1%eth0`).
  return isIPv6(lower) && !lower.includes('%') ? new URL(`http://[${lower}]`).hostname.slice(1, -1) : lower;
}
