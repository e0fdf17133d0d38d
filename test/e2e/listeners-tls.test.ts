// TLS on a listener: what it speaks, whom it lets in, and handshakes that come to nothing.

import { connect as connectTcp } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { Agent, request } from 'undici';
import { makeAuthority, makeCertificate } from '../../src/demo/certificate.ts';
import { anyPort, authority, clientTls, listenOn, serverTls } from '../support/doors.ts';
import { e2e, requestText } from '../support/rig.ts';
import { until } from '../support/until.ts';

const TLS = listenOn(anyPort, { tls: serverTls });
const mutual = listenOn(anyPort, { tls: { ...serverTls, clientCa: authority.cert } });

e2e('an ordinary client speaks HTTPS with it, many requests on few connections', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listen: [TLS] });
  const agent = new Agent({ connect: { ca: authority.cert }, allowH2: true, connections: 4 });
  const url = `https://localhost:${proxy.listen[1]!.port}/ai/x`;
  const all = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const { statusCode, body } = await request(url, { dispatcher: agent, method: 'POST', body: '{}' });
      return `${statusCode} ${await body.text()}`;
    }),
  );
  t.ok(all.every((one) => one === '200 ok'));
  t.ok(proxy.stats().listener.connections <= 4);
  await agent.close();
  await until('all have left', () => proxy.stats().listener.connections === 0);
  t.equal(proxy.stats().listener.tls_failed, 0);
});

e2e('it speaks TLS 1.2 and 1.3 and HTTP/1.1, and nothing else', async (t, rig) => {
  const proxy = await rig.one({ url: 'http://127.0.0.1:1' }, { listen: [TLS] });
  const at = proxy.listen[1]!;
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const tls = { ...clientTls, minVersion: version, maxVersion: version, ALPNProtocols: ['h2', 'http/1.1'] };
    const client = await rig.clientAt(at, tls);
    t.equal((client.socket as TLSSocket).getProtocol(), version);
    t.equal((client.socket as TLSSocket).alpnProtocol, 'http/1.1');
    client.send(requestText('/healthz'));
    t.equal((await client.answer()).status, 200);
  }
  const old = { ...clientTls, minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
  await t.rejects(rig.clientAt(at, old), /version/);
  await t.rejects(rig.clientAt(at, { ...clientTls, ALPNProtocols: ['h2'] }), /application.protocol/);
  await until('both are counted', () => proxy.stats().listener.tls_failed === 2);
});

e2e('with client_ca only who shows a certificate of it comes in, a resumed session too', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listen: [mutual] });
  const at = proxy.listen[1]!;
  const { cert, key } = makeCertificate({ names: ['caller'], issuer: authority });
  const good = await rig.clientAt(at, { ...clientTls, cert, key });
  let session: Buffer | undefined;
  (good.socket as TLSSocket).on('session', (ticket) => {
    session = ticket;
  });
  good.send(requestText('/ai/x'));
  t.equal((await good.answer()).status, 200);
  await until('it has a ticket', () => session);
  const again = await rig.clientAt(at, { ...clientTls, cert, key, session });
  again.send(requestText('/ai/x'));
  t.equal((await again.answer()).status, 200);
  const stranger = makeCertificate({ names: ['caller'], issuer: makeAuthority('another') });
  for (const shown of [{}, { cert: stranger.cert, key: stranger.key }, makeCertificate({ names: ['caller'] })]) {
    const { tls_failed } = proxy.stats().listener;
    // With TLS 1.3 a client has its handshake done before it hears that it was refused.
    const client = await rig.clientAt(at, { ...clientTls, ...shown }).catch(() => null);
    client?.send(requestText('/ai/x'));
    await client?.ended();
    t.equal(client?.text ?? '', '');
    await until('it is counted', () => proxy.stats().listener.tls_failed === tls_failed + 1);
  }
  t.equal(upstream.requests.length, 2);
});

