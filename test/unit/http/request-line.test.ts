// Request heads: what is taken apart and how, and everything that is refused because two parsers might read it differently.

import t from 'tap';
import { hasBareLineFeed, isTokenByte, parseHeadLines } from '../../../src/http/request-line.ts';

const LINE = 'GET /ai/x HTTP/1.1\r\n';

t.test('a head is taken apart byte for byte', async (t) => {
  const head = parseHeadLines(
    'POST /ai/x?y=%20 HTTP/1.1\r\nHost: a\r\nX-Mixed: \t one  two\t \r\nempty:\r\nblank: \t\r\nx:1:2\r\n',
  );
  t.same(head, {
    method: 'POST',
    url: '/ai/x?y=%20',
    http10: false,
    raw: ['Host', 'a', 'X-Mixed', 'one  two', 'empty', '', 'blank', '', 'x', '1:2'],
  });
});

t.test('HTTP/1.0, a head without fields, and a method nobody knows are fine', async (t) => {
  t.same(parseHeadLines('GET / HTTP/1.0\r\n'), { method: 'GET', url: '/', http10: true, raw: [] });
  t.match(parseHeadLines("M-x!#$%&'*+.^_`|~9 / HTTP/1.1\r\n"), { method: "M-x!#$%&'*+.^_`|~9" });
});

t.test('bytes beyond ASCII pass in a value, each as one character', async (t) => {
  const all = Array.from({ length: 128 }, (_, i) => String.fromCharCode(128 + i)).join('');
  t.match(parseHeadLines(`${LINE}x: a${all}b\r\n`), { raw: ['x', `a${all}b`] });
});

t.test('names such as __proto__ are names like any other', async (t) => {
  t.match(parseHeadLines(`${LINE}__proto__: 1\r\nconstructor: 2\r\n`), { raw: ['__proto__', '1', 'constructor', '2'] });
});

const REFUSED: Record<string, [string, RegExp]> = {
  'an empty text': ['', /does not begin/],
  'only a line end': ['\r\n', /does not begin/],
  'no target (HTTP/0.9 without one)': ['GET\r\n', /does not begin/],
  'HTTP/0.9': ['GET /\r\n', /does not begin/],
  'HTTP/0.9 with a long target': ['GET /aaaaaaaaaaaaaaaaaaaaaa\r\n', /does not begin/],
  'an empty target': ['GET  HTTP/1.1\r\n', /does not begin/],
  'a space before the method': [' GET / HTTP/1.1\r\n', /does not begin/],
  'a tab after the method': ['GET\t/ HTTP/1.1\r\n', /not a token/],
  'two spaces before the target': ['GET  / HTTP/1.1\r\n', /percent-encoded/],
  'two spaces before the version': ['GET /  HTTP/1.1\r\n', /percent-encoded/],
  'a tab before the version': ['GET /\tHTTP/1.1\r\n', /does not begin/],
  'a space in the target': ['GET /a b HTTP/1.1\r\n', /percent-encoded/],
  'a tab in the target': ['GET /a\tb HTTP/1.1\r\n', /percent-encoded/],
  'a NUL in the target': ['GET /a\0b HTTP/1.1\r\n', /percent-encoded/],
  'a DEL in the target': ['GET /a\x7fb HTTP/1.1\r\n', /percent-encoded/],
  'a target beyond ASCII': ['GET /caf\xe9 HTTP/1.1\r\n', /percent-encoded/],
  'a bare CR in the target': ['GET /a\rb HTTP/1.1\r\n', /percent-encoded/],
  'a bare LF in the target': ['GET /a\nb HTTP/1.1\r\n', /percent-encoded/],
  'a second request line behind a bare LF': ['GET / HTTP/1.1\nGET /b HTTP/1.1\r\n', /percent-encoded/],
  'a second request line behind a bare CR': ['GET / HTTP/1.1\rGET /b HTTP/1.1\r\n', /percent-encoded/],
  'a space after the version': ['GET / HTTP/1.1 \r\n', /does not begin/],
  'a lower-case http': ['GET / http/1.1\r\n', /HTTP\/1.1 and HTTP\/1.0/],
  'HTTP/1.2': ['GET / HTTP/1.2\r\n', /HTTP\/1.1 and HTTP\/1.0/],
  'HTTP/2.0': ['PRI * HTTP/2.0\r\n', /HTTP\/1.1 and HTTP\/1.0/],
  'HTTP/0.9 with a version': ['GET / HTTP/0.9\r\n', /HTTP\/1.1 and HTTP\/1.0/],
  'HTTP/1.10': ['GET / HTTP/1.10\r\n', /does not begin/],
  'HTTP/01.1': ['GET / HTTP/01.1\r\n', /does not begin/],
  'HTTP/1,1': ['GET / HTTP/1,1\r\n', /HTTP\/1.1 and HTTP\/1.0/],
  'another protocol': ['GET / RTSP/1.1\r\n', /HTTP\/1.1 and HTTP\/1.0/],
  'a method with a colon': ['Host: / HTTP/1.1\r\n', /not a token/],
  'a method beyond ASCII': ['G\xc9T / HTTP/1.1\r\n', /not a token/],
  'a method with a NUL': ['G\0T / HTTP/1.1\r\n', /not a token/],
  'white space before the first field': [`${LINE} x: 1\r\n`, /begin with a name/],
  'a tab before the first field': [`${LINE}\tx: 1\r\n`, /begin with a name/],
  'a folded line': [`${LINE}x: 1\r\n 2\r\n`, /begin with a name/],
  'a line folded with a tab': [`${LINE}x: 1\r\n\t2\r\n`, /begin with a name/],
  'a space before the colon': [`${LINE}content-length : 1\r\n`, /followed by a colon/],
  'a tab before the colon': [`${LINE}content-length\t: 1\r\n`, /followed by a colon/],
  'no colon': [`${LINE}x\r\n`, /followed by a colon/],
  'no name': [`${LINE}: 1\r\n`, /begin with a name/],
  'an empty line in the middle': [`${LINE}\r\nx: 1\r\n`, /begin with a name/],
  'a name with a NUL': [`${LINE}x\0y: 1\r\n`, /followed by a colon/],
  'a name with a slash': [`${LINE}x/y: 1\r\n`, /followed by a colon/],
  'a name with brackets': [`${LINE}x[y]: 1\r\n`, /followed by a colon/],
  'a name beyond ASCII': [`${LINE}\xe9: 1\r\n`, /begin with a name/],
  'a bare CR before a name': [`${LINE}\rx: 1\r\n`, /begin with a name/],
  'a bare LF before a name': [`${LINE}\nx: 1\r\n`, /begin with a name/],
  'a bare LF in a value': [`${LINE}x: 1\ny: 2\r\n`, /control character/],
  'a bare CR in a value': [`${LINE}x: 1\ry: 2\r\n`, /bare CR/],
  'two CR at the end of a line': [`${LINE}x: 1\r\r\n`, /bare CR/],
  'a NUL in a value': [`${LINE}x: 1\x002\r\n`, /control character/],
  'a DEL in a value': [`${LINE}x: 1\x7f2\r\n`, /control character/],
  'a vertical tab around a value': [`${LINE}transfer-encoding: \x0bchunked\r\n`, /control character/],
  'a form feed behind a value': [`${LINE}transfer-encoding: chunked\x0c\r\n`, /control character/],
};

