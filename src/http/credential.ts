// Whose quota a request uses: the fields that API keys come in.

import { sameName } from '../fields.ts';

/**
 * The credential of a request, '' = none. For telling callers apart within this process; never to be logged or sent.
 * No Cookie: it names a session, and changes (Cloudflare's) where the account stays the same.
 *
 * @param pairs flat raw pairs
 */
export function credentialOf(pairs: readonly string[]): string {
  let credential = '';
  for (let i = 0; i < pairs.length; i += 2) {
    const name = pairs[i]!;
    switch (name.length) {
      case 13:
        if (!sameName(name, 'authorization')) continue;
        break;
      case 9:
        if (!sameName(name, 'x-api-key')) continue;
        break;
      case 7:
        if (!sameName(name, 'api-key')) continue;
        break;
      case 14:
        if (!sameName(name, 'x-goog-api-key')) continue;
        break;
      default:
        continue;
    }
    // With its length, lest two fields make the same text as another two.
    credential += `${name.length}:${pairs[i + 1]!.length}:${pairs[i + 1]!}`;
  }
  return credential;
}
