// What a request for a WebSocket comes to when it does not come to one, and what the upstream sees of it.

import { e2e, requestText } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';
import { frame, OPENING, SWITCHED } from '../support/websocket.ts';

const websocket = { max: 10 };
const ask = { headers: OPENING };

e2e('an upstream without `websocket` takes none, and hears nothing of it', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x', ask);
  t.match(got, { status: 403, code: 'websocket_off' });
  t.equal(got.get('connection'), 'close', 'what follows an offer to switch may be anything');
  t.equal(upstream.connections.length, 0);
  t.match(proxy.stats().listener.refused, { websocket_off: 1 });
});

for (const [what, text] of Object.entries({
  'a POST': requestText('/ai/x', { method: 'POST', headers: OPENING }),
  'a request with a body': requestText('/ai/x', { headers: OPENING, body: 'x' }),
  'a chunked body': requestText('/ai/x', { headers: `${OPENING}transfer-encoding: chunked\r\n` }),
  'HTTP/1.0': requestText('/ai/x', ask).replace('HTTP/1.1', 'HTTP/1.0'),
})) {
  e2e(`${what} begins no WebSocket`, async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url, websocket });
    const client = (await rig.client(proxy)).send(text);
    t.match(await client.answer(), { status: 400, code: 'bad_request' });
    t.equal(upstream.connections.length, 0);
  });
}

e2e('beyond `websocket.max` one is refused, and its place comes back', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(SWITCHED), { allowHalfOpen: false });
  const proxy = await rig.one({ url: upstream.url, websocket: { max: 2 } });
  const clients = [await rig.sent(proxy, '/ai/x', ask), await rig.sent(proxy, '/ai/x', ask)];
  for (const client of clients) t.equal((await client.head()).status, 101);
  const refused = await rig.ask(proxy, '/ai/x', ask);
  t.match(refused, { status: 503, code: 'websocket_limit' });
  t.equal(refused.get('retry-after'), '1');
  t.equal(refused.get('x-should-retry'), undefined);
  t.equal(upstream.connections.length, 2);
  clients[0]!.reset();
  await until('its place', () => proxy.upstream().websocket!.open === 1);
  t.equal((await (await rig.sent(proxy, '/ai/x', ask)).head()).status, 101);
  t.match(proxy.upstream().websocket, { open: 2, max: 2, opened: 3, refused: 1 });
  t.match(
    proxy.exchanges.map(({ status, failure }) => [status, failure]),
    [
      [503, 'websocket_limit'],
      [101, 'client_gone'],
    ],
  );
});

e2e(
  'the request arrives byte for byte as far as it is the client’s, with Host and fields of the target',
  async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(SWITCHED), { allowHalfOpen: false });
    const target = {
      url: `${upstream.url}/base`,
      headers: [['api-key', 'the target’s own'.replace('’', "'")]] as const,
    };
    const proxy = await rig.one({ targets: [target], websocket });
    const path = '/v1/a%2Fb;c=1/\'(x)!*$&,@:~+=%20%e4/?a=[1]&b={|}&c=%00"<>^`';
    const headers = `${OPENING}Api-Key: mine\r\nX-Twice: 1\r\nx-twice: 2\r\nx-latin: \xe9\r\nX-Aiproxy-Operation: op\r\nSec-WebSocket-Protocol: a, b\r\n`;
    const client = await rig.sent(proxy, `/ai${path}`, { headers });
    t.equal((await client.head()).status, 101);
    const request = await upstream.request();
    t.equal(request.target, `/base${path}`);
    t.equal(request.text.split('\r\n')[0], `GET /base${path} HTTP/1.1`);
    t.same(request.all('host'), [new URL(upstream.url).host]);
    t.same(request.all('connection'), ['Upgrade']);
    t.same(request.all('upgrade'), ['websocket']);
    t.same(request.all('api-key'), ["the target's own"]);
    t.same(request.all('x-twice'), ['1', '2']);
    t.same(request.all('x-latin'), ['\xe9']);
    t.same(request.all('sec-websocket-protocol'), ['a, b']);
    t.same(request.all('sec-websocket-key'), ['dGhlIHNhbXBsZSBub25jZQ==']);
    t.ok(request.get('authorization')?.startsWith('Bearer '));
    t.same(
      request.headers
        .map(([name]) => name.toLowerCase())
        .filter((name) => /aiproxy|content-length|transfer|forwarded/.test(name)),
      [],
    );
  },
);

