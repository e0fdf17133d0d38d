// The HTTP version of the answer a connection is reading. undici's parser knows it and tells nobody.

import type { Socket } from 'node:net';
// @ts-expect-error the package has types for its index only
import symbols from 'undici/lib/core/symbols.js';

const { kParser } = symbols as { readonly kParser: symbol };

/** The part of undici's parser that is looked at (lib/dispatcher/client-h1.js). */
interface Parser {
  readonly ptr: number;
  readonly llhttp?: { llhttp_get_http_major(ptr: number): number; llhttp_get_http_minor(ptr: number): number };
}

/** 11 = HTTP/1.1, 10 = HTTP/1.0, 9, 20; 11 also where the parser is another one. Only while a head is told of. */
export function answerVersion(socket: Socket): number {
  const parser = (socket as unknown as Record<symbol, Parser | null | undefined>)[kParser];
  if (!parser?.llhttp) return 11;
  return 10 * parser.llhttp.llhttp_get_http_major(parser.ptr) + parser.llhttp.llhttp_get_http_minor(parser.ptr);
}
