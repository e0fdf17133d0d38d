// An upstream's answer head: what goes on to the client, and what aiproxy needs to know about its body.

import { sameName } from '../fields.ts';
import { connectionTokens, dropNamed, namesNoField, wholeLength } from './request-head.ts';

export interface ResponseHead {
  /** Flat raw pairs for the client: case, order and duplicates kept, hop-by-hop fields gone. */
  readonly headers: string[];
  /** Declared length of the body; -1 = not declared. */
  contentLength: number;
  chunked: boolean;
  /** Why it may not be passed on, or ''. */
  problem: string;
}

/** More interim (1xx) answers than this are a flood. */
export const MAX_INTERIM = 16;
const HTTP_1_0 = 10;
const HTTP_1_1 = 11;

/**
 * @param raw flat pairs of name and value bytes as undici's parser gives them
 * @param status 304 and answers to HEAD have no body whatever they declare; the declared length still passes. 204 and 1xx have no length
 * @param version 11 = HTTP/1.1
 */
export function readResponseHead(raw: readonly Buffer[], status: number, version = HTTP_1_1): ResponseHead {
  const headers: string[] = [];
  const head: ResponseHead = { headers, contentLength: -1, chunked: false, problem: '' };
  let connection = '';
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toString('latin1');
    const value = raw[i + 1]!.toString('latin1');
    switch (name.length) {
      case 7:
        if (sameName(name, 'upgrade') || sameName(name, 'trailer')) continue;
        break;
      case 10:
        if (sameName(name, 'connection')) {
          connection = connection ? `${connection},${value}` : value;
          continue;
        }
        if (sameName(name, 'keep-alive')) continue;
        break;
      case 14:
        if (sameName(name, 'content-length')) {
          if (status === 204 || status < 200) continue;
          if (head.contentLength >= 0) head.problem = 'it has more than one Content-Length';
          head.contentLength = wholeLength(value);
          // undici also takes what no number holds, and trips over a blank behind it.
          if (head.contentLength < 0) head.problem = 'its Content-Length is not a number';
        }
        break;
      case 16:
        if (sameName(name, 'proxy-connection')) continue;
        break;
      case 17:
        if (sameName(name, 'transfer-encoding')) {
          // undici undoes `chunked` alone: with another coding the client would get coded bytes that nothing names.
          if (head.chunked || !isChunked(value)) head.problem = 'its Transfer-Encoding is not just chunked';
          if (version === HTTP_1_0) head.problem = 'HTTP/1.0 has no Transfer-Encoding';
          head.chunked = true;
          continue;
        }
        break;
      case 18:
        if (sameName(name, 'proxy-authenticate')) continue;
        break;
    }
    headers.push(name, value);
  }
  if (head.chunked && head.contentLength >= 0) head.problem = 'it has both Content-Length and Transfer-Encoding';
  // undici takes HTTP/0.9 and HTTP/2.0 in a status line too.
  if (version !== HTTP_1_1 && version !== HTTP_1_0) head.problem = 'its status line is not of HTTP/1.1 or HTTP/1.0';
  if (connection !== '' && !namesNoField(connection)) dropNamed(headers, connectionTokens(connection));
  return head;
}

/** A blank behind it is no part of it, and undici leaves it there. */
function isChunked(coding: string): boolean {
  const text = coding.length === 7 ? coding : coding.trimEnd();
  return text.length === 7 && sameName(text, 'chunked');
}
