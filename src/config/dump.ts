// The effective config for people, in the key names of the YAML and with templates instead of what they stand for.

import type { Form } from './form.ts';
import { type Path, pathKey } from './path.ts';
import { isPemText } from './pem.ts';
import { shownSecret } from './secrets.ts';
import { secretAt } from './shape.ts';
import type { Tree } from './tree.ts';

/** A plain tree: defaults filled in, no value that came from a variable or a file, no PEM text. */
export function dump(form: Form, templates: Tree['templates']): unknown {
  return shown(form, [], templates);
}

function shown(value: unknown, path: Path, templates: Tree['templates']): unknown {
  const template = templates.get(pathKey(path));
  const secret = secretAt(path);
  if (typeof value === 'string' && secret) return shownSecret(secret, value, template?.text);
  if (template) return template.text;
  if (Array.isArray(value)) return value.map((item, index) => shown(item, [...path, index], templates));
  if (typeof value === 'string') return isPemText(value) ? '[pem]' : value;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, below]) => [key, shown(below, [...path, key], templates)]),
  );
}
