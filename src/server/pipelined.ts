// Counts the requests that wait as bytes behind a running one.

import { readRequestHead } from '../http/request-head.ts';
import { parseHeadLines } from '../http/request-line.ts';

/**
 * @param bytes begins at the start of a request
 * @returns requests begun in `bytes`, as far as their ends can be told: one that is chunked or not well formed ends the count
 */
export function countRequests(bytes: Buffer, maxHeadBytes: number): number {
  let count = 0;
  let from = 0;
  while (from < bytes.length) {
    count++;
    const end = bytes.indexOf('\r\n\r\n', from);
    if (end < 0 || end - from > maxHeadBytes) break;
    const lines = parseHeadLines(bytes.toString('latin1', from, end + 2));
    if (typeof lines === 'string') break;
    const head = readRequestHead(lines.raw, lines.http10);
    if (head.chunked || head.problem) break;
    from = end + 4 + Math.max(0, head.contentLength);
  }
  return count;
}
