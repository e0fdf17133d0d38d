// A request's head in HTTP/2 words.

import { Readable } from 'node:stream';
import t from 'tap';
import { headBytes, headListBytes, rawFields, requestFields } from '../../../src/upstream/http2-fields.ts';

const PSEUDO = (method: string) => [':method', method, ':scheme', 'https', ':authority', 'a.test', ':path', '/x?y=1'];
const fields = (method: string, headers: string[], body: Buffer | Readable | null) =>
  requestFields(method, 'a.test', '/x?y=1', headers, body);

t.test('fields keep order and duplicates behind the pseudo fields', async (t) => {
  const headers = ['X-B', '1', 'x-a', '2', 'X-B', '3'];
  t.same(fields('GET', headers, null), [...PSEUDO('GET'), ...headers]);
});

t.test('an offer to change the protocol does not pass', async (t) => {
  t.same(fields('GET', ['HTTP2-Settings', 'AAMAAABk', 'http2-settingz', '1'], null), [
    ...PSEUDO('GET'),
    'http2-settingz',
    '1',
  ]);
});

t.test('the length of a body in memory is told, and that there is none', async (t) => {
  t.same(fields('PUT', [], Buffer.from('four')).slice(8), ['content-length', '4']);
  for (const method of ['POST', 'PUT', 'PATCH']) t.same(fields(method, [], null).slice(8), ['content-length', '0']);
  for (const method of ['GET', 'HEAD', 'DELETE']) t.same(fields(method, [], null).slice(8), []);
  t.same(fields('POST', [], Readable.from([])).slice(8), [], 'of a stream it is among the headers, or not known');
});

t.test('an answer’s fields are bytes, without the pseudo fields', async (t) => {
  const raw = rawFields([':status', '200', 'x-a', 'caf\xe9', 'x-a', '']);
  t.same(
    raw.map((bytes) => bytes.toString('latin1')),
    ['x-a', 'caf\xe9', 'x-a', ''],
  );
  t.equal(headBytes(['x-a', 'caf\xe9']), 7);
});

t.test('twice the limits pass node, so that it can be told what was too large', async (t) => {
  t.equal(headListBytes(1000, 10), 2 * 1000 + 2 * 10 * 32);
});
