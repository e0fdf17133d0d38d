// Turns the YAML text into a plain tree, with the place of every key and value and the templates that were filled in.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument } from 'yaml';
import { interpolate, type Sources } from './interpolate.ts';
import { type Path, pathKey } from './path.ts';

/** A mistake before it is a line of text. `at` is the offset in the file, -1 for a flag. */
export interface Mistake {
  readonly path: Path;
  readonly at: number;
  readonly rule: string;
  /** The value got, ready to print; null where the rule says it all. */
  readonly got: string | null;
}

export interface Template {
  readonly text: string;
  /** One `${…}` and nothing else. */
  readonly whole: boolean;
}

export interface Tree {
  readonly value: unknown;
  /** Offsets in the file, by path key. */
  readonly keys: ReadonlyMap<string, number>;
  readonly values: ReadonlyMap<string, number>;
  readonly templates: Map<string, Template>;
  readonly mistakes: Mistake[];
  /** Path keys of values that could not be had (an unset variable): no other rule may judge them. */
  readonly missing: Set<string>;
  /** The text is no YAML; `value` is a guess not worth judging. */
  readonly broken: boolean;
  readonly lines: LineCounter;
}

/** An alias can stand for a large node, and that again for others: more than this is an attack or an accident. */
const MAX_ALIASES = 100;
const MAX_DEPTH = 32;

export function readTree(text: string, sources: Sources): Tree {
  const lines = new LineCounter();
  const tree = {
    value: null as unknown,
    keys: new Map<string, number>(),
    values: new Map<string, number>(),
    templates: new Map<string, Template>(),
    mistakes: [] as Mistake[],
    missing: new Set<string>(),
    broken: false,
    lines,
  };
  const doc = parse(text, lines, tree.mistakes);
  if (doc === null || tree.mistakes.length > 0) return { ...tree, broken: true };
  const walk: Walk = { ...tree, doc, sources, aliases: 0 };
  return { ...tree, value: doc.contents === null ? null : convert(walk, doc.contents, [], 0) };
}

function parse(text: string, lines: LineCounter, mistakes: Mistake[]): Document.Parsed | null {
  const refuse = (at: number, rule: string) => mistakes.push({ path: ['YAML'], at, rule, got: null });
  try {
    // Duplicate keys are found below instead, where their path is known. Pretty errors would quote the file's text.
    const doc = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
    const told = new Set<number>();
    for (const error of [...doc.errors, ...doc.warnings]) {
      // One slip makes the parser stumble several times on the same line.
      const { line } = lines.linePos(error.pos[0]);
      if (told.has(line)) continue;
      told.add(line);
      refuse(error.pos[0], syntaxRule(error.code, error.message) + hint(text, lines, line));
    }
    return doc;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    refuse(0, 'is nested too deep');
    return null;
  }
}

function syntaxRule(code: string, message: string): string {
  if (code === 'MULTIPLE_DOCS') return 'must be one YAML document, without a second ---';
  return message.includes('call stack') ? 'is nested too deep' : message;
}

/** The trap of templates in YAML: inside `{ }` and `[ ]` their brackets end the value. */
function hint(text: string, lines: LineCounter, line: number): string {
  const start = lines.lineStarts[line - 1] ?? 0;
  const content = text.slice(start, lines.lineStarts[line] ?? text.length);
  return /[{[][^#]*(?<!["'$])\$\{/.test(content) ? '; inside { } and [ ] write "${NAME}" in quotes' : '';
}

interface Walk extends Omit<Tree, 'keys' | 'values'> {
  readonly doc: Document.Parsed;
  readonly sources: Sources;
  readonly keys: Map<string, number>;
  readonly values: Map<string, number>;
  aliases: number;
}

function convert(walk: Walk, node: unknown, path: Path, depth: number): unknown {
  const at = offset(node) ?? walk.keys.get(pathKey(path)) ?? 0;
  walk.values.set(pathKey(path), at);
  if (depth > MAX_DEPTH) return refuse(walk, path, at, 'is nested too deep');
  if (isScalar(node)) return scalar(walk, node.value, path, at);
  if (isSeq(node)) return node.items.map((item, index) => convert(walk, item, [...path, index], depth + 1));
  if (isMap(node)) return mapping(walk, node.items, path, depth);
  if (!isAlias(node)) return null;
  if (++walk.aliases > MAX_ALIASES) return refuse(walk, path, at, `has more than ${MAX_ALIASES} aliases in the file`);
  const target = node.resolve(walk.doc);
  if (target === undefined) return refuse(walk, path, at, `needs the anchor &${node.source} before it`);
  const value = convert(walk, target, path, depth + 1);
  walk.values.set(pathKey(path), at); // where the alias is written, not where it points to
  return value;
}

function scalar(walk: Walk, value: unknown, path: Path, at: number): unknown {
  const filled = typeof value === 'string' ? interpolate(value, walk.sources) : null;
  if (filled === null) return value;
  walk.templates.set(pathKey(path), { text: value as string, whole: filled.whole });
  if (filled.problems.length > 0) walk.missing.add(pathKey(path));
  for (const rule of filled.problems) walk.mistakes.push({ path, at, rule, got: JSON.stringify(value) });
  return filled.text;
}

function mapping(walk: Walk, pairs: readonly Pair[], path: Path, depth: number): Record<string, unknown> {
  const value: Record<string, unknown> = {};
  for (const pair of pairs) {
    const at = offset(pair.key) ?? 0;
    const key = keyText(pair.key);
    if (key === null || key === '__proto__') {
      refuse(walk, [...path, key ?? '?'], at, 'is not a key');
      continue;
    }
    const below: Path = [...path, key];
    if (Object.hasOwn(value, key)) {
      const first = walk.lines.linePos(walk.keys.get(pathKey(below)) ?? 0).line;
      walk.mistakes.push({ path: below, at, rule: `is written twice, first in line ${first}`, got: null });
      continue;
    }
    walk.keys.set(pathKey(below), at);
    value[key] = convert(walk, pair.value, below, depth + 1);
  }
  return value;
}

function refuse(walk: Walk, path: Path, at: number, rule: string): null {
  walk.mistakes.push({ path, at, rule, got: null });
  walk.missing.add(pathKey(path));
  return null;
}

function keyText(key: unknown): string | null {
  if (!isScalar(key) || key.value === null || typeof key.value === 'object') return null;
  return String(key.value);
}

/** An empty value has no text of its own; its range is where it would be. */
function offset(node: unknown): number | null {
  const range = (node as Node | null)?.range;
  if (!range || (isScalar(node) && node.value === null && range[0] === range[1])) return null;
  return range[0];
}
