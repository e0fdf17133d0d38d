// Ready listeners out of the forms they can be written in.

import { parseAddress } from './address.ts';
import type { Form } from './form.ts';
import { ready } from './ready.ts';
import type { ListenConfig } from './schema.ts';

type Written = Form['listen'];

/** Those of the file, then those of upstreams. */
export function resolveListens(form: Form, readFile: (value: string) => string): ListenConfig[] {
  const ofUpstreams = Object.entries(form.upstreams).flatMap(([name, { listen }]) =>
    listen === undefined ? [] : resolveEach(listen, name, readFile),
  );
  return [...resolveEach(form.listen, null, readFile), ...ofUpstreams];
}

function resolveEach(written: Written, upstream: string | null, readFile: (value: string) => string): ListenConfig[] {
  return [written].flat().map((one) => {
    const { address, tls, authorize } = typeof one === 'string' ? { address: one } : one;
    return {
      address: ready(parseAddress(address)),
      tls: tls
        ? {
            cert: readFile(tls.cert),
            key: readFile(tls.key),
            clientCa: tls.client_ca === undefined ? null : readFile(tls.client_ca),
          }
        : null,
      authorize: authorize === undefined ? [] : [authorize].flat(),
      upstream,
    };
  });
}
