// Reads the certificates and keys of upstreams and listeners, and makes sure that they are what they are named.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { resolve } from 'node:path';
import type { ReadText } from './files.ts';
import { writtenListens } from './listens.ts';
import { place, show } from './mistakes.ts';
import { type Path, pathKey, valueAt } from './path.ts';
import { fields } from './rules.ts';
import type { Mistake, Tree } from './tree.ts';

export interface Pems {
  /** PEM text by the value of its key: a path, or the text itself. */
  readonly texts: ReadonlyMap<string, string>;
  readonly mistakes: readonly Mistake[];
}

type Kind = 'ca' | 'client_ca' | 'cert' | 'key';

const OF_UPSTREAM: readonly Kind[] = ['ca', 'cert', 'key'];
const OF_LISTENER: readonly Kind[] = ['client_ca', 'cert', 'key'];
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** Works on the tree as it was read, so that a bad certificate is told together with all other mistakes. */
export function readPems(raw: unknown, tree: Tree, directory: string, readText: ReadText): Pems {
  const texts = new Map<string, string>();
  const mistakes: Mistake[] = [];
  for (const [path, kinds] of tlsSections(raw)) {
    const found: { [kind in Kind]?: string } = {};
    for (const kind of kinds) {
      const at = [...path, kind];
      const value = valueAt(raw, at);
      if (typeof value !== 'string' || value.trim() === '' || tree.missing.has(pathKey(at))) continue;
      const pem = readPem(kind, value, tree.templates.has(pathKey(at)), directory, readText);
      if ('problem' in pem) mistakes.push(mistake(pem.problem, value, at, tree));
      else {
        texts.set(value, pem.text);
        found[kind] = pem.text;
      }
    }
    if (found.cert === undefined || found.key === undefined || belong(found.cert, found.key)) continue;
    const at = [...path, 'key'];
    mistakes.push(mistake('must be the private key of tls.cert', valueAt(raw, at), at, tree));
  }
  return { texts, mistakes };
}

function tlsSections(raw: unknown): [Path, readonly Kind[]][] {
  const names = Object.keys(fields(valueAt(raw, ['upstreams'])));
  return [
    ...names.map((name): [Path, readonly Kind[]] => [['upstreams', name, 'tls'], OF_UPSTREAM]),
    ...writtenListens(raw).flatMap(({ tlsPath }): [Path, readonly Kind[]][] =>
      tlsPath === null ? [] : [[tlsPath, OF_LISTENER]],
    ),
  ];
}

export function isPemText(value: string): boolean {
  return value.trimStart().startsWith('-----BEGIN ');
}

function readPem(
  kind: Kind,
  value: string,
  fromElsewhere: boolean,
  directory: string,
  readText: ReadText,
): { text: string } | { problem: string } {
  const inline = isPemText(value);
  if (inline && kind === 'key' && !fromElsewhere) {
    return { problem: 'must be a file path, ${NAME} or ${file:path}: a private key has no place in this file' };
  }
  const read = inline ? { text: value } : readText(resolve(directory, value));
  if ('problem' in read) return { problem: `must be a readable PEM file (${read.problem})` };
  const problem = kind === 'key' ? keyProblem(read.text) : certificateProblem(read.text);
  return problem === null ? read : { problem };
}

function certificateProblem(text: string): string | null {
  const certificates = text.match(CERTIFICATE) ?? [];
  if (certificates.length === 0) return 'must be a PEM certificate (-----BEGIN CERTIFICATE-----)';
  try {
    for (const certificate of certificates) new X509Certificate(certificate);
    return null;
  } catch {
    return 'must be a PEM certificate, and this one is damaged';
  }
}

function keyProblem(text: string): string | null {
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text))
    return 'must be a PEM private key (-----BEGIN PRIVATE KEY-----)';
  if (/ENCRYPTED/.test(text)) return 'must be a PEM private key without a passphrase';
  try {
    createPrivateKey(text);
    return null;
  } catch {
    return 'must be a PEM private key, and this one is damaged';
  }
}

function belong(cert: string, key: string): boolean {
  return new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
}

function mistake(rule: string, value: unknown, path: Path, tree: Tree): Mistake {
  return { path, at: place(path, tree), rule, got: show(value, path, tree) };
}
