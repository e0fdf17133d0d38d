// Turns what zod found into mistakes with a place in the file, and mistakes into the lines a user reads.

import type { z } from 'zod';
import { type Path, pathKey, pathText, valueAt } from './path.ts';
import type { RuleParams } from './rules.ts';
import { toldSecret } from './secrets.ts';
import { isList, keysAt, keysBelow, placesOf, secretAt } from './shape.ts';
import { nameHere, suggest } from './suggest.ts';
import type { Mistake, Tree } from './tree.ts';

type Issue = z.core.$ZodIssue;

const MAX_SHOWN = 80;

/** The rules that no leaf words itself; given to zod for a whole parse. */
export function wordRule(issue: { readonly code?: string; readonly expected?: unknown }): string | undefined {
  if (issue.code !== 'invalid_type') return undefined;
  return issue.expected === 'array' ? 'must be a list' : 'must be a mapping of keys';
}

export function mistakesOf(issues: readonly Issue[], raw: unknown, tree: Tree): Mistake[] {
  const found: Mistake[] = [];
  const judged = new Set(tree.missing);
  for (const mistake of issues.flatMap((issue) => unfold(issue, raw)).flatMap((issue) => fromIssue(issue, raw, tree))) {
    // One value, one mistake: what a second rule says about it only repeats the first.
    if (judged.has(pathKey(mistake.path))) continue;
    judged.add(pathKey(mistake.path));
    found.push(mistake);
  }
  return found;
}

/** `file:line:column path: rule, got value`, in the order of the file; flags first, under their own names. */
export function writeLines(mistakes: readonly Mistake[], file: string, tree: Tree, flags: ReadonlyMap<string, string>) {
  const placed = mistakes.map((mistake) => ({ ...mistake, flag: flags.get(pathKey(mistake.path)) }));
  placed.sort((a, b) => (a.flag ? -1 : a.at) - (b.flag ? -1 : b.at));
  return placed.map(({ path, at, rule, got, flag }) => {
    const { line, col } = tree.lines.lineStarts.length > 0 ? tree.lines.linePos(at) : { line: 1, col: 1 };
    // A rule may quote a key of the file, and a key may hold anything: a problem stays one line.
    const what = `${rule}${got === null ? '' : `, got ${safe(got, path, tree)}`}`.replace(/[\x00-\x1f\x7f]/g, ' ');
    return flag ? `${flag}: ${what}` : `${file}:${line}:${col} ${pathText(path) || 'file'}: ${what}`;
  });
}

/** How a value is shown: by its template where it has one, and never a key or a password. */
export function show(value: unknown, path: Path, tree: Tree): string {
  const template = tree.templates.get(pathKey(path));
  if (template) return JSON.stringify(template.text);
  if (value === undefined || value === null) return 'nothing';
  if (typeof value === 'object') {
    const kind = Array.isArray(value) ? 'list' : 'mapping';
    return Object.keys(value).length === 0 ? `an empty ${kind}` : `a ${kind}`;
  }
  if (typeof value !== 'string') return String(value);
  if (value.includes('-----BEGIN')) return '[pem]';
  const shown = value.replace(/\/\/.*@/s, '//***@');
  return JSON.stringify(shown.length > MAX_SHOWN ? `${shown.slice(0, MAX_SHOWN)}…` : shown);
}

/** Once more, for mistakes that were made before the form was known: nothing of a secret but the variable it is in. */
function safe(got: string, path: Path, tree: Tree): string {
  const secret = secretAt(path);
  return secret ? toldSecret(secret, got, tree.templates.get(pathKey(path))?.text) : got;
}

/** Where the value at the path begins, or else the nearest thing around it. */
export function place(path: Path, tree: Tree): number {
  for (let length = path.length; length > 0; length--) {
    const key = pathKey(path.slice(0, length));
    const at = length === path.length ? tree.values.get(key) : (tree.keys.get(key) ?? tree.values.get(key));
    if (at !== undefined) return at;
  }
  return 0;
}

/** A list refused by "one value or a list of them", or a mapping in the same way: what is wrong in it says more. */
export function unfold(issue: Issue, raw: unknown): Issue[] {
  const value = valueAt(raw, pathOf(issue));
  if (issue.code !== 'invalid_union' || typeof value !== 'object' || value === null) return [issue];
  const inside = issue.errors.find((branch) => branch.some((one) => one.path.length > 0));
  if (inside === undefined) return [issue];
  return inside.flatMap((one) => unfold({ ...one, path: [...issue.path, ...one.path] }, raw));
}

function fromIssue(issue: Issue, raw: unknown, tree: Tree): Mistake[] {
  const path = pathOf(issue);
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownKey(path, key, tree));
  if (issue.code === 'invalid_key') {
    const rule = issue.issues[0]?.message ?? 'is not a key';
    // What stands behind the name of a secret is one, and the name is in the path.
    const got = secretAt(path) ? null : JSON.stringify(path.at(-1));
    return [{ path, at: tree.keys.get(pathKey(path)) ?? 0, rule, got }];
  }
  const value = valueAt(raw, path);
  if (issue.code === 'custom') return [crossed(issue.message, path, value ?? issue.input, issue.params ?? {}, tree)];
  const at = place(path, tree);
  if (value === undefined) return [{ path, at, rule: `is required and ${issue.message}`, got: 'nothing' }];
  const words = issue.code === 'invalid_value' ? issue.values.map(String) : [];
  const meant = tree.templates.has(pathKey(path)) ? null : suggest(String(value), words);
  return [{ path, at, rule: issue.message, got: show(value, path, tree) + didYouMean(meant) }];
}

/** A rule between two keys names the value of the other one too. */
function crossed(message: string, path: Path, value: unknown, params: RuleParams, tree: Tree): Mistake {
  const { other, depth = 0, meant = null } = params;
  const otherPath = other ? [...path.slice(0, path.length - depth), ...other.path] : [];
  const rule = other ? `${message} (${show(other.value, otherPath, tree)})` : message;
  // A default can break the rule only by what is written for the other key.
  const written = tree.values.has(pathKey(path)) || !other;
  // A suggestion would tell how a variable's value is spelt.
  const hint = tree.templates.has(pathKey(path)) ? '' : didYouMean(meant);
  return { path, at: place(written ? path : otherPath, tree), rule, got: show(value, path, tree) + hint };
}

function unknownKey(path: Path, key: string, tree: Tree): Mistake {
  const known = keysAt(path);
  const names = Object.keys(known);
  // A key one level too high, as `connections` beside `pool`, is as common as a slip of the finger.
  const deeper = names.find((name) => Object.hasOwn(keysBelow(known[name]), key));
  const meant =
    deeper === undefined ? elsewhere(key, names) : didYouMean(`${deeper}${isList(known[deeper]) ? '[]' : ''}.${key}`);
  const at = tree.keys.get(pathKey([...path, key])) ?? 0;
  return { path: [...path, key], at, rule: `unknown key${meant}`, got: null };
}

/** The key beside it that is nearly the same, or the only place of the file where one is called so. */
function elsewhere(key: string, names: readonly string[]): string {
  const near = nameHere(key, names) ?? suggest(key, names);
  const places = placesOf(key);
  const far = places.length === 1 ? places[0]! : null;
  if (far === key) return ` here: ${key} stands at the top of the file`;
  return didYouMean(near !== null && far !== null ? `${near}" or "${far}` : (near ?? far));
}

function didYouMean(word: string | null): string {
  return word === null ? '' : `, did you mean "${word}"?`;
}

function pathOf(issue: Issue): Path {
  return issue.path.map((key) => (typeof key === 'number' ? key : String(key)));
}
