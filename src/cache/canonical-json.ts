// One spelling for all JSON texts of one meaning: no white space, names in order, one way to escape; numbers stay as written.
import { isUtf8 } from 'node:buffer';
import { escapedUnit, putCodePoint } from './json-string.ts';

const MAX_DEPTH = 64;

const QUOTE = 0x22;
const PLUS = 0x2b;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const END = -1;

/**
 * RFC 8259 texts only, and only those that every parser reads alike.
 * @returns null where the exact bytes must do: not JSON, not UTF-8, a BOM, a name twice in one object, nested deeper than 64
 */
export function canonicalJson(bytes: Buffer): Buffer | null {
  return isUtf8(bytes) ? new Rewriter(bytes).whole() : null;
}

interface Member {
  /** Unescaped: what is compared. */
  readonly name: string;
  /** Where it was written. */
  readonly from: number;
  readonly to: number;
}

/**
 * Reads a text and writes it again, byte by byte: no canonical form is longer than any other. (Putting
 * strings together took three times as long for an array of numbers, most of it to collect them.) Each method reads one
 * thing at the cursor; false = it is not there.
 */
class Rewriter {
  readonly #in: Buffer;
  readonly #out: Buffer;
  #at = 0;
  #end = 0;
  #depth = 0;

  constructor(bytes: Buffer) {
    this.#in = bytes;
    this.#out = Buffer.allocUnsafe(bytes.length);
  }

  whole(): Buffer | null {
    if (!this.#value()) return null;
    this.#skipBlanks();
    return this.#at === this.#in.length ? this.#out.subarray(0, this.#end) : null;
  }

  #peek(): number {
    return this.#at < this.#in.length ? this.#in[this.#at]! : END;
  }

  #skipBlanks(): void {
    for (;;) {
      const c = this.#peek();
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
      this.#at++;
    }
  }

  /** Reads and writes what is under the cursor. */
  #copy(): void {
    this.#out[this.#end++] = this.#in[this.#at++]!;
  }

  #take(c: number): boolean {
    this.#skipBlanks();
    if (this.#peek() !== c) return false;
    this.#copy();
    return true;
  }

  #value(): boolean {
    this.#skipBlanks();
    const c = this.#peek();
    if (c === QUOTE) return this.#string();
    if (c === OPEN_BRACE || c === OPEN_BRACKET) return this.#nested(c);
    if (c === MINUS || (c >= ZERO && c <= NINE)) return this.#number();
    return this.#literal('true') || this.#literal('false') || this.#literal('null');
  }

  #nested(open: number): boolean {
    if (this.#depth === MAX_DEPTH) return false;
    this.#depth++;
    this.#copy();
    const whole = open === OPEN_BRACE ? this.#object() : this.#array();
    this.#depth--;
    return whole;
  }

  #array(): boolean {
    if (this.#take(CLOSE_BRACKET)) return true;
    for (;;) {
      if (!this.#value()) return false;
      if (this.#take(CLOSE_BRACKET)) return true;
      if (!this.#take(COMMA)) return false;
    }
  }

  #object(): boolean {
    if (this.#take(CLOSE_BRACE)) return true;
    const members: Member[] = [];
    for (;;) {
      this.#skipBlanks();
      const from = this.#end;
      if (this.#peek() !== QUOTE || !this.#string()) return false;
      const name = this.#name(from);
      if (!this.#take(COLON) || !this.#value()) return false;
      members.push({ name, from, to: this.#end });
      if (this.#take(CLOSE_BRACE)) return this.#arrange(members);
      if (!this.#take(COMMA)) return false;
    }
  }

  /** The string just written from there. */
  #name(from: number): string {
    const text = this.#out.toString('utf8', from, this.#end);
    return text.includes('\\') ? JSON.parse(text) : text.slice(1, -1);
  }

  /** Puts the members just written in the order of their names. False where one comes twice: parsers differ in which counts. */
  #arrange(members: Member[]): boolean {
    if (areOrdered(members)) return true;
    const start = members[0]!.from;
    const written = Buffer.from(this.#out.subarray(start, members.at(-1)!.to));
    members.sort((a, b) => (a.name < b.name ? -1 : 1));
    if (!areOrdered(members)) return false;
    let end = start;
    for (const { from, to } of members) {
      if (end > start) this.#out[end++] = COMMA;
      end += written.copy(this.#out, end, from - start, to - start);
    }
    return true;
  }

  #string(): boolean {
    this.#copy();
    for (;;) {
      const c = this.#peek();
      if (c < 0x20) return false;
      if (c === BACKSLASH) {
        if (!this.#escape()) return false;
        continue;
      }
      this.#copy();
      if (c === QUOTE) return true;
    }
  }

  #escape(): boolean {
    let code = this.#escapedUnit();
    if (code < 0) return false;
    if (code >= 0xd800 && code < 0xdc00 && this.#peek() === BACKSLASH) {
      const low = escapedUnit(this.#in, this.#at);
      if (low >= 0xdc00 && low <= 0xdfff) {
        code = 0x10000 + (code - 0xd800) * 0x400 + (low - 0xdc00);
        this.#at += 6;
      }
    }
    this.#end = putCodePoint(this.#out, this.#end, code);
    return true;
  }

  #escapedUnit(): number {
    const unit = escapedUnit(this.#in, this.#at);
    this.#at += this.#in[this.#at + 1] === 0x75 ? 6 : 2;
    return unit;
  }

  /** As written: 1.0 is not 1 to everyone, and large ones do not survive a double. */
  #number(): boolean {
    if (this.#peek() === MINUS) this.#copy();
    if (this.#peek() === ZERO) this.#copy();
    else if (!this.#digits()) return false;
    if (this.#peek() === DOT) {
      this.#copy();
      if (!this.#digits()) return false;
    }
    const c = this.#peek();
    if (c !== 0x65 && c !== 0x45) return true;
    this.#copy();
    if (this.#peek() === PLUS || this.#peek() === MINUS) this.#copy();
    return this.#digits();
  }

  /** True if there was one. */
  #digits(): boolean {
    const from = this.#at;
    while (this.#peek() >= ZERO && this.#peek() <= NINE) this.#copy();
    return this.#at > from;
  }

  #literal(word: string): boolean {
    for (let i = 0; i < word.length; i++) if (this.#in[this.#at + i] !== word.charCodeAt(i)) return false;
    for (let i = 0; i < word.length; i++) this.#copy();
    return true;
  }
}

/** By UTF-16 code units, each name once. */
function areOrdered(members: readonly Member[]): boolean {
  for (let i = 1; i < members.length; i++) if (members[i - 1]!.name >= members[i]!.name) return false;
  return true;
}