e2e('the answer of the switch passes as it is, less what belongs to the connection', async (t, rig) => {
  const upstream = await rig.upstream(
    (_request, connection) =>
      connection.send(
        'HTTP/1.1 101 Why Not\r\nupGrade: WebSocket\r\nconnection: x-mine, upgrade\r\nx-mine: 1\r\nKeep-Alive: timeout=1\r\n' +
          'Content-Length: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nSec-WebSocket-Protocol: p\r\n\r\n\x81\x02hi',
      ),
    { allowHalfOpen: false },
  );
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await rig.sent(proxy, '/ai/x', ask);
  const head = await client.head();
  t.equal(head.status, 101);
  t.same(head.headers, [
    ['Connection', 'Upgrade'],
    ['Upgrade', 'websocket'],
    ['Set-Cookie', 'a=1'],
    ['Set-Cookie', 'b=2'],
    ['Sec-WebSocket-Protocol', 'p'],
  ]);
  await until('what came with it', () => client.text.endsWith('\x81\x02hi'));
});

e2e('an answer that is no switch passes like any other', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.target === '/whole') {
      connection.send(
        answer(
          '{"error":"no key"}',
          'Content-Type: application/json\r\nX-Request-Id: 7\r\nConnection: x-y\r\nX-Y: 1\r\n',
          '401 Unauthorized',
        ),
      );
    } else if (request.target === '/none') connection.send('HTTP/1.1 204 No Content\r\n\r\n');
    else if (request.target === '/close') {
      connection.send('HTTP/1.1 404 Gone Fishing\r\n\r\nuntil the end');
      connection.end();
    } else {
      connection.send(chunkedHead('', '500 Oh'));
      for (const part of ['one', 'two']) connection.send(chunk(part));
      connection.send(LAST_CHUNK);
    }
  });
  const proxy = await rig.one({ url: upstream.url, websocket });
  const whole = await rig.ask(proxy, '/ai/whole', ask);
  t.match(whole, { status: 401, reason: 'Unauthorized', ending: 'clean' });
  t.equal(String(whole.body), '{"error":"no key"}');
  t.match([whole.get('x-request-id'), whole.get('content-length'), whole.get('x-y')], ['7', '18', undefined]);
  t.equal(whole.get('connection'), 'close');
  const chunked = await rig.ask(proxy, '/ai/chunked', ask);
  t.match(chunked, { status: 500, reason: 'Oh', ending: 'clean' });
  t.equal(String(chunked.body), 'onetwo');
  t.match(await rig.ask(proxy, '/ai/none', ask), { status: 204, ending: 'clean' });
  const toClose = await rig.ask(proxy, '/ai/close', ask);
  t.match([toClose.status, toClose.ending, String(toClose.body)], [404, 'clean', 'until the end']);
  await proxy.idle();
  await until('the connections are gone', () => upstream.connections.every(({ left }) => left));
  t.same(
    proxy.exchanges.map(({ status, failure, bytes_out }) => [status, failure, bytes_out]),
    [
      [401, null, 18],
      [500, null, 6],
      [204, null, 0],
      [404, null, 13],
    ],
  );
  t.match(proxy.upstream().websocket, { opened: 0, closed_by_code: {} });
});

for (const how of ['end', 'resetAndDestroy'] as const) {
  e2e(`an answer that is cut (${how}) ends as a cut`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) =>
      connection.send(chunkedHead('', '500 Oh') + chunk('one')),
    );
    const proxy = await rig.one({ url: upstream.url, websocket });
    const client = await rig.sent(proxy, '/ai/x', ask);
    t.equal((await client.head()).status, 500);
    t.equal(String(await client.piece()), 'one');
    upstream.connections[0]![how]();
    t.equal(await client.ended(), 'reset');
    const line = await until('its line', () => proxy.exchanges[0]);
    t.match(line, { status: 500, failure: 'upstream_cut' });
  });
}

e2e('an answer of a silent upstream, and one that nobody takes, have their deadlines', async (t, rig) => {
  const big = 'x'.repeat(32 << 20);
  const upstream = await rig.upstream((request, connection) => {
    if (request.target === '/silent') connection.send(chunkedHead('', '500 Oh') + chunk('one'));
    else connection.send(answer(big, '', '500 Oh'));
  });
  const proxy = await rig.one({ url: upstream.url, websocket, timeouts: { idleMs: 100, writeStallMs: 300 } });
  const silent = await rig.sent(proxy, '/ai/silent', ask);
  t.equal(await silent.ended(), 'reset');
  const slow = await rig.client(proxy);
  slow.pause();
  slow.send(requestText('/ai/big', ask));
  await until('both lines', () => proxy.exchanges.length === 2);
  t.same(
    proxy.exchanges.map(({ failure }) => failure),
    ['idle_timeout', 'client_stalled'],
  );
});

