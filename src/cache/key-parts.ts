// The two things one can do with the parts of a cache key: hash them, or show them.
import { hash } from 'node:crypto';

/** How a body counts. */
export type BodyForm = 'canonical' | 'exact' | 'none';

/** Gets the parts in their order, each as often as it occurs; an absent one not at all. */
export interface PartSink {
  text(part: string, value: string): void;
  /** A value that may be a credential. */
  secret(part: string, value: string): void;
  /** The raw query that counts, without its question mark. */
  query(value: string): void;
  /** Comes once, and last. */
  body(form: BodyForm, bytes: Buffer | null): void;
}

/** Larger inputs get a buffer of their own. */
const SCRATCH_BYTES = 64 * 1024;
/** Length of the head in bytes. */
const PREFIX_BYTES = 4;

/**
 * What is hashed can be taken apart in one way only, so two different lists of parts are never the same bytes:
 *
 *   u32 length of the head | head: length ':' part length ':' value … | body to the end
 */
export class HashSink implements PartSink {
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  #head = '';
  #body: Buffer | null = null;

  text(part: string, value: string): void {
    this.#head += `${part.length}:${part}${value.length}:${value}`;
  }

  secret(part: string, value: string): void {
    this.text(part, value);
  }

  query(value: string): void {
    this.text('query', value);
  }

  body(form: BodyForm, bytes: Buffer | null): void {
    this.text('body', form);
    this.#body = bytes;
  }

  /** The SHA-256 of all parts as base64url; ready for the next key after it. */
  digest(): string {
    const head = this.#head;
    const body = this.#body;
    this.#head = '';
    this.#body = null;
    // UTF-8 has no lone surrogates. None comes from the wire, but then nobody has to know that. The two encodings cannot be
    // taken for each other: the digit a head begins with has a zero byte behind it in UTF-16 only.
    const encoding = head.isWellFormed() ? 'utf8' : 'utf16le';
    const most = PREFIX_BYTES + head.length * 3 + (body ? body.length : 0);
    const all = most <= SCRATCH_BYTES ? this.#scratch : Buffer.allocUnsafe(most);
    const length = all.write(head, PREFIX_BYTES, encoding);
    all.writeUInt32BE(length);
    let end = PREFIX_BYTES + length;
    if (body) end += body.copy(all, end);
    return hash('sha256', all.subarray(0, end), 'base64url');
  }
}

export interface BodyPart {
  readonly form: BodyForm;
  /** Length of the form that counts. */
  readonly bytes: number;
  /** First 16 hex digits, '' = no body. */
  readonly sha256: string;
}

export interface KeyPart {
  readonly part: string;
  readonly value: string | BodyPart;
}

/** Shows what counted without giving anything away: secrets as the first 8 hex digits of their SHA-256, queries as names. */
export class ShownParts implements PartSink {
  readonly parts: KeyPart[] = [];

  text(part: string, value: string): void {
    this.parts.push({ part, value });
  }

  secret(part: string, value: string): void {
    this.text(part, hash('sha256', value, 'hex').slice(0, 8));
  }

  query(value: string): void {
    const names = value.split('&').map((piece) => piece.split('=', 1)[0]);
    this.text('query', names.join('&'));
  }

  body(form: BodyForm, bytes: Buffer | null): void {
    const sha256 = bytes ? hash('sha256', bytes, 'hex').slice(0, 16) : '';
    this.parts.push({ part: 'body', value: { form, bytes: bytes ? bytes.length : 0, sha256 } });
  }
}
