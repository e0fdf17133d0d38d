// An upstream's answer head: what goes on to the client, and what aiproxy needs to know about its body.

import { sameName } from '../fields.ts';
import { connectionTokens, dropNamed, namesNoField } from './request-head.ts';

export interface ResponseHead {
  /** Flat raw pairs for the client: case, order and duplicates kept, hop-by-hop fields gone. */
  readonly headers: string[];
  /** Declared length of the body; -1 = not declared. */
  contentLength: number;
  chunked: boolean;
  /** Why it may not be passed on, or ''. */
  problem: string;
}

/**
 * @param raw flat pairs of name and value bytes as undici's parser gives them
 * @param status 204 and 304 and answers to HEAD have no body whatever they declare; the declared length still passes
 */
export function readResponseHead(raw: readonly Buffer[], status: number): ResponseHead {
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
          if (status === 204 || head.contentLength >= 0) continue;
          head.contentLength = Number(value);
        }
        break;
      case 16:
        if (sameName(name, 'proxy-connection')) continue;
        break;
      case 17:
        if (sameName(name, 'transfer-encoding')) {
          // undici undoes `chunked` alone: with another coding the client would get coded bytes that nothing names.
          if (head.chunked || value.length !== 7 || !sameName(value, 'chunked'))
            head.problem = 'its Transfer-Encoding is not just chunked';
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
  if (connection !== '' && !namesNoField(connection)) dropNamed(headers, connectionTokens(connection));
  return head;
}
