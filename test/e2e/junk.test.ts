// Behaviour 12 of DESIGN.md: whatever an upstream sends, the client gets a 502 (or a cut connection) and the process lives on.

import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, type Script } from '../support/upstream.ts';

/** Bytes instead of an answer, and what the client is told. */
const junk: Record<string, [bytes: string, code: RegExp]> = {
  'a junk status line': ['HELLO WORLD\r\n\r\n', /upstream_protocol_error/],
  'an SSH banner': ['SSH-2.0-OpenSSH_9.7\r\n', /upstream_protocol_error/],
  'binary junk': ['\x00\x01\x02\xff\xfe\r\n\r\n', /upstream_protocol_error/],
  'HTTP/2 frames': ['\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80', /upstream_protocol_error/],
  'a status of two digits': ['HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'a status of four digits': ['HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'status 099': ['HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'HTTP/3.7': ['HTTP/3.7 200 OK\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'a header with a control byte': [
    'HTTP/1.1 200 OK\r\nx: a\x01b\r\ncontent-length: 0\r\n\r\n',
    /upstream_protocol_error/,
  ],
  'a header with a NUL': ['HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'a header with a bare CR': [
    'HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\ncontent-length: 0\r\n\r\n',
    /upstream_protocol_error/,
  ],
  'a header without a name': ['HTTP/1.1 200 OK\r\n: x\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'a header name with a space': ['HTTP/1.1 200 OK\r\nx y: z\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'a reason with a control byte': ['HTTP/1.1 200 O\x01K\r\ncontent-length: 0\r\n\r\n', /upstream_protocol_error/],
  'a negative Content-Length': ['HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello', /upstream_protocol_error/],
  'a Content-Length that is no number': [
    'HTTP/1.1 200 OK\r\ncontent-length: 0x10\r\n\r\nhello',
    /upstream_protocol_error/,
  ],
  'a huge Content-Length': [
    'HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nx',
    /upstream_protocol_error/,
  ],
  'two Content-Lengths that differ': [
    'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab',
    /upstream_protocol_error/,
  ],
  'Content-Length and chunks': [
    'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    /upstream_protocol_error/,
  ],
  '100 Continue that nobody asked for': ['HTTP/1.1 100 Continue\r\n\r\n', /upstream_protocol_error/],
  '101 that nobody asked for': [
    'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n',
    /upstream_protocol_error/,
  ],
  '17 interim answers': ['HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n'.repeat(17), /upstream_protocol_error/],
  'a flood of interim answers': [`${'HTTP/1.1 102 P\r\n\r\n'.repeat(5000)}${answer()}`, /upstream_protocol_error/],
};

e2e('junk instead of an answer is a 502, and the next request works', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, timeouts: { headersMs: 3000 } });
  for (const [name, [bytes, code]] of Object.entries(junk)) {
    upstream.script = (_request, connection) => connection.send(bytes);
    const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: '{}' });
    t.equal(got.status, 502, `${name}: ${got.text}`);
    t.match(got.code, code, name);
    t.equal(got.get('x-should-retry'), 'false', `${name}: it may have been run`);
    upstream.script = (_request, connection) => connection.send(answer('well'));
    t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'well', `after ${name}`);
  }
});

e2e('16 interim answers pass as they are, and the answer behind them arrives', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send('HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n'.repeat(16)).send(answer());
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x');
  for (let i = 0; i < 16; i++) {
    const { status, headers } = await client.head();
    t.equal(status, 103);
    t.same(headers, [['link', '<x>']]);
  }
  const got = await client.answer();
  t.equal(got.status, 200);
  t.equal(got.body.toString(), 'ok');
  const old = await rig.client(proxy);
  old.send('GET /ai/x HTTP/1.0\r\nhost: a\r\n\r\n');
  t.equal((await old.head()).status, 200, 'HTTP/1.0 knows none');
});

