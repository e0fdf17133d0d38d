// Bytes that tell where they belong: a body of them that lost, gained or swapped a piece is recognised.

/** A prime number of bytes, so that a shift by any usual buffer size shows. */
const PERIOD = 65_521;
/** Letters of base64, as they come in a JSON body with an image. */
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const ONCE = Buffer.from(Array.from({ length: PERIOD }, (_, i) => ALPHABET.charCodeAt((i * 31 + (i >> 6)) & 63)));
const BYTES = Buffer.concat([ONCE, ONCE]);

/** Up to 64 kB from that place of the body on, without a copy. */
export function patternAt(offset: number, length: number): Buffer {
  const start = offset % PERIOD;
  return BYTES.subarray(start, start + Math.min(length, PERIOD));
}

/** Counts a body and says whether each byte was the right one. */
export class PatternCheck {
  bytes = 0;
  right = true;

  add(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      const expected = patternAt(this.bytes, chunk.length - at);
      if (chunk.compare(expected, 0, expected.length, at, at + expected.length) !== 0) this.right = false;
      at += expected.length;
      this.bytes += expected.length;
    }
  }
}
