// Behaviour 11 of DESIGN.md: a request body must come at a minimum rate. In a file of its own: the rate is measured over ten seconds.

import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

e2e('a client that sends its body below the minimum rate is 408; one above it is served', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await until('the whole body', () => request.complete || connection.left, 30_000);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 4096 } });
  const dripping = await rig.client(proxy);
  dripping.send('POST /ai/dripping HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nstart');
  const stalled = await rig.client(proxy);
  stalled.send('POST /ai/stalled HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n').send(Buffer.alloc(5000));
  const steady = await rig.client(proxy);
  steady.send('POST /ai/steady HTTP/1.1\r\nhost: a\r\ncontent-length: 22000\r\n\r\n');
  let left = 22_000;
  const beat = setInterval(() => {
    if (!dripping.closed) dripping.send('a');
    left -= 400;
    if (left >= 0) steady.send(Buffer.alloc(400));
  }, 200);
  try {
    await until('the slow ones are refused', () => dripping.received.length > 0 && stalled.received.length > 0, 12_000);
    for (const client of [dripping, stalled]) {
      const got = await client.answer();
      t.equal(got.status, 408);
      t.equal(got.code, 'request_timeout');
    }
    t.equal((await steady.answer()).status, 200);
    t.same(
      upstream.requests.filter(({ complete }) => complete).map(({ target }) => target),
      ['/steady'],
    );
  } finally {
    clearInterval(beat);
  }
});
