// The part of the form for where clients connect: addresses, TLS and tokens of listeners.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { z } from 'zod';
import { address, filledText, section, token } from './leaves.ts';
import type { SecretMeta } from './secrets.ts';

export const PEM_RULE = 'must be the path of a PEM file, or PEM text given by ${NAME} or ${file:path}';

const tls = section(
  {
    cert: filledText(PEM_RULE).describe(
      'Certificate of the listener: PEM file, relative to the config file. Required.',
    ),
    key: filledText(PEM_RULE).describe(
      'Private key of `cert`: PEM file, relative to the config file, unencrypted. Required.',
    ),
    client_ca: filledText(PEM_RULE)
      .optional()
      .describe('Clients must show a certificate of one of these: PEM file. Default: they need none.'),
  },
  'must be a mapping such as { cert: cert.pem, key: key.pem }, or be left out',
)
  // Read by load.ts: with nothing behind it, it is no listener without TLS.
  .meta({ switched: true });

const tokensRule = 'must be a token, or a list of them';
const tokens = z
  .union([token(), z.array(token()).min(1, 'must have at least one token')], { error: tokensRule })
  .meta({ secret: 'value' } satisfies SecretMeta);

const mapping = section({
  address: address().describe('host:port, or unix:/path.sock. Required.'),
  tls: tls.optional().describe('TLS on this listener. Default: none.'),
  authorize: tokens
    .optional()
    .describe('Token, or list of tokens, one of which a request must have in x-aiproxy-token; secrets. Default: none.'),
});

const RULE =
  'must be host:port such as 127.0.0.1:8080, unix:/path.sock, a mapping such as { address: ":8443" }, or a list of them';

/** An address, a mapping with one, or a list of both. */
export function listen() {
  const one = z.union([address(), mapping], {
    error: RULE.replace(', a mapping', ' or a mapping').replace(', or a list of them', ''),
  });
  return z.union([address(), mapping, z.array(one).min(1, 'must have at least one address')], { error: RULE });
}
