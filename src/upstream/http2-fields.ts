// Heads in HTTP/2 words: what a request says, and what an answer said.

import { Readable } from 'node:stream';
import { sameName } from '../fields.ts';

/**
 * Flat pairs for node:http2. Connection's own fields were dropped at the entrance; node lower-cases the names.
 * @param body what is in memory gets its length; a stream's, if it is known, is among the headers already
 */
export function requestFields(
  method: string,
  authority: string,
  path: string,
  headers: readonly string[],
  body: Buffer | Readable | null,
): string[] {
  const fields = [':method', method, ':scheme', 'https', ':authority', authority, ':path', path];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!;
    // Part of an offer to change the protocol (RFC 7540 section 3.2.1), and refused by node.
    if (name.length === 14 && sameName(name, 'http2-settings')) continue;
    fields.push(name, headers[i + 1]!);
  }
  if (body === null) {
    // As undici says it: no body, as opposed to one whose length is not known.
    if (method === 'POST' || method === 'PUT' || method === 'PATCH') fields.push('content-length', '0');
  } else if (!(body instanceof Readable)) fields.push('content-length', String(body.length));
  return fields;
}

/** What RFC 9113 section 6.5.2 adds for each field. */
const FIELD_OVERHEAD = 32;

/** Bytes of a head that node may let through; what is beyond is no head but a flood. */
export function headListBytes(maxHeadBytes: number, maxHeaders: number): number {
  return 2 * maxHeadBytes + FIELD_OVERHEAD * 2 * maxHeaders;
}

/** Of names and values, as undici counts them. */
export function headBytes(raw: readonly string[]): number {
  let bytes = 0;
  for (let i = 0; i < raw.length; i++) bytes += raw[i]!.length;
  return bytes;
}

/** The fields without `:status`, as undici gives them. */
export function rawFields(raw: readonly string[]): Buffer[] {
  const bytes: Buffer[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i] === ':status') continue;
    bytes.push(Buffer.from(raw[i]!, 'latin1'), Buffer.from(raw[i + 1]!, 'latin1'));
  }
  return bytes;
}
