// Decodes a chunked body. Strict: CRLF only, plain hexadecimal sizes, bounded extensions and trailers (RFC 9112 section 7.1).

import { isTokenByte } from './request-line.ts';

const CR = 0x0d;
const LF = 0x0a;
const HT = 0x09;
const COLON = 0x3a;
const SEMICOLON = 0x3b;
const EQUALS = 0x3d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** 13 hex digits stay below 2^53. */
const MAX_SIZE_DIGITS = 13;
/** Bytes of extensions in one chunk line, and of all trailers. */
const MAX_EXTENSION_BYTES = 256;
const MAX_TRAILER_BYTES = 8192;
/** Chunks up to here are moved next to the one before: a body of one-byte chunks must not become as many Buffers of 100 bytes each. */
const MOVE_BELOW = 4096;

const State = {
  Size: 0,
  Extension: 1,
  SizeLf: 2,
  Data: 3,
  DataCr: 4,
  DataLf: 5,
  /** at the start of a trailer line, or within its name */
  TrailerName: 6,
  TrailerValue: 7,
  TrailerLf: 8,
  Done: 9,
} as const;
type State = (typeof State)[keyof typeof State];

/** Where in `;name=value` or `;name="quoted"` an extension is (RFC 9112 section 7.1.1, without its optional white space). */
const Extension = {
  BeforeName: 0,
  Name: 1,
  BeforeValue: 2,
  Value: 3,
  Quoted: 4,
  Escaped: 5,
  AfterQuote: 6,
} as const;
type Extension = (typeof Extension)[keyof typeof Extension];

/** Feed it bytes; it hands out the body's. */
export class ChunkedDecoder {
  #state: State = State.Size;
  #digits = 0;
  #left = 0;
  #extension: Extension = Extension.BeforeName;
  #extensionBytes = 0;
  #trailer = 0;
  /** Name of the trailer under way, lower case. */
  #name = '';
  /** What is wrong, or ''. */
  problem = '';

  get done(): boolean {
    return this.#state === State.Done;
  }

  /**
   * @param bytes are ours: the body's are moved together over its framing, what follows the body stays as it is
   * @param emit gets slices of `bytes`, no copies
   * @returns the position of the first byte that does not belong to this body, or `bytes.length`; with `problem` set, any number
   */
  feed(bytes: Buffer, from: number, emit: (chunk: Buffer) => void): number {
    let i = from;
    // The body's bytes that were read but not emitted yet.
    let start = from;
    let end = from;
    while (i < bytes.length && this.#state !== State.Done && this.problem === '') {
      if (this.#state !== State.Data) {
        this.#step(bytes[i++]!);
        continue;
      }
      const size = Math.min(bytes.length - i, this.#left);
      if (start === end) start = i;
      else if (size <= MOVE_BELOW) bytes.copyWithin(end, i, i + size);
      else {
        emit(bytes.subarray(start, end));
        start = i;
      }
      end = start === i ? i + size : end + size;
      i += size;
      this.#left -= size;
      if (this.#left === 0) this.#state = State.DataCr;
    }
    if (start < end) emit(bytes.subarray(start, end));
    return i;
  }

  #step(c: number): void {
    switch (this.#state) {
      case State.Size:
        this.#size(c);
        return;
      case State.Extension:
        this.#extensionByte(c);
        return;
      case State.SizeLf:
        if (c !== LF) this.problem = 'a chunk size is not followed by CRLF';
        else if (this.#left === 0) this.#state = State.TrailerName;
        else this.#state = State.Data;
        this.#digits = 0;
        this.#extension = Extension.BeforeName;
        this.#extensionBytes = 0;
        return;
      case State.DataCr:
        if (c !== CR) this.problem = 'a chunk is longer than its size';
        this.#state = State.DataLf;
        return;
      case State.DataLf:
        if (c !== LF) this.problem = 'a chunk is not followed by CRLF';
        this.#state = State.Size;
        return;
      case State.TrailerName:
      case State.TrailerValue:
        this.#trailerByte(c);
        return;
      case State.TrailerLf:
        if (c !== LF) this.problem = 'a trailer line has a bare CR';
        else this.#state = this.#name === '' ? State.Done : State.TrailerName;
        this.#name = '';
        return;
    }
  }

  #size(c: number): void {
    const lower = c | 0x20;
    const digit = c >= 0x30 && c <= 0x39 ? c - 0x30 : lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
    if (digit >= 0) {
      if (++this.#digits > MAX_SIZE_DIGITS) this.problem = 'a chunk size is too large';
      this.#left = this.#left * 16 + digit;
    } else if (this.#digits === 0) this.problem = 'a chunk size is not a hexadecimal number';
    else if (c === CR) this.#state = State.SizeLf;
    else if (c === SEMICOLON) this.#state = State.Extension;
    else this.problem = 'a chunk size is not a hexadecimal number';
  }

  /** Extensions are read to their end and dropped. */
  #extensionByte(c: number): void {
    const at = this.#extension;
    if (++this.#extensionBytes > MAX_EXTENSION_BYTES + 1) this.problem = 'a chunk extension is too long';
    else if (at === Extension.Escaped || (at === Extension.Quoted && c !== QUOTE)) {
      if ((c < 0x20 && c !== HT) || c === 0x7f) this.problem = 'a chunk extension has a control character';
      this.#extension = at === Extension.Quoted && c === BACKSLASH ? Extension.Escaped : Extension.Quoted;
    } else if (at === Extension.Quoted) this.#extension = Extension.AfterQuote;
    else if (isTokenByte(c) && at !== Extension.AfterQuote)
      this.#extension = at <= Extension.Name ? Extension.Name : Extension.Value;
    else if (c === QUOTE && at === Extension.BeforeValue) this.#extension = Extension.Quoted;
    else if (c === EQUALS && at === Extension.Name) this.#extension = Extension.BeforeValue;
    else if (at === Extension.BeforeName || at === Extension.BeforeValue || (c !== SEMICOLON && c !== CR))
      this.problem = 'a chunk extension is not one';
    else if (c === CR) this.#state = State.SizeLf;
    else this.#extension = Extension.BeforeName;
  }

  /** Trailers are read to their end and dropped; what is no field may be the next request, sent behind an end of body that was left out. */
  #trailerByte(c: number): void {
    if (++this.#trailer > MAX_TRAILER_BYTES) this.problem = 'the trailers are too long';
    else if (this.#state === State.TrailerName) {
      if (isTokenByte(c)) this.#name += String.fromCharCode(c).toLowerCase();
      else if (c === COLON && this.#name !== '') {
        this.#state = State.TrailerValue;
        // RFC 9110 section 6.5.1
        if (this.#name === 'content-length' || this.#name === 'transfer-encoding')
          this.problem = 'a trailer says how long the body is';
      } else if (c === CR && this.#name === '') this.#state = State.TrailerLf;
      else this.problem = 'a trailer line is not a field';
    } else if (c === CR) this.#state = State.TrailerLf;
    else if ((c < 0x20 && c !== HT) || c === 0x7f) this.problem = 'a trailer has a control character';
  }
}