e2e('an answer without a length that ends in a reset is a cut, and in a FIN it is whole', async (t, rig) => {
  for (const [how, ending, failure] of [
    ['resetAndDestroy', 'reset', 'upstream_cut'],
    ['end', 'clean', null],
  ] as const) {
    const upstream = await rig.upstream((_request, connection) => connection.send('HTTP/1.1 403 No\r\n\r\npart'));
    const proxy = await rig.one({ url: upstream.url, websocket });
    const client = await rig.sent(proxy, '/ai/x', ask);
    await client.head();
    t.equal(String(await client.piece()), 'part');
    upstream.connections[0]![how]();
    t.equal((await client.rest()).ending, ending);
    await proxy.idle();
    t.match(proxy.exchanges, [{ status: 403, failure }]);
  }
});

e2e('a client that leaves within such an answer takes the upstream with it', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) =>
    connection.send(chunkedHead('', '500 Oh') + chunk('one')),
  );
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await rig.sent(proxy, '/ai/x', ask);
  await client.head();
  client.halfClose();
  await until('the upstream is cancelled', () => upstream.connections[0]!.left, 500);
  await proxy.idle();
  t.match(proxy.exchanges, [{ status: 500, failure: 'client_gone' }]);
});

e2e('an upstream that says nothing runs into `headers`, and its connection is gone', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, websocket, timeouts: { headersMs: 100, totalMs: 50 }, breaker: {} });
  const got = await rig.ask(proxy, '/ai/x', ask);
  t.match(got, { status: 504, code: 'headers_timeout' });
  t.equal(got.get('x-should-retry'), 'false');
  await until('it is gone', () => upstream.connections.every(({ left }) => left));
  t.match(proxy.upstream().targets, [{ in_flight: 0, attempts: 1, failures: 1, breaker: { consecutive_failures: 1 } }]);
});

for (const leave of ['halfClose', 'reset'] as const) {
  e2e(`a client that leaves (${leave}) before the switch takes the handshake with it`, async (t, rig) => {
    const upstream = await rig.upstream(() => {});
    const proxy = await rig.one({ url: upstream.url, websocket, breaker: {} });
    const client = await rig.sent(proxy, '/ai/x', ask);
    const { connection } = await upstream.request();
    t.match(proxy.upstream(), { websocket: { open: 1, opened: 0 }, in_flight: 1 });
    client[leave]();
    await until('the upstream is cancelled', () => connection.left, 500);
    await proxy.idle();
    t.match(proxy.exchanges, [{ status: 499, failure: 'client_gone', ttfb_ms: null, close_code: null }]);
    t.match(proxy.upstream().targets, [{ failures: 0, successes: 0, breaker: { consecutive_failures: 0 } }]);
  });
}

for (const [when, send] of Object.entries({
  'with its request': [requestText('/ai/x', ask) + frame('early', { masked: true }).toString('latin1'), ''],
  'after it': [requestText('/ai/x', ask), frame('early', { masked: true }).toString('latin1')],
  'as another request': [requestText('/ai/x', ask), requestText('/ai/smuggled')],
})) {
  e2e(`bytes before the switch (${when}) are a bad request, and go nowhere`, async (t, rig) => {
    const upstream = await rig.upstream(() => {});
    const proxy = await rig.one({ url: upstream.url, websocket });
    const client = (await rig.client(proxy)).send(send[0]!);
    if (send[1]) {
      await upstream.request();
      client.send(send[1]);
    }
    const got = await client.answer();
    t.match(got, { status: 400, code: 'bad_request' });
    t.equal(await client.ended(), 'fin');
    await until('the upstream is cancelled', () => upstream.connections.every(({ left }) => left));
    t.ok(upstream.connections.every(({ text }) => !/early|smuggled/.test(text)));
    t.ok(upstream.requests.length <= 1);
    t.match(proxy.exchanges, [{ status: 400, failure: 'bad_request' }]);
  });
}

