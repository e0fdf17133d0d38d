// The demo's certificates, judged by node:tls.
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type ConnectionOptions, connect, createServer } from 'node:tls';
import t from 'tap';
import { type Certificate, makeAuthority, makeCertificate } from '../../../src/demo/certificate.ts';

const DAY_MS = 86_400_000;

/** 'ok', or the code of the error that a TLS client ends with. */
async function handshake(certificate: Certificate, options: ConnectionOptions): Promise<string> {
  const server = createServer({ cert: certificate.cert, key: certificate.key }, (socket) => socket.end());
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect({ ...options, host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  try {
    await once(client, 'secureConnect');
    return 'ok';
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  } finally {
    client.destroy();
    server.close();
  }
}

t.test('a certificate is accepted for each of its names', async (t) => {
  const authority = makeAuthority();
  const certificate = makeCertificate({ names: ['localhost', '*.demo.test', '127.0.0.1'], issuer: authority });
  t.equal(await handshake(certificate, { ca: authority.cert, servername: 'localhost' }), 'ok');
  t.equal(await handshake(certificate, { ca: authority.cert, servername: 'api.demo.test' }), 'ok');
  t.equal(await handshake(certificate, { ca: authority.cert }), 'ok', 'an IP address');
});

t.test('a certificate that signs itself is accepted when it is the trusted one', async (t) => {
  const certificate = makeCertificate({ names: ['localhost'] });
  t.equal(await handshake(certificate, { ca: certificate.cert, servername: 'localhost' }), 'ok');
});

t.test('a certificate is refused for a name that it does not hold', async (t) => {
  const authority = makeAuthority();
  const certificate = makeCertificate({ names: ['other.test'], issuer: authority });
  t.equal(
    await handshake(certificate, { ca: authority.cert, servername: 'localhost' }),
    'ERR_TLS_CERT_ALTNAME_INVALID',
  );
});

t.test('a certificate is refused outside its time', async (t) => {
  const issuer = makeAuthority();
  const now = Date.now();
  const options = { ca: issuer.cert, servername: 'localhost' };
  const expired = { notBefore: new Date(now - 2 * DAY_MS), notAfter: new Date(now - DAY_MS) };
  const early = { notBefore: new Date(now + DAY_MS), notAfter: new Date(now + 2 * DAY_MS) };
  t.equal(await handshake(makeCertificate({ names: ['localhost'], issuer, ...expired }), options), 'CERT_HAS_EXPIRED');
  t.equal(await handshake(makeCertificate({ names: ['localhost'], issuer, ...early }), options), 'CERT_NOT_YET_VALID');
});

t.test('a certificate is refused when another authority is trusted', async (t) => {
  const certificate = makeCertificate({ names: ['localhost'], issuer: makeAuthority() });
  const code = await handshake(certificate, { ca: makeAuthority('another').cert, servername: 'localhost' });
  t.match(code, /UNABLE_TO_(VERIFY_LEAF_SIGNATURE|GET_ISSUER_CERT)/);
});

t.test('names, times and the signer can be read back', async (t) => {
  const authority = makeAuthority();
  const notAfter = new Date('2051-02-03T04:05:06Z');
  const notBefore = new Date('2020-01-02T03:04:05Z');
  const names = ['a.test', '10.1.2.3', '::1', '2001:db8::7'];
  const read = new X509Certificate(makeCertificate({ names, issuer: authority, notBefore, notAfter }).cert);
  t.equal(
    read.subjectAltName,
    'DNS:a.test, IP Address:10.1.2.3, IP Address:0:0:0:0:0:0:0:1, IP Address:2001:DB8:0:0:0:0:0:7',
  );
  t.equal(read.validFromDate.toISOString(), notBefore.toISOString());
  t.equal(read.validToDate.toISOString(), notAfter.toISOString(), 'from 2050 on another type of time');
  t.ok(read.checkIssued(new X509Certificate(authority.cert)));
  t.ok(read.verify(new X509Certificate(authority.cert).publicKey));
  t.equal(read.ca, false);
  t.equal(new X509Certificate(authority.cert).ca, true);
});

t.test('a certificate without a name is a mistake of the caller', async (t) => {
  t.throws(() => makeCertificate({ names: [] }), RangeError);
});
