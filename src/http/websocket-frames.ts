// Follows the frames of one direction of a WebSocket (RFC 6455 section 5.2) by counting their bytes: nothing is copied, nothing changed.
// Only between two frames may a frame of ours be put in; that this is so also within a fragmented message is section 5.4.

import { randomBytes } from 'node:crypto';

const FIN = 0x80;
const MASKED = 0x80;
const BINARY = 0x2;
const CLOSE = 0x8;
const PONG = 0xa;
/** Longest payload of a control frame; beyond it a longer length field follows. */
const SHORT = 125;
const LENGTH_16 = 126;
const LENGTH_64 = 127;
/** The longest header, and the code of a Close frame behind it. */
const MOST = 14 + 2;

/** Says that a Close frame had no code of its own (RFC 6455 section 7.1.5). Never on the wire. */
export const NO_CODE = 1005;

export class FrameWatch {
  /** Whole messages that have passed. */
  messages = 0;
  /** Of the Close frame that has passed whole; 0 = none has. What follows it is no frame. */
  closeCode = 0;
  /** These bytes are no frames: they are no longer looked at. */
  lost = false;
  readonly #fromClient: boolean;
  /** The bytes of a header, and of a Close frame its code, as they come. */
  readonly #head = new Uint8Array(MOST);
  #have = 0;
  #need = 2;
  /** Of the payload still to come. */
  #left = 0;
  #endsMessage = false;
  #code = 0;

  /** @param fromClient a client's frames are masked, a server's are not */
  constructor(fromClient: boolean) {
    this.#fromClient = fromClient;
  }

  /** What has passed ends between two frames, and not behind the last one. */
  get atBoundary(): boolean {
    return !this.lost && this.closeCode === 0 && this.#have === 0 && this.#left === 0;
  }

  /**
   * Bytes that pass.
   * @param oneFrame stop where the frame that these bytes belong to ends
   * @returns how many of them have passed: all but for that
   */
  pass(bytes: Uint8Array, oneFrame = false): number {
    let at = 0;
    while (at < bytes.length && !this.lost && this.closeCode === 0) {
      if (this.#left === 0) {
        at = this.#readHead(bytes, at);
        if (this.#have < this.#need || this.lost) continue;
      }
      const step = Math.min(this.#left, bytes.length - at);
      this.#left -= step;
      at += step;
      if (this.#left > 0) break;
      this.#frameEnded();
      if (oneFrame) return at;
    }
    return bytes.length;
  }

  /** @returns where the header, or these bytes, ended */
  #readHead(bytes: Uint8Array, from: number): number {
    const head = this.#head;
    let at = from;
    while (at < bytes.length && this.#have < this.#need) {
      head[this.#have++] = bytes[at++]!;
      if (this.#have === 2) this.#need = this.#headLength();
    }
    if (this.#have === this.#need && !this.lost) this.#headIsWhole();
    return at;
  }

  /** Known from the first two bytes, as is whether this can be a frame at all. */
  #headLength(): number {
    const opcode = this.#head[0]! & 0x0f;
    const length = this.#head[1]! & 0x7f;
    const isControl = opcode >= CLOSE;
    const isKnown = opcode <= BINARY || (isControl && opcode <= PONG);
    const isWell = !isControl || (length <= SHORT && (this.#head[0]! & FIN) !== 0);
    if (!isKnown || !isWell || (this.#head[1]! & MASKED) !== (this.#fromClient ? MASKED : 0)) this.lost = true;
    if (opcode === CLOSE && length === 1) this.lost = true;
    const more = length === LENGTH_16 ? 2 : length === LENGTH_64 ? 8 : 0;
    return 2 + more + (this.#fromClient ? 4 : 0) + (opcode === CLOSE ? Math.min(2, length) : 0);
  }

  #headIsWhole(): void {
    const head = this.#head;
    const view = new DataView(head.buffer);
    const opcode = head[0]! & 0x0f;
    let length = head[1]! & 0x7f;
    if (length === LENGTH_16) length = view.getUint16(2);
    else if (length === LENGTH_64) length = view.getUint32(2) * 2 ** 32 + view.getUint32(6);
    if (length > Number.MAX_SAFE_INTEGER) this.lost = true;
    this.#endsMessage = opcode <= BINARY && (head[0]! & FIN) !== 0;
    this.#left = length;
    if (opcode !== CLOSE) return;
    this.#code = NO_CODE;
    if (length === 0) return;
    this.#left -= 2;
    const at = this.#need - 2;
    const mask = this.#fromClient ? view.getUint16(at - 4) : 0;
    this.#code = view.getUint16(at) ^ mask;
  }

  #frameEnded(): void {
    this.#have = 0;
    this.#need = 2;
    if (this.#endsMessage) this.messages++;
    this.closeCode = this.#code;
  }
}

/** A Close frame of a server. @param reason at most 123 bytes */
export function closeFrame(code: number, reason: string): Buffer {
  const frame = Buffer.alloc(4 + Buffer.byteLength(reason));
  frame[0] = FIN | CLOSE;
  frame[1] = frame.length - 2;
  frame.writeUInt16BE(code, 2);
  frame.write(reason, 4);
  return frame;
}

/** The same of a client. */
export function maskedCloseFrame(code: number, reason: string): Buffer {
  const frame = closeFrame(code, reason);
  const mask = randomBytes(4);
  const payload = frame.subarray(2).map((byte, i) => byte ^ mask[i % 4]!);
  return Buffer.concat([Buffer.of(frame[0]!, MASKED | payload.length), mask, payload]);
}