e2e('whatever comes instead of a handshake closes its connection, is counted, and disturbs nobody', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listen: [TLS] });
  const at = proxy.listen[1]!;
  const well = await rig.clientAt(at, clientTls);
  const junk = [requestText('/ai/x'), '\x16\x03\x01\xff\xff', '\x16\x03\x01\x00\x05hello', '\x00'.repeat(5000)];
  for (const [i, bytes] of junk.entries()) {
    const client = await rig.clientAt(at);
    client.send(bytes);
    if (bytes.length === 5) client.halfClose();
    await client.ended();
    await until('it is counted', () => proxy.stats().listener.tls_failed === i + 1);
    t.notMatch(client.text, 'HTTP/1.1');
  }
  const gone = await rig.clientAt(at);
  gone.send('\x16\x03\x01');
  gone.reset();
  await until('a reset too', () => proxy.stats().listener.tls_failed === junk.length + 1);
  // A probe that only looks whether somebody listens is no failure.
  const probe = await rig.clientAt(at);
  probe.destroy();
  await until('only the good one is left', () => proxy.stats().listener.connections === 1);
  t.equal(proxy.stats().listener.tls_failed, junk.length + 1);
  well.send(requestText('/ai/x'));
  t.equal((await well.answer()).status, 200);
  t.equal(upstream.requests.length, 1);
});

e2e('junk behind a good handshake closes the connection and cancels what runs on it', async (_t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url }, { listen: [TLS] });
  const raw = connectTcp(proxy.listen[1]!.port, '127.0.0.1');
  const secure = connect({ socket: raw, servername: 'localhost', ...clientTls });
  secure.on('error', () => {});
  secure.write(requestText('/ai/x'));
  await upstream.request(0);
  raw.write(Buffer.alloc(100, 0x17));
  await until('the upstream is cancelled', () => upstream.connections[0]!.left);
  await until('it is closed', () => proxy.stats().listener.connections === 0);
  secure.destroy();
  raw.destroy();
});

e2e('a handshake must be over within head_timeout, however steadily it drips', async (t, rig) => {
  const proxy = await rig.one({ url: 'http://127.0.0.1:1' }, { listen: [TLS], listener: { headTimeoutMs: 300 } });
  const at = proxy.listen[1]!;
  const started = performance.now();
  const silent = await rig.clientAt(at);
  const dripping = await rig.clientAt(at);
  dripping.send('\x16\x03\x01\x02\x00');
  const drip = setInterval(() => dripping.send('\x01'), 20);
  t.equal(proxy.stats().listener.connections, 2, 'they count');
  await Promise.all([silent.ended(), dripping.ended()]);
  clearInterval(drip);
  const took = performance.now() - started;
  t.ok(took > 280 && took < 1500, `after ${took} ms`);
  await until('both are counted', () => proxy.stats().listener.tls_failed === 2);
  await until('and gone', () => proxy.stats().listener.connections === 0);
});

e2e('a handshake that is not over does not hold up a drain', async (t, rig) => {
  const proxy = await rig.one({ url: 'http://127.0.0.1:1' }, { listen: [TLS] });
  const half = await rig.clientAt(proxy.listen[1]!);
  half.send('\x16\x03\x01');
  await until('it is there', () => proxy.stats().listener.connections === 1);
  const started = performance.now();
  t.equal(await proxy.assembly.drain.start(), 0);
  t.ok(performance.now() - started < 1000);
  t.equal(proxy.stats().listener.tls_failed, 0, 'that was our doing');
});

e2e('each listener shows its own certificate', async (t, rig) => {
  const other = makeCertificate({ names: ['other.test'], issuer: authority });
  const second = listenOn(anyPort, { tls: { cert: other.cert, key: other.key, clientCa: null } });
  const proxy = await rig.one({ url: 'http://127.0.0.1:1' }, { listen: [TLS, second] });
  const first = await rig.clientAt(proxy.listen[1]!, clientTls);
  t.equal((first.socket as TLSSocket).getPeerCertificate().subject.CN, 'localhost');
  const named = await rig.clientAt(proxy.listen[2]!, { ...clientTls, servername: 'other.test' });
  t.equal((named.socket as TLSSocket).getPeerCertificate().subject.CN, 'other.test');
});

e2e('an unusable certificate stops the start with one clear line that names the listener', async (t, rig) => {
  const { key } = makeCertificate({ names: ['x'] });
  for (const tls of [
    { ...serverTls, key },
    { cert: 'junk', key: 'junk', clientCa: null },
  ]) {
    await t.rejects(
      rig.one({ url: 'http://127.0.0.1:1' }, { listen: [listenOn(anyPort, { tls })] }),
      /^listener 127\.0\.0\.1:0: its tls material is not usable: .+$/,
    );
  }
});
