// Listeners of every kind: what the config says of one, and what a client needs to come in by it.

import { mkdtempSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import type { Address, ListenConfig, ListenTlsConfig } from '../../src/config/schema.ts';
import { makeAuthority, makeCertificate } from '../../src/demo/certificate.ts';
import type { TestProxy } from './proxy.ts';
import type { RawClient } from './raw-client.ts';
import type { Rig } from './rig.ts';

export const authority = makeAuthority('test authority');
const certificate = makeCertificate({ names: ['localhost', '127.0.0.1'], issuer: authority });

export const serverTls: ListenTlsConfig = { cert: certificate.cert, key: certificate.key, clientCa: null };
/** What a client needs for it. */
export const clientTls: ConnectionOptions = { ca: authority.cert };

export const anyPort: Address = { host: '127.0.0.1', port: 0, path: '', text: '127.0.0.1:0' };

/** A path in a directory of its own, which must be empty again when the test is over. */
export function socketPath(rig: Rig): string {
  const directory = mkdtempSync(join(tmpdir(), 'aiproxy-'));
  rig.closes({ close: () => rmdir(directory) });
  return join(directory, 'x.sock');
}

export function unixAddress(path: string): Address {
  return { host: '', port: 0, path, text: `unix:${path}` };
}

export function listenOn(address: Address, rest: Partial<ListenConfig> = {}): ListenConfig {
  return { address, tls: null, authorize: [], upstream: null, ...rest };
}

export type Kind = 'TCP' | 'TLS' | 'a unix socket' | 'TLS on a unix socket';
export const KINDS: readonly Kind[] = ['TCP', 'TLS', 'a unix socket', 'TLS on a unix socket'];

/** The listener of that kind, as the second of a config. */
export function doorOf(kind: Kind, rig: Rig, rest: Partial<ListenConfig> = {}): ListenConfig {
  const address = kind.includes('unix') ? unixAddress(socketPath(rig)) : anyPort;
  return listenOn(address, { tls: kind.includes('TLS') ? serverTls : null, ...rest });
}

/** A client that comes in by that listener. */
export function enter(rig: Rig, proxy: TestProxy, kind: Kind): Promise<RawClient> {
  return rig.clientAt(proxy.listen[1]!, kind.includes('TLS') ? clientTls : undefined);
}
