// What may be shown of a secret: the variable it comes from, an address without its password, or nothing.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { withoutPassword } from './redis-url.ts';

/** url: a part of it is secret; value: all of it is. */
export type SecretKind = 'url' | 'value';

/** How the form marks a secret; json-schema.ts writes `writeOnly` for it. */
export type SecretMeta = { readonly secret: SecretKind };

export const HIDDEN = '[secret]';

/** One variable or file without a default, and at most the scheme of an Authorization before it: `Bearer ${KEY}`. */
const FROM_ONE = /^([A-Za-z]{1,16} )?\$\{([A-Za-z_][A-Za-z0-9_]*|file:(?!-)[^}$]+)\}$/;

/** For the dump. `template` is the text in the file where that has a `${`. */
export function shownSecret(kind: SecretKind, value: string, template: string | undefined): string {
  if (kind === 'url') return withoutPassword(template ?? value);
  return template !== undefined && FROM_ONE.test(template) ? template : HIDDEN;
}

/** For a problem: `got` is what would be shown of a value that is no secret. */
export function toldSecret(kind: SecretKind, got: string, template: string | undefined): string {
  if (kind === 'url') {
    if (!got.startsWith('"')) return got;
    return template !== undefined && /^\$\{[^}]*\}$/.test(template) && !got.includes('@') ? got : HIDDEN;
  }
  // A kind of value, as `a list`, tells nothing.
  if (/^(nothing|an? [a-z ]+)$/.test(got)) return got;
  return template !== undefined && FROM_ONE.test(template) ? JSON.stringify(template) : HIDDEN;
}
