// The layers of DESIGN.md, read from the imports of src: they point down, never up, and never sideways between mechanism folders.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** Path below the repository (`src/flow/limiter.ts`) → text. */
type Sources = ReadonlyMap<string, string>;

interface Import {
  readonly from: string;
  /** A path of the repository for relative imports, else the specifier as written. */
  readonly to: string;
  readonly typeOnly: boolean;
}

// A place belongs to the first row whose prefix it starts with. Two places of one layer may import each other only where `siblings` says so.
const LAYERS: readonly { level: number; siblings: boolean; places: readonly string[] }[] = [
  { level: 5, siblings: true, places: ['src/cli.ts', 'src/cli-explain.ts', 'src/assemble.ts', 'src/demo/'] },
  { level: 4, siblings: false, places: ['src/server/'] },
  { level: 3, siblings: false, places: ['src/proxy/'] },
  { level: 2, siblings: false, places: ['src/upstream/'] },
  { level: 1, siblings: false, places: ['src/flow/', 'src/cache/', 'src/http/', 'src/observe/'] },
  // src/redis/ is down here because cache and limits both stand on the one connection, and know nothing of each other.
  { level: 0, siblings: true, places: ['src/errors.ts', 'src/fields.ts', 'src/config/', 'src/redis/'] },
];

/** Its neighbours need no Redis; it needs of them only what it is told at the start. */
const MAY_USE_REDIS = ['src/assemble.ts', 'src/cache/', 'src/redis/'];
const REDIS_MAY_USE = /^(src\/(redis|config|errors\.ts)|node:|ioredis$)/;

const HANDLER_CALLBACKS = [
  'onRequestStart',
  'onRequestSent',
  'onRequestUpgrade',
  'onBodySent',
  'onResponseStart',
  'onResponseData',
  'onResponseEnd',
  'onResponseError',
];

/** Whatever carries no request of a client but the opening of a WebSocket. */
const MAY_USE_HTTP = ['src/server/', 'src/demo/', 'src/cli-explain.ts', 'src/proxy/tunnel-handshake.ts'];

const LONG_FILE = 300;