const badWithin: Record<string, string> = {
  'a bad chunk size': `${chunkedHead()}${chunk('good')}zz\r\nbad`,
  'a chunk longer than its size': `${chunkedHead()}${chunk('good')}2\r\ntoolong\r\n`,
  'a negative chunk size': `${chunkedHead()}${chunk('good')}-1\r\n\r\n`,
  'a huge chunk size': `${chunkedHead()}${chunk('good')}fffffffffffffffff\r\nx`,
  'a trailer with a control byte': `${chunkedHead()}${chunk('good')}0\r\nx: \x01\r\n\r\n`,
};

e2e('junk within an answer resets the client and the next request works', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const [name, bytes] of Object.entries(badWithin)) {
    const [head, ...rest] = bytes.split('good\r\n');
    upstream.script = async (_request, connection) => {
      connection.send(`${head}good\r\n`);
      await until('the first chunk has arrived', () => client.text.includes('good'));
      connection.send(rest.join(''));
    };
    const client = await rig.sent(proxy, '/ai/x');
    t.equal((await client.head()).status, 200);
    t.equal(String(await client.piece()), 'good');
    t.equal((await client.rest()).ending, 'reset', name);
    upstream.script = (_request, connection) => connection.send(answer('well'));
    t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'well', `after ${name}`);
  }
});

e2e('more bytes than declared are not taken for the next answer', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${answer('first')}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison`);
  });
  const proxy = await rig.one({ url: upstream.url, pool: { connections: 1 } });
  const client = await rig.sent(proxy, '/ai/x');
  t.equal((await client.answer()).body.toString(), 'first');
  upstream.script = (_request, connection) => connection.send(answer('second'));
  client.send('GET /ai/y HTTP/1.1\r\nhost: a\r\n\r\n');
  const got = await client.answer();
  t.not(got.body.toString(), 'poison');
  t.equal(got.body.toString(), 'second');
  t.equal(upstream.connections.length, 2, 'the poisoned connection is gone');
});

for (const [kind, warm] of [
  ['a used idle connection', 0],
  ['a warmed connection that was never used', 1],
] as const) {
  e2e(`a byte on ${kind} destroys it`, async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url, pool: { warm } });
    if (warm === 0) t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
    await until('a connection is idle', () => proxy.pool().idle === 1);
    upstream.connections[0]!.send('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison');
    await until('it is destroyed', () => upstream.connections[0]!.left);
    t.equal(proxy.pool().closed_by.unexpected_bytes, 1);
    t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'ok');
    t.ok(upstream.requests.at(-1)!.connection.index > 0);
  });
}

e2e('an answer before the request was sent is never given to a client', async (t, rig) => {
  // The poison comes with the accept: it may arrive before, with or after the request.
  const script: Script = (_request, connection) => connection.send(answer('honest'));
  const upstream = await rig.upstream(script, {
    onConnection: (connection) => {
      if (connection.index === 0) connection.send('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison');
    },
  });
  const proxy = await rig.one({ url: upstream.url, pool: { warm: 1 } });
  await until(
    'the poisoned one is gone and another is warm',
    () => proxy.pool().closed === 1 && proxy.pool().idle === 1,
  );
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'honest');
});

e2e('an upstream that accepts and closes at once gives an error, not a hang', async (t, rig) => {
  for (const how of ['end', 'resetAndDestroy'] as const) {
    const upstream = await rig.upstream(() => {}, { onConnection: (connection) => connection[how]() });
    const proxy = await rig.one({ url: upstream.url });
    const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: '{}' });
    t.equal(got.status, 502);
    t.match(got.code, /upstream_reset|connect_failed/);
  }
});

e2e('one bad stream among many does not disturb the others', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    connection.send(chunkedHead() + chunk('1'));
    await until('all are streaming', () => upstream.requests.length === 10);
    if (request.target === '/bad') connection.send('zz\r\n');
    else connection.send(`${chunk('2')}0\r\n\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const asks = Array.from({ length: 10 }, (_, i) => rig.ask(proxy, i === 4 ? '/ai/bad' : `/ai/${i}`));
  const got = await Promise.all(asks);
  t.equal(got.filter(({ ending, body }) => ending === 'clean' && body.toString() === '12').length, 9);
  t.equal(got[4]!.ending, 'reset');
});
