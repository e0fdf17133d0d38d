// Everything at once, at random: whoever gets a whole answer gets his own, never one from before a change he knows of, and nothing is left.

import { setTimeout as sleep } from 'node:timers/promises';
import { RawClient } from '../support/raw-client.ts';
import { e2e } from '../support/rig.ts';
import { landed } from '../support/twins.ts';
import { chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

const USERS = 40;
const ROUNDS = 60;
const PATHS = 12;
const LANGUAGES = ['de', 'en'];

/** A small generator, so that a failure can be seen again (Marsaglia's xorshift). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const HEADS = [
  'cache-control: public, max-age=1000\r\netag: "TAG"\r\n',
  'cache-control: public, max-age=1000\r\nvary: accept-language\r\n',
  'cache-control: public, no-cache\r\netag: "TAG"\r\n',
  'cache-control: private, max-age=1000\r\n',
  'cache-control: no-store\r\n',
  'cache-control: public, max-age=1000\r\nset-cookie: a=1\r\n',
  '',
];

e2e('a storm of all that the cache can do', async (t, rig) => {
  const seed = Number(process.env.STORM_SEED ?? Date.now() % 1e9) + 1;
  const pick = random(seed);
  const versions = new Array<number>(PATHS).fill(0);
  /** Of changes that somebody was told have been made. */
  const told = new Array<number>(PATHS).fill(0);
  const script: Script = async (request, connection) => {
    await request.whole();
    const path = Number(/\/p(\d+)/.exec(request.target)![1]);
    if (request.method === 'POST') {
      versions[path]!++;
      connection.send('HTTP/1.1 204 No Content\r\n\r\n');
      return;
    }
    const version = versions[path]!;
    const tag = `"${version}"`;
    const said = HEADS[path % HEADS.length]!.replace('"TAG"', tag);
    if (request.get('if-none-match') === tag) {
      connection.send(`HTTP/1.1 304 Not Modified\r\n${said}\r\n`);
      return;
    }
    const body = JSON.stringify({
      path,
      version,
      who: request.get('authorization'),
      says: request.get('accept-language'),
    });
    if (pick(12) === 0) {
      connection.send('HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy');
      return;
    }
    if (pick(2) === 0) await sleep(pick(8));
    if (request.method === 'HEAD') {
      connection.send(`HTTP/1.1 200 OK\r\n${said}content-length: ${body.length}\r\n\r\n`);
    } else if (pick(2) === 0)
      connection.send(`HTTP/1.1 200 OK\r\n${said}content-length: ${body.length}\r\n\r\n${body}`);
    else {
      connection.send(chunkedHead(said)).send(chunk(body.slice(0, 10)));
      await sleep(pick(8));
      if (pick(15) === 0) connection.socket.destroy();
      else connection.send(chunk(body.slice(10))).send(LAST_CHUNK);
    }
  };
  const upstream = await rig.upstream(script);
  const proxy = await rig.one(
    { url: upstream.url, cache: { http: true }, pool: { connections: 8, keepalive: 4 } },
    { cache: { maxBytes: 40_000 }, flights: { maxWaiters: 6, bufferBytes: 2048, waitMs: 40 } },
  );
  const problems: string[] = [];
  let whole = 0;
  const user = async (n: number) => {
    const who = `Bearer user-${n % 4}`;
    const says = LANGUAGES[(n >> 2) % 2]!;
    let client: RawClient | null = null;
    for (let round = 0; round < ROUNDS; round++) {
      client ??= await RawClient.connect(proxy.port);
      const path = pick(PATHS);
      const kind = pick(20);
      const method = kind === 0 ? 'POST' : kind === 1 ? 'HEAD' : 'GET';
      const wish =
        kind === 2
          ? 'cache-control: no-cache\r\n'
          : kind === 3
            ? 'range: bytes=0-4\r\n'
            : kind === 4
              ? 'if-none-match: "0"\r\n'
              : '';
      const known = told[path]!;
      const before = versions[path]!;
      client.send(
        `${method} /ai/p${path}?u=${kind === 5 ? 1 : 0} HTTP/1.1\r\nhost: a\r\nauthorization: ${who}\r\naccept-language: ${says}\r\n${wish}` +
          (method === 'POST' ? 'content-length: 2\r\n\r\n{}' : '\r\n'),
      );
      if (pick(8) === 0) {
        if (pick(2) === 0) await sleep(pick(10));
        client.destroy();
        client = null;
        continue;
      }
      try {
        const got = await client.answer(method === 'HEAD');
        if (got.ending !== 'clean') throw new Error('cut');
        if (method === 'POST' && got.status === 204) told[path] = Math.max(told[path]!, before + 1);
        if (method !== 'GET' || got.status !== 200) continue;
        whole++;
        const body = JSON.parse(got.body.toString()) as { path: number; version: number; who: string; says: string };
        const isItsOwn = body.path === path && body.who === who;
        const isInItsLanguage = path % HEADS.length !== 1 || body.says === says;
        // Another query is another target: a change of the one says nothing of the other.
        const isNotFromBefore = kind === 5 || body.version >= known || path % HEADS.length !== 0;
        if (!isItsOwn || !isInItsLanguage || !isNotFromBefore) {
          problems.push(`${who} ${says} p${path} from version ${known}: ${got.body} ${got.get('cache-status')}`);
        }
      } catch {
        client.destroy();
        client = null;
      }
    }
    client?.destroy();
  };
  await Promise.all(Array.from({ length: USERS }, (_, n) => user(n)));
  t.same(problems, [], `seed ${seed - 1}`);
  const { hits, coalesced, revalidated, misses, invalidated, entries, bytes } = proxy.stats().cache;
  t.ok(
    whole > 500 && hits > 50 && coalesced > 10 && revalidated > 0 && misses > 100 && invalidated > 0,
    'all of it happened',
  );
  t.ok(entries > 0 && bytes <= 40_000);
  await proxy.idle();
  await landed(proxy);
});
