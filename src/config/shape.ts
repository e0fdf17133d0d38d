// Finds the part of the form that a path leads to: its keys, and what it says about itself.

import { z } from 'zod';
import { form } from './form.ts';
import type { Key, Path } from './path.ts';
import type { SecretKind } from './secrets.ts';

/** zod's own description of a schema, as far as it is needed to walk through sections. */
interface Definition {
  readonly type?: string;
  readonly shape?: Readonly<Record<string, unknown>>;
  readonly valueType?: unknown;
  readonly element?: unknown;
  readonly innerType?: unknown;
  readonly options?: readonly unknown[];
  readonly in?: unknown;
}

/** The keys of the section at the path; none where there is no section. */
export function keysAt(path: Path): Readonly<Record<string, unknown>> {
  return keysBelow(schemaAt(path));
}

/** The keys of a section, or of the sections in a list. */
export function keysBelow(schema: unknown): Readonly<Record<string, unknown>> {
  const { shape, element } = unwrap(schema);
  return shape ?? (element === undefined ? {} : keysBelow(element));
}

export function isList(schema: unknown): boolean {
  return unwrap(schema).element !== undefined;
}

/** Left out, it means nothing: there is no section of defaults in its place. */
export function isOptional(path: Path): boolean {
  return definitionOf(schemaAt(path)).type === 'optional';
}

/** Left out it is off, and written it is on: nothing but the key itself is neither. */
export function isSwitched(path: Path): boolean {
  return metaAt(path, 'switched') === true;
}

/** Its value is never shown, or not as it is. */
export function secretAt(path: Path): SecretKind | undefined {
  return metaAt(path, 'secret') as SecretKind | undefined;
}

/** Wherever the form has a key of this name: `limiters.<name>.lanes`, `upstreams.<name>.targets[].url`. */
export function placesOf(key: string, schema: unknown = form, path = ''): string[] {
  const { shape = {}, element, valueType } = unwrap(schema);
  if (element !== undefined) return placesOf(key, element, `${path}[]`);
  if (valueType !== undefined) return placesOf(key, valueType, `${path}.<name>`);
  return Object.entries(shape).flatMap(([name, below]) => {
    const at = path === '' ? name : `${path}.${name}`;
    return [...(name === key ? [at] : []), ...placesOf(key, below, at)];
  });
}

/** The word that may stand for a section, meaning `{ word: true }`. */
export function shorthandAt(path: Path): string | undefined {
  return metaAt(path, 'shorthand') as string | undefined;
}

function schemaAt(path: Path): unknown {
  let schema: unknown = form;
  for (const key of path) schema = below(schema, key);
  return schema;
}

function below(schema: unknown, key: Key): unknown {
  const kinds = kindsOf(schema);
  const element = kinds.find((kind) => kind.element)?.element;
  if (typeof key === 'number' && element !== undefined) return element;
  const shape = kinds.find((kind) => kind.shape)?.shape;
  if (shape) return Object.hasOwn(shape, key) ? shape[key] : undefined;
  return kinds.find((kind) => kind.valueType)?.valueType ?? element;
}

/** All that a value may be instead: of an address, a mapping or a list of both, these three. */
function kindsOf(schema: unknown): Definition[] {
  const inner = innerOf(schema);
  if (inner !== undefined) return kindsOf(inner);
  const definition = definitionOf(schema);
  return definition.options?.flatMap(kindsOf) ?? [definition];
}

function metaAt(path: Path, name: string): unknown {
  for (let schema = schemaAt(path); schema !== undefined; schema = innerOf(schema)) {
    const meta = z.globalRegistry.get(schema as z.ZodType)?.[name];
    if (meta !== undefined) return meta;
  }
  return undefined;
}

/** Through defaults, options and transforms to the section or list itself. */
function unwrap(schema: unknown): Definition {
  const inner = innerOf(schema);
  if (inner !== undefined) return unwrap(inner);
  // Of a value that may be a section or something else, the section.
  const section = definitionOf(schema).options?.find((option) => unwrap(option).shape);
  return section === undefined ? definitionOf(schema) : unwrap(section);
}

function innerOf(schema: unknown): unknown {
  const { innerType, in: input } = definitionOf(schema);
  return innerType ?? input;
}

function definitionOf(schema: unknown): Definition {
  return (schema as { _zod?: { def: Definition } } | undefined)?._zod?.def ?? {};
}
