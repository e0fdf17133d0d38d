// Loads the config: a YAML file, the environment and the flags in; ready numbers, or all mistakes at once, out.

import { dirname, resolve as resolvePath } from 'node:path';
import type { z } from 'zod';
import { dump } from './dump.ts';
import { readTextFile } from './files.ts';
import { type Form, form } from './form.ts';
import { mistakesOf, unfold, wordRule, writeLines } from './mistakes.ts';
import { type Path, pathKey, setAt, valueAt } from './path.ts';
import { readPems } from './pem.ts';
import { resolve } from './resolve.ts';
import type { Config } from './schema.ts';
import { isOptional, isSwitched, shorthandAt } from './shape.ts';
import { type Mistake, readTree, type Tree } from './tree.ts';

export type Env = Readonly<Record<string, string | undefined>>;

/** Values of `--listen`, `--stats` and `--log-level`: they take the place of the file's. */
export interface Overrides {
  readonly listen?: string | undefined;
  readonly stats?: string | undefined;
  readonly logLevel?: string | undefined;
}

export interface LoadedConfig {
  readonly config: Config;
  /** The effective config under its YAML keys, safe to show: see dump.ts. */
  readonly dump: unknown;
}

/** The config cannot be used. Holds no secret: values from variables and files appear as their templates. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** Reads and parses the file. Throws ConfigError with every mistake there is. */
export function loadConfig(path: string, env: Env, overrides: Overrides = {}): LoadedConfig {
  const read = readTextFile(path);
  if ('problem' in read) throw new ConfigError([`cannot read ${path}: ${read.problem}`]);
  return parseConfig(read.text, path, env, overrides);
}

/** `fileName` stands in the problems; files named inside the config are relative to its directory. */
export function parseConfig(text: string, fileName: string, env: Env, overrides: Overrides = {}): LoadedConfig {
  const directory = dirname(fileName);
  const tree = readTree(text, { env, file: (path) => readTextFile(resolvePath(directory, path)) });
  const flags = new Map<string, string>();
  const fail = (mistakes: readonly Mistake[]) => new ConfigError(writeLines(mistakes, fileName, tree, flags));
  const rootMistake = judgeRoot(tree);
  if (rootMistake) throw fail(rootMistake);

  const raw = tree.value as Record<string, unknown>;
  const overridden = override(raw, overrides, tree, flags);
  const parsed = parseForm(raw, tree);
  const pems = readPems(raw, tree, directory, readTextFile);
  const mistakes = [
    ...tree.mistakes.filter((mistake) => !overridden(mistake)),
    ...('issues' in parsed ? mistakesOf(parsed.issues, raw, tree) : []),
    ...pems.mistakes,
  ];
  if (mistakes.length > 0 || 'issues' in parsed) throw fail(mistakes);
  return {
    config: resolve(parsed.form, (value) => pems.texts.get(value)!),
    dump: dump(parsed.form, tree.templates),
  };
}

/** What makes every other rule pointless. */
function judgeRoot(tree: Tree): readonly Mistake[] | null {
  if (tree.broken) return tree.mistakes;
  if (tree.value === null) {
    const rule = 'is empty, and at least one upstream is needed (config/minimal.yaml shows the least)';
    return [{ path: [], at: 0, rule, got: null }];
  }
  if (typeof tree.value === 'object' && !Array.isArray(tree.value)) return null;
  const got = Array.isArray(tree.value) ? 'a list' : 'a single value';
  return [{ path: [], at: tree.values.get(pathKey([])) ?? 0, rule: 'must be a mapping of keys', got }];
}

/** Puts the flags into the tree; says of a mistake in the file whether a flag has made it harmless. */
function override(raw: Record<string, unknown>, overrides: Overrides, tree: Tree, flags: Map<string, string>) {
  const places = [
    [['listen'], '--listen', overrides.listen],
    [['stats'], '--stats', overrides.stats],
    [['log', 'level'], '--log-level', overrides.logLevel],
  ] as const;
  const replaced: string[] = [];
  for (const [path, flag, value] of places) {
    if (value === undefined) continue;
    if (path[0] === 'log') raw.log ??= {};
    const key = pathKey(path);
    setAt(raw, path, value);
    flags.set(key, flag);
    replaced.push(key.slice(0, -1));
    // The file's templates and unset variables there (for `listen`, in its list too) no longer count.
    for (const known of [...tree.templates.keys()])
      if (known.startsWith(key.slice(0, -1))) tree.templates.delete(known);
    for (const known of [...tree.missing]) if (known.startsWith(key.slice(0, -1))) tree.missing.delete(known);
  }
  return (mistake: Mistake) => replaced.some((key) => pathKey(mistake.path).startsWith(key));
}

/** Parses until no refused value can be read another way. */
function parseForm(raw: unknown, tree: Tree): { form: Form } | { issues: readonly z.core.$ZodIssue[] } {
  for (;;) {
    // Without jit: compiling the schema to code costs more than one parse saves.
    const result = form.safeParse(raw, { error: wordRule, jitless: true, reportInput: true });
    if (result.success) return { form: result.data };
    const { issues } = result.error;
    // Every pass leaves less that can be read another way, so this ends.
    const inside = issues.flatMap((issue) => unfold(issue, raw));
    if (inside.filter((issue) => readOtherwise(issue, raw, tree)).length === 0) return { issues };
  }
}

/** Where YAML's idea of a value is not the one meant: true when the tree was changed. */
function readOtherwise(issue: z.core.$ZodIssue, raw: unknown, tree: Tree): boolean {
  if (issue.code !== 'invalid_type' && issue.code !== 'invalid_union') return false;
  const path = issue.path.map((key) => (typeof key === 'number' ? key : String(key)));
  const value = valueAt(raw, path);
  const expected = issue.code === 'invalid_type' ? issue.expected : takesFlag(issue) ? 'boolean' : null;
  const other = value === null ? ofNothing(expected, path) : ofText(value, expected, path, tree);
  if (other !== null) setAt(raw, path, other.value);
  return other !== null;
}

/** One of the things it may be is true or false. */
function takesFlag({ errors }: z.core.$ZodIssueInvalidUnion): boolean {
  return errors
    .flat()
    .some((one) => one.path.length === 0 && one.code === 'invalid_type' && one.expected === 'boolean');
}

/** A section whose keys are all commented out is null in YAML. */
function ofNothing(expected: string | null, path: Path): { value: unknown } | null {
  if (expected !== 'object' && expected !== 'record' && expected !== 'array') return null;
  if (isSwitched(path)) return null;
  if (isOptional(path)) return { value: undefined };
  return { value: expected === 'array' ? [] : {} };
}

function ofText(value: unknown, expected: string | null, path: Path, tree: Tree): { value: unknown } | null {
  if (typeof value !== 'string') return null;
  if (expected === 'object' && value === shorthandAt(path)) return { value: { [value]: true } };
  if (!tree.templates.get(pathKey(path))?.whole) return null;
  // What a variable holds is text; here a number, or true or false, is wanted.
  if (/^-?[0-9]+(\.[0-9]+)?$/.test(value)) return { value: Number(value) };
  return expected === 'boolean' && /^(true|false)$/.test(value) ? { value: value === 'true' } : null;
}