/** Comments gone, lines kept. Only comments that start a line or follow code after a blank: `//` inside a URL stays. */
function withoutComments(source: string): string {
  return source
    .replace(/(^|[\s{(,;])\/\*[\s\S]*?\*\//g, (text) => text.replace(/[^\n]/g, ' '))
    .replace(/(^|\s)\/\/.*$/gm, '$1');
}

// Only names, braces, commas, stars and blanks may stand between the keyword and `from`.
const STATIC = /^[ \t]*(?:import|export)\b([\w$*{},\s]*?)\bfrom\s*(['"])([^'"\n]+)\2/gm;
const SIDE_EFFECT = /^[ \t]*import\s*(['"])([^'"\n]+)\1/gm;
const DYNAMIC = /\bimport\s*\(\s*(?:(['"`])([^'"`\n]+)\1|([^)\n]*))/g;

/** True for `type { … }`, and for `{ type A, type B }` with nothing else in it. */
function namesOnlyTypes(clause: string): boolean {
  const text = clause.trim();
  if (/^type\b(?!\s*,)/.test(text)) return true;
  const braces = /^\{([\s\S]*)\}$/.exec(text);
  const names = braces?.[1]?.split(',').filter((name) => name.trim() !== '') ?? [];
  return names.length > 0 && names.every((name) => /^\s*type\s/.test(name));
}

function importsOf(file: string, source: string): Import[] {
  const code = withoutComments(source);
  const resolve = (to: string) => (to.startsWith('.') ? posix.join(posix.dirname(file), to) : to);
  const found: Import[] = [];
  for (const [, clause = '', , to = ''] of code.matchAll(STATIC))
    found.push({ from: file, to: resolve(to), typeOnly: namesOnlyTypes(clause) });
  for (const [, , to = ''] of code.matchAll(SIDE_EFFECT)) found.push({ from: file, to: resolve(to), typeOnly: false });
  for (const [, , to, computed] of code.matchAll(DYNAMIC))
    found.push({ from: file, to: to === undefined ? `import(${computed})` : resolve(to), typeOnly: false });
  return found;
}

function allImports(sources: Sources): Import[] {
  return [...sources].flatMap(([file, source]) => importsOf(file, source));
}

function placeOf(file: string): { level: number; siblings: boolean; place: string } | null {
  for (const { level, siblings, places } of LAYERS) {
    const place = places.find((it) => (it.endsWith('/') ? file.startsWith(it) : file === it));
    if (place) return { level, siblings, place };
  }
  return null;
}

/** Why an arrow is wrong, or null. */
function judge({ from, to }: Import): string | null {
  const arrow = `${from} → ${to}`;
  if (to.startsWith('import(')) return `${arrow}: a dynamic import must name its file`;
  if (!to.startsWith('src/')) return to.startsWith('.') || /^(test|bench)\//.test(to) ? `${arrow}: outside src` : null;
  const source = placeOf(from);
  const target = placeOf(to);
  if (!source) return `${from}: in no layer`;
  if (!target) return `${arrow}: the target is in no layer`;
  if (source.place === target.place) return null;
  if (source.level < target.level) return `${arrow}: up, from layer ${source.level} to ${target.level}`;
  if (source.level === target.level && !source.siblings) return `${arrow}: sideways in layer ${source.level}`;
  return null;
}

function wrongArrows(sources: Sources): string[] {
  const homeless = [...sources.keys()].filter((file) => !placeOf(file)).map((file) => `${file}: in no layer`);
  const wrong = allImports(sources)
    .map(judge)
    .filter((reason) => reason !== null);
  return [...new Set([...homeless, ...wrong])];
}

/** Cycles of imports that exist at run time; those of types only cost nothing. */
function cycles(sources: Sources): string[] {
  const targets = new Map<string, string[]>();
  for (const { from, to, typeOnly } of allImports(sources)) {
    if (!typeOnly && sources.has(to)) targets.set(from, [...(targets.get(from) ?? []), to]);
  }
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) found.push([...path.slice(at), file].join(' → '));
    if (at >= 0 || done.has(file)) return;
    for (const target of targets.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of sources.keys()) visit(file, []);
  return found;
}

/** Files whose code, comments apart, names a callback of undici's handlers. */
function filesWithCallbacks(sources: Sources): string[] {
  const names = new RegExp(`\\b(?:${HANDLER_CALLBACKS.join('|')})\\b`);
  return [...sources].filter(([, source]) => names.test(withoutComments(source))).map(([file]) => file);
}

function misplacedHttp(sources: Sources): string[] {
  return allImports(sources)
    .filter(({ to }) => /^(node:)?https?$/.test(to))
    .filter(({ from }) => !MAY_USE_HTTP.some((place) => from.startsWith(place)))
    .map(({ from, to }) => `${from} → ${to}`);
}

function misplacedRedis(sources: Sources): string[] {
  return allImports(sources)
    .filter(({ from, to }) =>
      from.startsWith('src/redis/')
        ? !REDIS_MAY_USE.test(to)
        : (to === 'ioredis' || to.startsWith('src/redis/')) && !MAY_USE_REDIS.some((place) => from.startsWith(place)),
    )
    .map(({ from, to }) => `${from} → ${to}`);
}

function readSources(): Sources {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .map((file) => `src/${file.replaceAll('\\', '/')}`)
    .filter((file) => file.endsWith('.ts'));
  return new Map(files.sort().map((file) => [file, readFileSync(join(root, file), 'utf8')]));
}

const made = (files: Record<string, string>): Sources => new Map(Object.entries(files));

t.test('imports of src point down only', async (t) => {
  const sources = readSources();
  t.ok(sources.size > 0, 'there are sources');
  t.ok(allImports(sources).length > sources.size / 2, 'the scanner sees their imports');
  t.same(wrongArrows(sources), []);
});

t.test('imports of src have no cycle at run time', async (t) => t.same(cycles(readSources()), []));

t.test('the callbacks of undici’s handlers appear where answers are told and heard of, and nowhere else', async (t) => {
  const files = filesWithCallbacks(readSources());
  t.same(files, ['src/proxy/attempt.ts', 'src/upstream/http2-stream.ts'], 'who listens, and who speaks as undici does');
});

t.test('only the server, the demo and the openings of WebSockets import node:http', async (t) =>
  t.same(misplacedHttp(readSources()), []),
);

t.test('the connection to Redis knows none of its users, and only the cache knows it', async (t) => {
  t.same(misplacedRedis(readSources()), []);
  const wrong = {
    'src/redis/hub.ts': `import type { Log } from '../observe/log.ts';`,
    'src/config/load.ts': `import { RedisHub } from '../redis/hub.ts';`,
    'src/flow/shared-rate.ts': `import type { Redis } from 'ioredis';`,
  };
  t.equal(misplacedRedis(made(wrong)).length, 3);
});

t.test('long files are mentioned', async (t) => {
  for (const [file, source] of readSources()) {
    const lines = source.split('\n').length - 1;
    if (lines > LONG_FILE) t.comment(`${file} has ${lines} lines: think about it at ${LONG_FILE}`);
  }
  t.pass('not a rule');
});

t.test('the scanner sees every form of import', async (t) => {
  const source = `
// import { no } from './comment.ts';
/* import no from './block.ts'; */
/**
 * import no from './doc.ts';
 */
import { a } from './a.ts'; // import './trailing.ts'
import b, { type B } from "./b.ts";
import * as c from './c.ts';
import {
  d,
  type D,
} from './d.ts';
import './e.ts';
import type { F } from './f.ts';
import { type G, type H } from '../flow/g.ts';
export { i } from './i.ts';
export * from './j.ts';
export * as k from './k.ts';
export type { L } from './l.ts';
const m = await import('./m.ts');
const n = () => import(
  './n.ts'
);
let o: import('./o.ts').O;
import http from 'node:http';
export const from = 'https://no.test/x.ts';
export function text() { return "from './string.ts'"; }
  await import(name);
`;
  const found = importsOf('src/http/x.ts', source);
  t.same(
    found.map(({ to, typeOnly }) => (typeOnly ? `type ${to}` : to)).sort(),
    [
      'import(name)',
      'node:http',
      ...['a', 'b', 'c', 'd', 'e', 'i', 'j', 'k', 'm', 'n', 'o'].map((name) => `src/http/${name}.ts`),
      'type src/flow/g.ts',
      ...['f', 'l'].map((name) => `type src/http/${name}.ts`),
    ].sort(),
  );
});

t.test('a wrong arrow is named', async (t) => {
  const cases: readonly [from: string, code: string, reason: string | null][] = [
    ['src/flow/limiter.ts', `import { x } from '../http/body.ts';`, 'sideways in layer 1'],
    ['src/http/body.ts', `import type { X } from '../flow/limiter.ts';`, 'sideways in layer 1'],
    ['src/cache/store.ts', `export * from '../observe/log.ts';`, 'sideways in layer 1'],
    ['src/flow/limiter.ts', `import { x } from '../upstream/pool.ts';`, 'up, from layer 1 to 2'],
    ['src/upstream/pool.ts', `const x = await import('../proxy/exchange.ts');`, 'up, from layer 2 to 3'],
    ['src/proxy/exchange.ts', `import '../server/listener.ts';`, 'up, from layer 3 to 4'],
    ['src/server/listener.ts', `import { x } from '../cli.ts';`, 'up, from layer 4 to 5'],
    ['src/config/schema.ts', `import { x } from '../flow/limiter.ts';`, 'up, from layer 0 to 1'],
    ['src/errors.ts', `import { x } from './assemble.ts';`, 'up, from layer 0 to 5'],
    ['src/server/listener.ts', `import { x } from '../utils/x.ts';`, 'the target is in no layer'],
    ['src/utils/x.ts', '', 'in no layer'],
    ['src/cli.ts', `import { x } from '../test/support/x.ts';`, 'outside src'],
    ['src/cli.ts', 'await import(name);', 'a dynamic import must name its file'],
    ['src/server/listener.ts', `import { x } from '../flow/limiter.ts';`, null],
    ['src/flow/limiter.ts', `import { x } from './line.ts';`, null],
    ['src/flow/limiter.ts', `import { x } from '../errors.ts';`, null],
    ['src/config/load.ts', `import { x } from '../errors.ts';`, null],
    ['src/cli.ts', `import { x } from './demo/run.ts';`, null],
    ['src/cli.ts', `import { z } from 'zod';`, null],
  ];
  for (const [from, code, reason] of cases) {
    const wrong = wrongArrows(made({ [from]: code }));
    const name = `${from} with ${code || 'nothing'}`;
    if (reason === null) t.same(wrong, [], name);
    else t.match(wrong, [`: ${reason}`], name);
  }
});

t.test('a cycle is named, one of types only is not', async (t) => {
  const ring = (back: string) =>
    made({
      'src/flow/a.ts': `import { b } from './b.ts';`,
      'src/flow/b.ts': `import { c } from './c.ts';`,
      'src/flow/c.ts': back,
    });
  t.same(cycles(ring(`import { a } from './a.ts';`)), [
    'src/flow/a.ts → src/flow/b.ts → src/flow/c.ts → src/flow/a.ts',
  ]);
  t.same(cycles(ring(`import { a, type A } from './a.ts';`)).length, 1, 'a value beside a type');
  t.same(cycles(ring(`import './c.ts';`)), ['src/flow/c.ts → src/flow/c.ts'], 'itself');
  t.same(cycles(ring(`import type { A } from './a.ts';`)), []);
  t.same(cycles(ring(`import { type A, type B } from './a.ts';`)), []);
});

t.test('a second file with undici’s callbacks is found, a comment is not', async (t) => {
  const sources = made({
    'src/upstream/connection.ts': 'onResponseStart(c) {}',
    'src/proxy/attempt.ts': 'const handler = { onResponseEnd() {} };',
    'src/upstream/pool.ts': '// not in onResponseEnd\n/** onResponseData */\nconst onResponseStarted = 1;',
  });
  t.same(filesWithCallbacks(sources), ['src/upstream/connection.ts', 'src/proxy/attempt.ts']);
});

t.test('node:http outside server and demo is found', async (t) => {
  const sources = made({
    'src/server/listener.ts': `import { createServer } from 'node:http';`,
    'src/demo/relay.ts': `import http from 'node:http';`,
    'src/proxy/attempt.ts': `import type { IncomingMessage } from 'node:http';`,
    'src/upstream/dial.ts': `import { request } from 'https';`,
  });
  t.same(misplacedHttp(sources), ['src/proxy/attempt.ts → node:http', 'src/upstream/dial.ts → https']);
});
