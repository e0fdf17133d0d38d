// Finds the listeners in the tree of the config, in each of the forms they can be written in.

import type { Key } from './path.ts';
import { fields } from './rules.ts';

/** A listener as it is written; what stands in it may be anything. */
export interface WrittenListen {
  /** Of the address: of the item itself, or of the key in its mapping. */
  readonly path: Key[];
  readonly address: unknown;
  /** Of its TLS; null where there can be none. */
  readonly tlsPath: Key[] | null;
}

/** Those of the file, then those of upstreams: the order of Config.listen. */
export function writtenListens(file: unknown): WrittenListen[] {
  const { listen, upstreams } = fields(file);
  const ofUpstreams = Object.entries(fields(upstreams)).flatMap(([name, upstream]) =>
    listensAt(['upstreams', name, 'listen'], fields(upstream).listen),
  );
  return [...listensAt(['listen'], listen), ...ofUpstreams];
}

function listensAt(path: Key[], written: unknown): WrittenListen[] {
  if (Array.isArray(written)) return written.map((one, index) => listenAt([...path, index], one));
  return written === undefined ? [] : [listenAt(path, written)];
}

function listenAt(path: Key[], written: unknown): WrittenListen {
  if (typeof written !== 'object' || written === null) return { path, address: written, tlsPath: null };
  return { path: [...path, 'address'], address: fields(written).address, tlsPath: [...path, 'tls'] };
}