const broken: Record<string, [bytes: string, code: string]> = {
  'a switch to something else': [
    'HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n',
    'upstream_protocol_error',
  ],
  'a switch to two things': [
    'HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n',
    'upstream_protocol_error',
  ],
  'a switch without Upgrade': ['HTTP/1.1 101 X\r\nX: 1\r\n\r\n', 'upstream_protocol_error'],
  'a switch in HTTP/1.0': [SWITCHED.replace('1.1', '1.0'), 'upstream_protocol_error'],
  'a chunked switch': [
    SWITCHED.replace('\r\n\r\n', '\r\nTransfer-Encoding: chunked\r\n\r\n'),
    'upstream_protocol_error',
  ],
  'a bare CR in a field': [SWITCHED.replace('\r\n\r\n', '\r\nX: a\rInjected: 1\r\n\r\n'), 'upstream_protocol_error'],
  'a NUL in a field': [SWITCHED.replace('\r\n\r\n', '\r\nX: a\0b\r\n\r\n'), 'upstream_protocol_error'],
  'a folded field': [SWITCHED.replace('\r\n\r\n', '\r\nX: a\r\n Set-Cookie: b\r\n\r\n'), 'upstream_protocol_error'],
  'another control character in a field': [
    SWITCHED.replace('\r\n\r\n', '\r\nX: a\x01b\r\n\r\n'),
    'upstream_protocol_error',
  ],
  'no HTTP': ['SSH-2.0-OpenSSH\r\n\r\n', 'upstream_protocol_error'],
  'two lengths': ['HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx', 'upstream_protocol_error'],
  'too many fields': [SWITCHED.replace('\r\n\r\n', `\r\n${'x: 1\r\n'.repeat(30)}\r\n`), 'upstream_head_too_large'],
  'a head that is too large': [
    SWITCHED.replace('\r\n\r\n', `\r\nx: ${'y'.repeat(5000)}\r\n\r\n`),
    'upstream_head_too_large',
  ],
  'too many interim answers': [
    `${'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(17)}${SWITCHED}`,
    'upstream_protocol_error',
  ],
};
for (const [what, [bytes, code]] of Object.entries(broken)) {
  e2e(`${what} is ${code}`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(bytes));
    const proxy = await rig.one({ url: upstream.url, websocket, maxHeaders: 30, maxHeadBytes: 4096 });
    const client = await rig.sent(proxy, '/ai/x', ask);
    const got = await client.answer();
    t.match(got, { status: 502, code });
    t.equal(got.get('x-should-retry'), 'false');
    t.notMatch(client.text, /HTTP.1.1 101|Injected|Set-Cookie/, 'nothing of it got through');
    await until('the upstream is cancelled', () => upstream.connections.every(({ left }) => left));
    t.match(proxy.upstream().targets, [{ failures: 1, in_flight: 0 }]);
  });
}

e2e('as many fields as `max_headers` allows pass, and none is left out', async (t, rig) => {
  const many = SWITCHED.replace('\r\n\r\n', `\r\n${'x: y\r\n'.repeat(2500)}\r\n`);
  const upstream = await rig.upstream((_request, connection) => connection.send(many), { allowHalfOpen: false });
  const proxy = await rig.one({ url: upstream.url, websocket, maxHeaders: 3000 });
  const client = await rig.sent(proxy, '/ai/x', ask);
  const { status, headers } = await client.head();
  t.same([status, headers.length], [101, 2503]);
});

e2e('an early hint passes before the switch', async (t, rig) => {
  const upstream = await rig.upstream(
    (_request, connection) =>
      connection.send(`HTTP/1.1 103 Early Hints\r\nlink: </x>\r\nconnection: y\r\ny: 1\r\n\r\n${SWITCHED}`),
    { allowHalfOpen: false },
  );
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await rig.sent(proxy, '/ai/x', ask);
  t.match(await client.head(), { status: 103, headers: [['link', '</x>']] });
  t.equal((await client.head()).status, 101);
});

for (const how of ['end', 'resetAndDestroy'] as const) {
  e2e(`an upstream that hangs up (${how}) before it answers`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection[how]());
    const proxy = await rig.one({ url: upstream.url, websocket });
    const got = await rig.ask(proxy, '/ai/x', ask);
    t.match(got, { status: 502, code: 'upstream_reset' });
    t.equal(got.get('x-should-retry'), 'false');
    t.equal(upstream.requests.length, 1, 'it is not asked again: it may have acted');
  });
}

e2e('an offer of anything but a WebSocket is a plain request', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, websocket });
  const offers = [
    'connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n',
    'connection: Upgrade\r\nupgrade: h2c, websocket\r\n',
    'upgrade: websocket\r\n',
    'connection: Upgrade\r\nupgrade: TLS/1.0\r\n',
  ];
  const client = await rig.client(proxy);
  for (const [i, headers] of offers.entries()) {
    client.send(requestText('/ai/x', { headers }));
    const got = await client.answer();
    t.match([got.status, String(got.body)], [200, 'ok']);
    const { text } = await upstream.request(i);
    t.notMatch(text, /upgrade|h2c|http2-settings|websocket/i);
  }
  t.equal(upstream.requests.length, offers.length, 'and the connection is kept');
});

e2e('a bypass path opens one without limiter, deadlines and breaker', async (t, rig) => {
  const upstream = await rig.upstream(() => {}, { allowHalfOpen: false });
  const proxy = await rig.one({
    url: upstream.url,
    websocket,
    bypass: ['/live'],
    timeouts: { headersMs: 50 },
    breaker: {},
  });
  const client = await rig.sent(proxy, '/ai/live', ask);
  const { connection } = await upstream.request();
  await whileNothing(150);
  connection.send(SWITCHED);
  t.equal((await client.head()).status, 101);
});
