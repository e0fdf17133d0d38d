// Names of header fields: compared without a copy.

/** ASCII case-insensitive; `lower` is lower case and of the same length, or else only the beginning is compared. */
export function sameName(name: string, lower: string): boolean {
  for (let i = 0; i < lower.length; i++) {
    const c = name.charCodeAt(i);
    if (c !== lower.charCodeAt(i) && (c < 0x41 || c > 0x5a || (c | 0x20) !== lower.charCodeAt(i))) return false;
  }
  return true;
}

/** The values of a field in flat raw pairs, in their order. @param lower its name in lower case */
export function valuesOf(pairs: readonly string[], lower: string): string[] {
  const values: string[] = [];
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]!.length === lower.length && sameName(pairs[i]!, lower)) values.push(pairs[i + 1]!);
  }
  return values;
}
