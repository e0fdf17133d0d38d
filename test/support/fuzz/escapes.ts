// What servers are known to make of a path, in any order and number: does any of it lead out of a prefix?

/** Valid escapes become their byte, the others stay: what most servers do. */
function decodeLeniently(path: string): string {
  return path.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** IIS: `%u002e`, and the wide forms that it takes for a dot and a slash. */
function decodeWide(path: string): string {
  const narrow: Readonly<Record<string, string>> = { ff0e: '.', ff0f: '/', '2215': '/', '2216': '\\', ff3c: '\\' };
  return path.replace(/%u([0-9a-f]{4})/gi, (wide, hex: string) => {
    const code = Number.parseInt(hex, 16);
    return narrow[hex.toLowerCase()] ?? (code < 0x100 ? String.fromCharCode(code) : wide);
  });
}

/** A decoder of UTF-8 that takes forms longer than they need be (CVE-2000-0884, CVE-2008-2938). */
function decodeOverlong(path: string): string {
  return path
    .replace(/[\xc0\xc1]([\x80-\xbf])/g, (pair, low: string) =>
      String.fromCharCode(((pair.charCodeAt(0) & 1) << 6) | (low.charCodeAt(0) & 0x3f)),
    )
    .replace(/\xe0([\x80\x81])([\x80-\xbf])/g, (_, high: string, low: string) =>
      String.fromCharCode(((high.charCodeAt(0) & 1) << 6) | (low.charCodeAt(0) & 0x3f)),
    )
    .replace(/\xf0\x80([\x80\x81])([\x80-\xbf])/g, (_, high: string, low: string) =>
      String.fromCharCode(((high.charCodeAt(0) & 1) << 6) | (low.charCodeAt(0) & 0x3f)),
    );
}

/** A browser, or any client that builds a URL anew. */
function asUrl(path: string): string {
  // A byte is a byte: as a character it would be encoded to two.
  const ascii = path.replace(/[\x80-\xff]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
  try {
    return new URL(`http://upstream${ascii}`).pathname;
  } catch {
    return path;
  }
}

/** Each may come at any time, and more than once. */
const CARELESS: readonly ((path: string) => string)[] = [
  decodeLeniently,
  decodeWide,
  decodeOverlong,
  asUrl,
  (path) => path.replaceAll('\\', '/'),
  // Tomcat
  (path) => path.replace(/;[^/]*/g, ''),
  // nginx: merge_slashes
  (path) => path.replace(/\/{2,}/g, '/'),
  (path) => path.replace(/[?#].*$/s, ''),
  (path) => path.replace(/\0.*$/s, ''),
];

/** RFC 3986 section 5.2.4, but says null when `..` climbs above `floor` segments. */
function resolveDots(path: string, floor: readonly string[]): string | null {
  const out: string[] = [];
  for (const segment of path.split('/').slice(1)) {
    if (segment === '..') out.pop();
    else if (segment !== '.') out.push(segment);
    if (out.length < floor.length && segment === '..') return null;
  }
  return floor.every((segment, i) => out[i] === segment) ? `/${out.join('/')}` : null;
}

/** Every way of combining what careless servers do; returns the first that leaves the prefix. */
export function escapes(path: string, floor: readonly string[]): string | null {
  const seen = new Set([path]);
  const open = [path];
  for (let looked = 0; looked < open.length && looked < 400; looked++) {
    const current = open[looked]!;
    const resolved = resolveDots(current, floor);
    if (resolved === null) return current;
    for (const next of [resolved, ...CARELESS.map((step) => step(current))]) {
      if (seen.has(next)) continue;
      seen.add(next);
      open.push(next);
    }
  }
  return null;
}
