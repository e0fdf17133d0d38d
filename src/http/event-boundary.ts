// Tells whether the bytes of an event stream that have passed end between two events (WHATWG HTML section 9.2.6, "Interpreting an
// event stream"): at the start, or after a blank line. There, and only there, something may be put in that is nobody's event.

const LF = 0x0a;
const CR = 0x0d;
/** Read over at the start of a stream, and nowhere else. */
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];
/** Whatever was before them, so many line ends make a blank line. */
const ENOUGH_LINE_ENDS = 4;

const Place = {
  /** in a line that has bytes */
  WithinLine: 0,
  /** a line with bytes has ended */
  AfterLine: 1,
  /** the same, by a CR: a LF that follows is the rest of its end */
  AfterLineCr: 2,
  /** a blank line has ended, or nothing has come yet */
  Between: 3,
  /** the same, by a CR: a LF that follows is the rest of its end, and does no harm where something was put in before it */
  BetweenCr: 4,
} as const;
type Place = (typeof Place)[keyof typeof Place];

export class EventBoundary {
  #place: Place = Place.Between;
  /** Bytes of the byte order mark that have come; -1 = no longer looked for. */
  #marks = 0;

  get isBetween(): boolean {
    return this.#place >= Place.Between;
  }

  /** Bytes that pass. Only the end of them is looked at. */
  pass(chunk: Uint8Array): void {
    const from = this.#marks < 0 ? 0 : this.#readMark(chunk);
    if (from === chunk.length) return;
    const first = Math.max(from, chunk.length - ENOUGH_LINE_ENDS);
    let at = chunk.length;
    while (at > first && isLineEnd(chunk[at - 1]!)) at--;
    if (at > from) this.#place = Place.WithinLine;
    for (; at < chunk.length; at++) this.#place = afterLineEnd(this.#place, chunk[at]!);
  }

  /** @returns where what follows the byte order mark begins */
  #readMark(chunk: Uint8Array): number {
    let at = 0;
    while (at < chunk.length && this.#marks < BYTE_ORDER_MARK.length && chunk[at] === BYTE_ORDER_MARK[this.#marks]) {
      at++;
      this.#marks++;
    }
    const isWhole = this.#marks === BYTE_ORDER_MARK.length;
    if (this.#marks > 0) this.#place = isWhole ? Place.Between : Place.WithinLine;
    if (at < chunk.length || isWhole) this.#marks = -1;
    return at;
  }
}

/** The first bytes of a stream, less the byte order mark. */
export function withoutByteOrderMark(bytes: Buffer): Buffer {
  const isMarked = BYTE_ORDER_MARK.every((byte, i) => bytes[i] === byte);
  return isMarked ? bytes.subarray(BYTE_ORDER_MARK.length) : bytes;
}

function isLineEnd(byte: number): boolean {
  return byte === LF || byte === CR;
}

function afterLineEnd(place: Place, byte: number): Place {
  if (byte === CR) return place === Place.WithinLine ? Place.AfterLineCr : Place.BetweenCr;
  switch (place) {
    case Place.WithinLine:
    case Place.AfterLineCr:
      return Place.AfterLine;
    default:
      return Place.Between;
  }
}
