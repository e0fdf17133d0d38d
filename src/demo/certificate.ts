// Makes X.509 certificates at run time, so that the demo and the tests need neither openssl nor key files in the repository.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';
import { isIP } from 'node:net';
import * as der from './der.ts';

/** A key and its certificate, both PEM; `name` is the certificate's common name. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
  readonly name: string;
}

export interface CertificateOptions {
  /** DNS names and IP addresses it is valid for; the first one becomes the common name. */
  readonly names: readonly string[];
  /** Default: one hour ago, for clocks that disagree. */
  readonly notBefore?: Date;
  /** Default: in 30 days. */
  readonly notAfter?: Date;
  /** Who signs it; without one it signs itself. */
  readonly issuer?: Certificate;
}

const HOUR_MS = 3_600_000;
const ECDSA_WITH_SHA256 = der.sequence(der.objectId('1.2.840.10045.4.3.2'));
const OID = {
  commonName: '2.5.4.3',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
};
// RFC 5280 4.2.1.3, as BIT STRINGs: the first bit is digitalSignature, the sixth keyCertSign, the seventh cRLSign.
const SIGNS_HANDSHAKES = der.bitString(Buffer.from([0b1000_0000]), 7);
const SIGNS_CERTIFICATES = der.bitString(Buffer.from([0b0000_0110]), 1);

/** An ECDSA P-256 certificate for a server (or a client). */
export function makeCertificate(options: CertificateOptions): Certificate {
  const [name] = options.names;
  if (name === undefined) throw new RangeError('a certificate needs at least one name');
  return issue(name, options, [
    extension(OID.basicConstraints, der.sequence(), true),
    extension(OID.keyUsage, SIGNS_HANDSHAKES, true),
    extension(OID.extendedKeyUsage, der.sequence(der.objectId(OID.serverAuth), der.objectId(OID.clientAuth))),
    extension(OID.subjectAltName, der.sequence(...options.names.map(alternativeName))),
  ]);
}

/** A certificate that may sign others: pass it as `issuer`, and its `cert` as a client's `ca`. */
export function makeAuthority(name = 'aiproxy demo authority'): Certificate {
  return issue(name, { names: [name] }, [
    extension(OID.basicConstraints, der.sequence(der.boolean(true)), true),
    extension(OID.keyUsage, SIGNS_CERTIFICATES, true),
  ]);
}

function issue(name: string, options: CertificateOptions, extensions: Buffer[]): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { issuer } = options;
  const signer = issuer ? createPrivateKey(issuer.key) : privateKey;
  const now = Date.now();
  // Strict verifiers (Python 3.13) want both key ids; on a self-signed certificate they are the same.
  const signerKeyId = keyId(issuer ? createPublicKey(issuer.cert) : publicKey);
  const body = der.sequence(
    der.explicit(0, der.integer(Buffer.from([2]))), // version 3
    der.integer(serialNumber()),
    ECDSA_WITH_SHA256,
    commonName(issuer ? issuer.name : name),
    der.sequence(
      der.time(options.notBefore ?? new Date(now - HOUR_MS)),
      der.time(options.notAfter ?? new Date(now + 30 * 24 * HOUR_MS)),
    ),
    commonName(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    der.explicit(
      3,
      der.sequence(
        ...extensions,
        extension(OID.subjectKeyId, der.octetString(keyId(publicKey))),
        extension(OID.authorityKeyId, der.sequence(der.implicit(0, signerKeyId))),
      ),
    ),
  );
  const signature = sign('sha256', body, signer);
  return {
    cert: pem('CERTIFICATE', der.sequence(body, ECDSA_WITH_SHA256, der.bitString(signature))),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    name,
  };
}

function extension(oid: string, contents: Buffer, critical = false): Buffer {
  const parts = [der.objectId(oid), der.octetString(contents)];
  if (critical) parts.splice(1, 0, der.boolean(true));
  return der.sequence(...parts);
}

function commonName(name: string): Buffer {
  return der.sequence(der.set(der.sequence(der.objectId(OID.commonName), der.utf8String(name))));
}

/** GeneralName of RFC 5280 4.2.1.6: [2] dNSName or [7] iPAddress. */
function alternativeName(name: string): Buffer {
  const family = isIP(name);
  if (family === 0) return der.implicit(2, Buffer.from(name, 'ascii'));
  return der.implicit(7, family === 4 ? Buffer.from(name.split('.').map(Number)) : ipv6Bytes(name));
}

function ipv6Bytes(address: string): Buffer {
  // The URL parser expands an embedded IPv4 tail; what is left to do is `::`.
  const canonical = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = '', tail] = canonical.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return Buffer.from(groups.map((group) => group.padStart(4, '0')).join(''), 'hex');
}

/** RFC 5280 4.2.1.2 method 1: SHA-1 of the public key's bits, which end a P-256 key's encoding as 65 bytes. */
function keyId(key: KeyObject): Buffer {
  return createHash('sha1')
    .update(key.export({ type: 'spki', format: 'der' }).subarray(-65))
    .digest();
}

function serialNumber(): Buffer {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40; // positive and never zero
  return bytes;
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
