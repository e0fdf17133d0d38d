// What is allowed and still seldom meant: told at start and by `aiproxy check`, and never in the way.

import { isLocal } from './address.ts';
import type { Config } from './schema.ts';

/** One sentence each; no secret in them. */
export function warningsOf({ listen }: Config): string[] {
  return listen
    .filter(({ address, tls, authorize }) => authorize.length > 0 && tls === null && !isLocal(address))
    .map(
      ({ address }) =>
        `${address.text} asks for a token (authorize) that crosses the network unencrypted: give the listener tls, or a loopback address`,
    );
}
