// Random and mutated raw requests through the real listener to a recording upstream, with node:http's strict parser as the oracle:
// what arrives upstream is exactly what Node reads in the same bytes, request by request, and what Node rejects never arrives.
// `npm run fuzz -- --requests 100000` runs more of them; FUZZ_SEED repeats a run.

import t from 'tap';
import { RequestField, RequestFuzz } from '../support/fuzz/request-field.ts';
import { REQUEST_CASE, type RequestCase, SMUGGLED } from '../support/fuzz/request-grammar.ts';
import { runCases, runsAndSeed } from '../support/fuzz/run.ts';

const { runs, seed } = runsAndSeed(5000);

t.setTimeout(100_000 + runs * 50);

// ---- cases that went wrong once, or would with a proxy that others have written

const HEAD = 'POST /ai/x HTTP/1.1\r\nHost: proxy\r\n';
const KNOWN: Readonly<Record<string, string>> = {
  'content-length and chunked': `${HEAD}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  'chunked, then content-length': `${HEAD}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  'two content-lengths': `${HEAD}Content-Length: 0\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
  'a folded transfer-encoding': `${HEAD}X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  'a space before the colon': `${HEAD}Content-Length : ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
  'HTTP/1.0 with chunked': `POST /ai/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  'a chunked DELETE (CVE-2026-29057)': `DELETE /ai/x HTTP/1.1\r\nHost: proxy\r\nTransfer-Encoding: chunked\r\n\r\n${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`,
  'a GET with a body that is a request': `GET /ai/x HTTP/1.1\r\nHost: proxy\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
  'the end of the body left out': `${HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n${SMUGGLED}`,
  'a request behind the last one': `${HEAD}Connection: close\r\nContent-Length: 5\r\n\r\nhello${SMUGGLED}`,
  'a head ended by CR': `${HEAD}X: y\r\n\r${SMUGGLED}`,
  'a request line ended by LF': `POST /ai/x HTTP/1.1\nHost: proxy\nContent-Length: 0\n\n${SMUGGLED}`,
  'an extension with a quoted line end': `${HEAD}Transfer-Encoding: chunked\r\n\r\n5;a="\r\nhello\r\n0\r\n\r\n${SMUGGLED}`,
  'connection names the framing': `${HEAD}Connection: content-length\r\nContent-Length: 5\r\n\r\nhello${SMUGGLED}`,
  'a CONNECT to a path': `CONNECT /ai/x HTTP/1.1\r\nHost: proxy\r\n\r\n${SMUGGLED}`,
  'a Proxy-Connection that says close': `${HEAD}Proxy-Connection: close\r\nContent-Length: 5\r\n\r\nhello${SMUGGLED}`,
  'an unknown method': `FOO /ai/x HTTP/1.1\r\nHost: proxy\r\n\r\n${SMUGGLED}`,
};

t.test('requests known to split, hide or double others', async (t) => {
  for (const bodyBufferBytes of [256 << 10, 3]) {
    const field = await RequestField.start(bodyBufferBytes);
    for (const [name, text] of Object.entries(KNOWN)) {
      for (const cuts of [[], [text.indexOf('\r\n\r\n') + 4], [text.length - SMUGGLED.length]]) {
        await t.resolves(field.run(text, cuts), `${name}, cut at ${cuts}, buffer ${bodyBufferBytes}`);
      }
    }
    await field.close();
  }
});

/** Found by random cases: what was wrong then stands before each. Mended in the tests themselves, where they say so. */
const FOUND: Readonly<Record<string, RequestCase>> = {
  // The test itself could not go on behind a method that Node does not know, to no upstream (seed 20261124, case 45884).
  'a HEAD behind an unknown method': {
    text: 'get / HTTP/1.1\r\nhost:proxy:8080\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\nHEAD / HTTP/1.1\r\nHost: proxy\r\n\r\nGET /ai/x HTTP/1.1\r\nHost: proxy\r\n\r\n',
    cuts: [],
    streamed: false,
  },
};

t.test('requests that went wrong once', async (t) => {
  const fuzz = await RequestFuzz.start();
  for (const [name, one] of Object.entries(FOUND)) await t.resolves(fuzz.check(one), name);
  await fuzz.close();
});

t.test(`${runs} random cases, seed ${seed}`, async (t) => {
  const fuzz = await RequestFuzz.start();
  const failure = await runCases(REQUEST_CASE, (one) => fuzz.check(one), runs, seed);
  t.equal(failure, null, failure ? `seed ${failure.seed}: ${failure.message}` : 'all hold');
  const { forwarded, refused } = fuzz.counts;
  t.comment(`forwarded ${forwarded}, refused ${refused}`);
  t.ok(forwarded > runs / 5, 'a good part of the cases gets through');
  t.ok(refused > runs / 5, 'and a good part is refused');
  t.equal(fuzz.bugs, 0, 'no bug was met');
  await fuzz.close();
});
