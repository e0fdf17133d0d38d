// An entry as bytes for a shared store, and back. Bytes from there are trusted with nothing: what is not whole and sound is a miss.
import { crc32 } from 'node:zlib';
import { Entry, type EntryParts, type Terms } from './entry.ts';

/** The last byte is the version of the format. */
const MAGIC = 0x61_70_63_01;
/** magic, length of the head, length of the body, CRC-32 of all but itself: u32 each, big-endian */
const PREFIX_BYTES = 16;
const CRC_AT = 12;
/** JSON has no Infinity, and no duration here is negative. */
const FOREVER = -1;

/**
 *   "apc" version | u32 head | u32 body | u32 crc | head: JSON, all but the body | body: raw
 */
export function encodeEntry(entry: Entry): Buffer {
  const { body, terms } = entry;
  const head = JSON.stringify({
    key: entry.key,
    upstream: entry.upstream,
    uri: entry.uri,
    status: entry.status,
    reason: entry.reason,
    headers: entry.headers,
    requestAt: entry.requestAt,
    responseAt: entry.responseAt,
    terms: {
      ...terms,
      lifetimeMs: encodedMs(terms.lifetimeMs),
      initialAgeMs: encodedMs(terms.initialAgeMs),
      staleWhileRevalidateMs: encodedMs(terms.staleWhileRevalidateMs),
      staleIfErrorMs: encodedMs(terms.staleIfErrorMs),
    },
    vary: entry.vary,
    varyValues: entry.varyValues,
    costMs: entry.costMs,
    pace: entry.pace,
  });
  const headBytes = Buffer.byteLength(head);
  const bytes = Buffer.allocUnsafe(PREFIX_BYTES + headBytes + body.length);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(headBytes, 4);
  bytes.writeUInt32BE(body.length, 8);
  bytes.write(head, PREFIX_BYTES);
  body.copy(bytes, PREFIX_BYTES + headBytes);
  bytes.writeUInt32BE(checksum(bytes), CRC_AT);
  return bytes;
}

function encodedMs(ms: number): number {
  return ms === Number.POSITIVE_INFINITY ? FOREVER : ms;
}

/** @returns null for anything but what encodeEntry made */
export function decodeEntry(bytes: Buffer): Entry | null {
  if (bytes.length < PREFIX_BYTES || bytes.readUInt32BE(0) !== MAGIC) return null;
  const bodyAt = PREFIX_BYTES + bytes.readUInt32BE(4);
  if (bodyAt + bytes.readUInt32BE(8) !== bytes.length) return null;
  if (bytes.readUInt32BE(CRC_AT) !== checksum(bytes)) return null;
  const head = parsed(bytes.toString('utf8', PREFIX_BYTES, bodyAt));
  if (!isRecord(head)) return null;
  const parts = partsOf(head, ownBody(bytes, bodyAt));
  return parts && new Entry(parts);
}

function checksum(bytes: Buffer): number {
  return crc32(bytes.subarray(PREFIX_BYTES), crc32(bytes.subarray(0, CRC_AT)));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * A view keeps all of the memory below it alive: the head, which is small beside most bodies, and what a Redis client read
 * in the same piece. Where that is more than an eighth of the body it is copied, so that `max_bytes` stays true.
 */
function ownBody(bytes: Buffer, bodyAt: number): Buffer {
  const body = bytes.subarray(bodyAt);
  if (bytes.buffer.byteLength - body.length <= body.length / 8) return body;
  // Not from the pool of small buffers, which entries would keep alive for each other.
  const copy = Buffer.allocUnsafeSlow(body.length);
  body.copy(copy);
  return copy;
}

type Fields = Readonly<Record<string, unknown>>;

function partsOf(head: Fields, body: Buffer): EntryParts | null {
  const { key, upstream, uri, status, reason, headers, requestAt, responseAt, vary, varyValues, costMs, pace } = head;
  const terms = termsOf(head.terms);
  if (!terms || !isText(key) || !isText(upstream) || !isText(uri)) return null;
  if (!isStatus(status) || !isText(reason) || !isPrintable(reason)) return null;
  if (!isTexts(headers) || headers.length % 2 !== 0 || !headers.every(isPrintable)) return null;
  if (!isTexts(vary) || !isTexts(varyValues) || vary.length !== varyValues.length) return null;
  if (!isAmount(requestAt) || !isAmount(responseAt) || !isAmount(costMs)) return null;
  if (pace !== null && !isPace(pace, body.length)) return null;
  return {
    key,
    upstream,
    uri,
    status,
    reason,
    headers,
    body,
    requestAt,
    responseAt,
    terms,
    vary,
    varyValues,
    costMs,
    pace,
  };
}

function termsOf(value: unknown): Terms | null {
  if (!isRecord(value)) return null;
  const { alwaysValidate, neverStale, etag, lastModified } = value;
  const lifetimeMs = decodedMs(value.lifetimeMs);
  const initialAgeMs = decodedMs(value.initialAgeMs);
  const staleWhileRevalidateMs = decodedMs(value.staleWhileRevalidateMs);
  const staleIfErrorMs = decodedMs(value.staleIfErrorMs);
  if (lifetimeMs === null || initialAgeMs === null) return null;
  if (staleWhileRevalidateMs === null || staleIfErrorMs === null) return null;
  if (typeof alwaysValidate !== 'boolean' || typeof neverStale !== 'boolean') return null;
  if (!isText(etag) || !isPrintable(etag) || !isText(lastModified) || !isPrintable(lastModified)) return null;
  return {
    lifetimeMs,
    initialAgeMs,
    alwaysValidate,
    neverStale,
    staleWhileRevalidateMs,
    staleIfErrorMs,
    etag,
    lastModified,
  };
}

function decodedMs(value: unknown): number | null {
  if (value === FOREVER) return Number.POSITIVE_INFINITY;
  return isAmount(value) ? value : null;
}

function isRecord(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every(isText);
}

function isAmount(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value < Number.POSITIVE_INFINITY;
}

function isStatus(value: unknown): value is number {
  return Number.isInteger(value) && isAmount(value) && value >= 200 && value <= 599;
}

/** No control characters but the tab: the text may go into the head of an answer. */
function isPrintable(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if ((c < 0x20 && c !== 0x09) || c === 0x7f || c > 0xff) return false;
  }
  return true;
}

/** Pairs of offset and time; the offsets never fall and never pass the body. */
function isPace(value: unknown, bodyLength: number): value is readonly number[] {
  if (!Array.isArray(value) || value.length % 2 !== 0 || !value.every(isAmount)) return false;
  let last = 0;
  for (let i = 0; i < value.length; i += 2) {
    const offset = value[i]!;
    if (offset < last || offset > bodyLength) return false;
    last = offset;
  }
  return true;
}