for (const [name, [text, why]] of Object.entries(REFUSED)) {
  t.test(`refused: ${name}`, async (t) => {
    const said = parseHeadLines(text);
    t.type(said, 'string');
    t.match(said, why);
  });
}

t.test('no control character but a tab in the middle of a value gets through, wherever it stands', async (t) => {
  for (let c = 0; c < 0x20; c++) {
    const text = `${LINE}x: a${String.fromCharCode(c)}b\r\n`;
    if (c === 0x09) t.match(parseHeadLines(text), { raw: ['x', 'a\tb'] });
    else t.type(parseHeadLines(text), 'string', `character ${c} in a value`);
    t.type(parseHeadLines(`GET /a${String.fromCharCode(c)}b HTTP/1.1\r\n`), 'string', `character ${c} in a target`);
    t.type(parseHeadLines(`G${String.fromCharCode(c)}T / HTTP/1.1\r\n`), 'string', `character ${c} in a method`);
    t.type(parseHeadLines(`${LINE}x${String.fromCharCode(c)}y: 1\r\n`), 'string', `character ${c} in a name`);
  }
});

t.test('token bytes are those of RFC 9110 and no others', async (t) => {
  const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]$/;
  for (let c = 0; c < 256; c++) t.equal(isTokenByte(c), token.test(String.fromCharCode(c)), `byte ${c}`);
});

t.test('a partial head with a line feed alone can no longer become a good one', async (t) => {
  for (const bad of ['\n', 'GET / HTTP/1.1\n', 'GET / HTTP/1.1\r\nx: 1\n', '\r\n\n', 'a\n\r\n'])
    t.equal(hasBareLineFeed(Buffer.from(bad)), true, JSON.stringify(bad));
  for (const good of ['', '\r', 'GET', 'GET / HTTP/1.1\r', 'GET / HTTP/1.1\r\n', 'GET / HTTP/1.1\r\nx: 1\r\n'])
    t.equal(hasBareLineFeed(Buffer.from(good)), false, JSON.stringify(good));
});
