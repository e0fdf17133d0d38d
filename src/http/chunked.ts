// Decodes a chunked body. Strict: CRLF only, plain hexadecimal sizes, bounded extensions and trailers (RFC 9112 section 7.1).

import { isTokenByte } from './request-line.ts';

const CR = 0x0d;
const LF = 0x0a;
const HT = 0x09;
const COLON = 0x3a;
const SEMICOLON = 0x3b;
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

/** Feed it bytes; it hands out the body's. */
export class ChunkedDecoder {
  #state: State = State.Size;
  #digits = 0;
  #left = 0;
  #extension = 0;
  #trailer = 0;
  /** Length of the name in the trailer line under way. */
  #line = 0;
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
        if (c === CR) this.#state = State.SizeLf;
        else if ((c < 0x20 && c !== HT) || c === 0x7f) this.problem = 'a chunk extension has a control character';
        else if (++this.#extension > MAX_EXTENSION_BYTES) this.problem = 'a chunk extension is too long';
        return;
      case State.SizeLf:
        if (c !== LF) this.problem = 'a chunk size is not followed by CRLF';
        else if (this.#left === 0) this.#state = State.TrailerName;
        else this.#state = State.Data;
        this.#digits = 0;
        this.#extension = 0;
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
        else this.#state = this.#line === 0 ? State.Done : State.TrailerName;
        this.#line = 0;
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

  /** Trailers are read to their end and dropped; what is no field may be the next request, sent behind an end of body that was left out. */
  #trailerByte(c: number): void {
    if (++this.#trailer > MAX_TRAILER_BYTES) this.problem = 'the trailers are too long';
    else if (this.#state === State.TrailerName) {
      if (isTokenByte(c)) this.#line++;
      else if (c === COLON && this.#line > 0) this.#state = State.TrailerValue;
      else if (c === CR && this.#line === 0) this.#state = State.TrailerLf;
      else this.problem = 'a trailer line is not a field';
    } else if (c === CR) this.#state = State.TrailerLf;
    else if ((c < 0x20 && c !== HT) || c === 0x7f) this.problem = 'a trailer has a control character';
  }
}
