// The one way a string is escaped in canonical JSON: as JSON.stringify would, into a buffer.

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const HEX = Buffer.from('0123456789abcdef', 'latin1');

/** @returns the code unit of the escape at a backslash (RFC 8259 section 7), -1 = not a valid one */
export function escapedUnit(bytes: Buffer, at: number): number {
  switch (bytes[at + 1]) {
    case QUOTE:
      return QUOTE;
    case BACKSLASH:
      return BACKSLASH;
    case 0x2f:
      return 0x2f;
    case 0x62:
      return 0x08;
    case 0x66:
      return 0x0c;
    case 0x6e:
      return 0x0a;
    case 0x72:
      return 0x0d;
    case 0x74:
      return 0x09;
    case 0x75:
      return unitOfHex(bytes, at + 2);
    default:
      return -1;
  }
}

function unitOfHex(bytes: Buffer, at: number): number {
  let unit = 0;
  for (let i = at; i < at + 4; i++) {
    // NaN behind the end, which is no digit.
    const c = bytes[i] ?? Number.NaN;
    const letter = c | 0x20;
    if (c >= 0x30 && c <= 0x39) unit = unit * 16 + c - 0x30;
    else if (letter >= 0x61 && letter <= 0x66) unit = unit * 16 + letter - 0x57;
    else return -1;
  }
  return unit;
}

/**
 * Writes one code point, escaped only if it must be; never longer than its shortest escape.
 * A lone surrogate stays an escape: UTF-8 has no place for it.
 * @returns where the next one goes
 */
export function putCodePoint(out: Buffer, end: number, code: number): number {
  if (code < 0x80) return putAscii(out, end, code);
  if (code >= 0xd800 && code <= 0xdfff) return putUnicodeEscape(out, end, code);
  let at = end;
  if (code < 0x800) out[at++] = 0xc0 | (code >> 6);
  else {
    if (code < 0x10000) out[at++] = 0xe0 | (code >> 12);
    else {
      out[at++] = 0xf0 | (code >> 18);
      out[at++] = 0x80 | ((code >> 12) & 0x3f);
    }
    out[at++] = 0x80 | ((code >> 6) & 0x3f);
  }
  out[at++] = 0x80 | (code & 0x3f);
  return at;
}

function putAscii(out: Buffer, end: number, code: number): number {
  const short = shortEscape(code);
  if (short > 0) {
    out[end] = BACKSLASH;
    out[end + 1] = short;
    return end + 2;
  }
  if (code < 0x20) return putUnicodeEscape(out, end, code);
  out[end] = code;
  return end + 1;
}

/** 0 = has none, or needs none. */
function shortEscape(code: number): number {
  switch (code) {
    case QUOTE:
    case BACKSLASH:
      return code;
    case 0x08:
      return 0x62;
    case 0x09:
      return 0x74;
    case 0x0a:
      return 0x6e;
    case 0x0c:
      return 0x66;
    case 0x0d:
      return 0x72;
    default:
      return 0;
  }
}

function putUnicodeEscape(out: Buffer, end: number, unit: number): number {
  out[end] = BACKSLASH;
  out[end + 1] = 0x75;
  for (let i = 0; i < 4; i++) out[end + 2 + i] = HEX[(unit >> (12 - 4 * i)) & 0xf]!;
  return end + 6;
}
