// Paths into the config: how they are kept as map keys, written in problems, and followed.

export type Key = string | number;
export type Path = readonly Key[];

export function pathKey(path: Path): string {
  return JSON.stringify(path);
}

/** `upstreams.openai.bypass[0]`; a name that holds a dot is quoted, so that the path has one meaning. */
export function pathText(path: Path): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else text += (text === '' ? '' : '.') + (/^[\w-]+$/.test(key) ? key : JSON.stringify(key));
  }
  return text;
}

/** What is at the path, or undefined. */
export function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<Key, unknown>)[key];
  }
  return value;
}

/** Puts a value where one is already; a path that leads nowhere is left alone. */
export function setAt(root: unknown, path: Path, value: unknown): void {
  const parent = valueAt(root, path.slice(0, -1));
  const last = path.at(-1);
  if (last === undefined || typeof parent !== 'object' || parent === null) return;
  (parent as Record<Key, unknown>)[last] = value;
}
