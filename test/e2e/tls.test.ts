// TLS to upstreams: own authority, names, dates, client certificates, resumption, warm connections.

import type { TLSSocket } from 'node:tls';
import { makeAuthority, makeCertificate } from '../../src/demo/certificate.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const authority = makeAuthority('test authority');
const other = makeAuthority('another authority');
const good = makeCertificate({ names: ['localhost', '127.0.0.1'], issuer: authority });

e2e('an upstream with a certificate of the configured authority is served, by address and by name', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(answer()), { tls: good });
  const proxy = await rig.one({ url: upstream.url, tls: { ca: authority.cert } });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  const { tls_ms, tcp_ms, connect_ms } = proxy.pool();
  t.equal(tls_ms.count, 1);
  t.ok(tls_ms.max > 0 && connect_ms.max >= tcp_ms.max);
  t.ok(Number(proxy.exchanges[0]!.connect_ms) > 0);
  const named = await rig.one({ url: upstream.url.replace('127.0.0.1', 'localhost'), tls: { ca: authority.cert } });
  t.equal((await rig.ask(named, '/ai/x')).status, 200);
  t.equal((upstream.connections[1]!.socket as TLSSocket).servername, 'localhost');
});

const bad = {
  'an unknown authority': makeCertificate({ names: ['127.0.0.1'], issuer: other }),
  'another name': makeCertificate({ names: ['other.test'], issuer: authority }),
  'a date gone by': makeCertificate({
    names: ['127.0.0.1'],
    issuer: authority,
    notBefore: new Date(Date.now() - 2 * 86_400_000),
    notAfter: new Date(Date.now() - 86_400_000),
  }),
  'nobody but itself': makeCertificate({ names: ['127.0.0.1'] }),
};

for (const [name, certificate] of Object.entries(bad)) {
  e2e(`a certificate of ${name} is 502 tls_failed, and no byte of the request is sent`, async (t, rig) => {
    const upstream = await rig.upstream(() => {}, { tls: certificate });
    const proxy = await rig.one({ url: upstream.url, tls: { ca: authority.cert } });
    const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'secret' });
    t.equal(got.status, 502);
    t.equal(got.code, 'tls_failed');
    t.equal(got.get('x-should-retry'), undefined);
    t.equal(upstream.requests.length, 0);
    t.ok(upstream.connections.every(({ bytes }) => bytes === 0));
    t.equal(proxy.upstream().retries, 0, 'it would not be better at once');
  });
}

e2e('servername says which name is asked for and checked', async (t, rig) => {
  const certificate = makeCertificate({ names: ['api.example.test'], issuer: authority });
  const upstream = await rig.upstream((_request, connection) => connection.send(answer()), { tls: certificate });
  const proxy = await rig.one({ url: upstream.url, tls: { ca: authority.cert, servername: 'api.example.test' } });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.equal((upstream.connections[0]!.socket as TLSSocket).servername, 'api.example.test');
});

e2e('a client certificate is shown to an upstream that asks for it', async (t, rig) => {
  const client = makeCertificate({ names: ['aiproxy'], issuer: authority });
  const upstream = await rig.upstream(
    (_request, connection) => {
      const { subject } = (connection.socket as TLSSocket).getPeerCertificate();
      connection.send(answer(String(subject?.CN)));
    },
    { tls: { ...good, ca: authority.cert, requestCert: true, rejectUnauthorized: true } },
  );
  const proxy = await rig.one({ url: upstream.url, tls: { ca: authority.cert, cert: client.cert, key: client.key } });
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'aiproxy');
  const without = await rig.one({ url: upstream.url, tls: { ca: authority.cert } });
  const refused = await rig.ask(without, '/ai/x', { method: 'POST', body: '{}' });
  t.equal(refused.status, 502);
  t.match(refused.code, /tls_failed|upstream_reset/);
});

e2e('TLS with a server that speaks none is 502 tls_failed', async (t, rig) => {
  const upstream = await rig.upstream(() => {}, {
    onConnection: (connection) => connection.send('220 smtp.test ESMTP\r\n'),
  });
  const proxy = await rig.one({ url: upstream.url.replace('http:', 'https:') });
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'tls_failed');
  const closing = await rig.upstream(() => {}, { onConnection: (connection) => connection.resetAndDestroy() });
  const cut = await rig.one({ url: closing.url.replace('http:', 'https:') });
  t.match((await rig.ask(cut, '/ai/x')).code, /tls_failed|connect_failed/);
});

e2e('warm connections have their handshake done, and later ones resume the session', async (t, rig) => {
  const resumed: boolean[] = [];
  const upstream = await rig.upstream(
    (_request, connection) => connection.send(answer('bye', 'connection: close\r\n')).end(),
    {
      tls: good,
      onConnection: ({ socket }) => resumed.push((socket as TLSSocket).isSessionReused()),
    },
  );
  const proxy = await rig.one({ url: upstream.url, tls: { ca: authority.cert }, pool: { warm: 2 } });
  await until('two are warm', () => proxy.pool().idle === 2);
  t.equal(proxy.pool().tls_ms.count, 2);
  t.ok(upstream.connections.every(({ bytes }) => bytes === 0));
  for (let i = 0; i < 4; i++) {
    t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
    await until('warm again', () => proxy.pool().idle === 2 && proxy.pool().active === 0);
  }
  t.same(resumed.slice(0, 2), [false, false]);
  t.ok(resumed.slice(2).includes(true), `a session is resumed: ${resumed}`);
});

e2e('an unusable certificate stops the start with one clear line', async (t, rig) => {
  const client = makeCertificate({ names: ['aiproxy'], issuer: authority });
  for (const tls of [
    { cert: client.cert, key: good.key },
    { cert: 'junk', key: 'junk' },
  ]) {
    await t.rejects(rig.one({ url: 'https://127.0.0.1:1', tls }), /upstream ai: its tls material is not usable/);
  }
});

e2e('a base path with TLS and a chunked answer work together', async (t, rig) => {
  const upstream = await rig.http((request, response) => {
    response.write(request.url);
    response.end('!');
  }, good);
  const proxy = await rig.one({ url: `${upstream.url}/api/v2`, tls: { ca: authority.cert } });
  const got = await rig.ask(proxy, '/ai/x?y=1');
  t.equal(got.body.toString(), '/api/v2/x?y=1!');
  t.equal(upstream.sockets, 1);
});
