// What counts as the first event and what as a sign of life, as DeepSeek sends them: blank lines before a JSON answer, comments in a
// stream, in whatever pieces they come.

import { e2e } from '../support/rig.ts';
import { get, RULE, silent, twins } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

const EVENTS = 'content-type: text/event-stream\r\n';
const JSON_TYPE = 'content-type: application/json\r\n';

/** The head, then each piece as a chunk of its own, over and over, a piece every 20 ms. */
const filling =
  (head: string, pieces: readonly string[]): Script =>
  async (_request, connection) => {
    connection.send(head);
    for (let i = 0; !connection.left; i++) {
      connection.send(chunk(pieces[i % pieces.length]!));
      await whileNothing(20);
    }
  };

for (const [what, head, pieces] of [
  ['blank lines before a JSON answer', chunkedHead(JSON_TYPE), ['\n']],
  ['blank lines of every kind', chunkedHead(EVENTS), ['\r\n', '\r', '\n', ' ', '\t', '\r\n\r\n']],
  ['comments cut anywhere', chunkedHead(EVENTS), [': keep', '-ali', 've', '\n', '\n']],
  ['comments byte by byte', chunkedHead(EVENTS), [...': data: x\r\n\r\n']],
] as const) {
  e2e(`${what} put the idle deadline off, and not the one for the first event`, async (t, rig) => {
    const upstream = await rig.upstream(filling(head, pieces));
    const timeouts = { firstEventMs: 400, idleMs: 150 };
    const proxy = await rig.one({ url: upstream.url, timeouts });
    const startedAt = performance.now();
    const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
    await client.head();
    const { body, ending } = await client.rest();
    const tookMs = performance.now() - startedAt;
    t.equal(ending, 'reset');
    t.ok(tookMs > 390 && tookMs < 900, `after ${Math.round(tookMs)} ms`);
    t.ok(pieces.join('').repeat(100).startsWith(body.toString()) && body.length > 4, 'and pass as they come');
    await proxy.idle();
    t.same(proxy.upstream().failures, { first_event_timeout: 1 });
    await until('the upstream is told', () => upstream.connections[0]!.left);
  });
}

e2e('an answer behind filler is the first event, cut anywhere, and passes with its filler', async (t, rig) => {
  for (const [head, pieces] of [
    [chunkedHead(JSON_TYPE), ['\n', '\n\n', '\n{"a"', ':1}']],
    [chunkedHead(EVENTS), [': keep-alive', '\n\n: keep', '-alive\n', '\nda', 'ta: {}\n', '\n']],
  ] as const) {
    const upstream = await rig.upstream(async (_request, connection) => {
      connection.send(head);
      for (const piece of pieces) {
        await whileNothing(40);
        connection.send(chunk(piece));
      }
      await whileNothing(400);
      connection.send(LAST_CHUNK);
    });
    const proxy = await rig.one({ url: upstream.url, timeouts: { firstEventMs: 350 } });
    const got = await rig.ask(proxy, '/ai/x');
    t.same([got.ending, got.body.toString()], ['clean', pieces.join('')]);
  }
});

e2e('filler that stops is silence', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(chunkedHead(EVENTS) + chunk(': keep-alive\n\n'));
  });
  const proxy = await rig.one({ url: upstream.url, timeouts: { firstEventMs: 5000, idleMs: 150 } });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.ending, 'reset');
  await proxy.idle();
  t.same(proxy.upstream().failures, { idle_timeout: 1 });
});

e2e('those who share a fetch get its filler, and its deadline', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE, timeouts: { firstEventMs: 300 } });
  const clients = await twins(rig, proxy, 3, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead(EVENTS) + chunk(': keep-alive\n\n'));
  for (const client of clients) {
    await client.head();
    t.equal(String(await client.piece()), ': keep-alive\n\n');
  }
  for (const client of clients) t.equal((await client.rest()).ending, 'reset');
  await proxy.idle();
  t.same(proxy.upstream().failures, { first_event_timeout: 3 });
});
