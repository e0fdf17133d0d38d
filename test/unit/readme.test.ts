// The README's tables are complete: every config key and every failure code has its row.

import { readFileSync } from 'node:fs';
import t from 'tap';
import { jsonSchema } from '../../src/config/json-schema.ts';
import { FAILURES } from '../../src/errors.ts';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

interface Schema {
  readonly properties?: Record<string, Schema>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

/** Dotted paths of all leaves; the names of a map stand as `<name>`, the sections of a list as `[]`. */
function keysOf(schema: Schema, path = ''): string[] {
  const section = schema.anyOf?.find((one) => one.properties);
  if (section) return keysOf(section, path);
  if (schema.items?.properties) return keysOf(schema.items, `${path}[]`);
  if (schema.properties) {
    return Object.entries(schema.properties).flatMap(([key, value]) => keysOf(value, path ? `${path}.${key}` : key));
  }
  if (typeof schema.additionalProperties === 'object') return keysOf(schema.additionalProperties, `${path}.<name>`);
  return [path];
}

t.test('every config key has a row in the README', async (t) => {
  const keys = keysOf(jsonSchema() as Schema);
  t.ok(keys.length > 30, `${keys.length} keys`);
  for (const key of keys) t.ok(readme.includes(`| \`${key}\` |`), key);
});

t.test('every failure code has a row in the README, with its status', async (t) => {
  for (const [code, { status }] of Object.entries(FAILURES)) {
    t.ok(readme.includes(`| \`${code}\` | ${status}`), code);
  }
});

t.test('every dependency has its row in the README', async (t) => {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as Record<
    string,
    Record<string, string>
  >;
  for (const name of [...Object.keys(manifest.dependencies!), ...Object.keys(manifest.devDependencies!)]) {
    t.ok(readme.slice(readme.indexOf('### Dependencies')).includes(name), name);
  }
});
