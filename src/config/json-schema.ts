// Exports the config's JSON Schema, with which editors complete keys and underline mistakes.

import { z } from 'zod';
import { form } from './form.ts';

type Json = Record<string, unknown>;

/** Any value may come from a template, so wherever a kind of value is asked for, a template will do. */
const TEMPLATE = { type: 'string', pattern: '\\$\\{' } as const;

/** Draft 7: the newest that yaml-language-server fully knows. */
export function jsonSchema(): Json {
  const schema = z.toJSONSchema(form, { io: 'input', target: 'draft-7' }) as Json;
  const { $schema, ...rest } = schema;
  return { $schema, title: 'aiproxy configuration', ...(adapt(rest) as Json) };
}

function adapt(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(adapt);
  if (typeof node !== 'object' || node === null) return node;
  const { default: preset, secret, switched: _, ...rest } = node as Json;
  const adapted: Json = secret === undefined ? {} : { writeOnly: true };
  for (const [key, value] of Object.entries(rest)) {
    adapted[key] = key === 'propertyNames' || key === 'default' ? value : adapt(value);
  }
  // An empty object as default says nothing: its keys have their own.
  if (preset !== undefined && JSON.stringify(preset) !== '{}') adapted.default = preset;
  return adapted.shorthand === undefined ? withTemplate(adapted) : withShorthand(adapted);
}

function withTemplate(node: Json): Json {
  const { type, pattern, enum: words } = node;
  const scalar = (type === 'integer' || type === 'number' || type === 'boolean') && node.const === undefined;
  if (typeof pattern === 'string') return { ...node, pattern: `${pattern}|${TEMPLATE.pattern}` };
  if (!scalar && words === undefined) return node;
  const { description, default: preset, ...kind } = node;
  return {
    ...(description ? { description } : {}),
    ...(preset === undefined ? {} : { default: preset }),
    anyOf: [kind, TEMPLATE],
  };
}

/** A section that one word can stand for. */
function withShorthand(node: Json): Json {
  const { description, shorthand, ...mapping } = node;
  return { ...(description ? { description } : {}), anyOf: [{ const: shorthand }, TEMPLATE, mapping] };
}
