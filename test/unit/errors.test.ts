// The failure table and the answers made from it, row by row.

import { readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { answerFor, FAILURES, type FailureCode } from '../../src/errors.ts';

const CODES = Object.keys(FAILURES) as FailureCode[];

/** RFC 9209 section 2.3, and nothing else. */
const PROXY_ERROR_TYPES = new Set(
  `dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited destination_ip_unroutable
  connection_refused connection_terminated connection_timeout connection_read_timeout connection_write_timeout
  connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received http_request_error
  http_request_denied http_response_incomplete http_response_header_section_size http_response_header_size
  http_response_body_size http_response_trailer_section_size http_response_trailer_size http_response_transfer_coding
  http_response_content_coding http_response_timeout http_upgrade_failed http_protocol_error proxy_internal_response
  proxy_internal_error proxy_configuration_error proxy_loop_detected`.split(/\s+/),
);

/** Written down once more by hand: a status or a promise about retries is not changed in passing. */
const EXPECTED: Record<FailureCode, [status: number, side: string, retrySafe: boolean]> = {
  bad_request: [400, 'client', false],
  invalid_target: [400, 'client', false],
  invalid_host: [400, 'client', false],
  unknown_upstream: [404, 'client', false],
  unauthorized: [401, 'client', false],
  websocket_off: [403, 'client', false],
  request_timeout: [408, 'client', true],
  headers_too_large: [431, 'client', false],
  client_gone: [499, 'client', true],
  client_stalled: [499, 'client', true],
  internal_error: [500, 'proxy', false],
  body_memory_full: [503, 'proxy', true],
  rate_limited: [429, 'proxy', true],
  websocket_limit: [503, 'proxy', true],
  breaker_open: [503, 'proxy', true],
  overloaded: [503, 'proxy', true],
  deadline_exceeded: [504, 'client', false],
  queue_full: [503, 'proxy', true],
  queue_timeout: [503, 'proxy', true],
  draining: [503, 'proxy', false],
  dns_failed: [502, 'upstream', true],
  connect_failed: [502, 'upstream', true],
  connect_timeout: [504, 'upstream', true],
  tls_failed: [502, 'upstream', true],
  upstream_reset: [502, 'upstream', false],
  upstream_cut: [502, 'upstream', false],
  upstream_protocol_error: [502, 'upstream', false],
  upstream_head_too_large: [502, 'upstream', false],
  headers_timeout: [504, 'upstream', false],
  first_event_timeout: [504, 'upstream', false],
  idle_timeout: [504, 'upstream', false],
  stream_too_slow: [504, 'upstream', false],
  total_timeout: [504, 'upstream', false],
  not_cached: [504, 'client', true],
};

function fieldsOf(headers: readonly string[]): Map<string, string> {
  const fields = new Map<string, string>();
  for (let i = 0; i < headers.length; i += 2) fields.set(headers[i]!, headers[i + 1]!);
  return fields;
}

t.test('every code has the status, side and retry promise written down for it', async (t) => {
  t.same(CODES.toSorted(), Object.keys(EXPECTED).toSorted());
  for (const code of CODES) {
    const { status, side, retrySafe } = FAILURES[code];
    t.same([status, side, retrySafe], EXPECTED[code], code);
  }
});

t.test('status and side agree: 4xx is the client’s, 502 and 504 the upstream’s, 500 and 503 ours', async (t) => {
  const sides: Record<number, string> = { 500: 'proxy', 502: 'upstream', 503: 'proxy', 504: 'upstream' };
  for (const code of CODES) {
    const { status, side, message } = FAILURES[code];
    // RFC 9111 section 5.2.1.7 wants a 504 where the client forbade asking the upstream.
    // And the deadline that passed was the caller's own.
    const ofClient = (status >= 400 && status < 500) || code === 'not_cached' || code === 'deadline_exceeded';
    // RFC 6585 section 4 has one status for who sends too much, but the limit is ours.
    const expected = code === 'rate_limited' ? 'proxy' : ofClient ? 'client' : sides[status];
    t.equal(side, expected, code);
    t.match(code, /^[a-z]+(_[a-z]+)*$/);
    t.ok(message.length > 10 && !message.endsWith('.'), message);
  }
});

t.test('every answer has the body that AI SDKs parse', async (t) => {
  for (const code of CODES) {
    const { status, body } = answerFor(code, '', 0);
    t.equal(status, FAILURES[code].status);
    t.same(
      JSON.parse(body.toString()),
      { error: { message: FAILURES[code].message, type: 'aiproxy_error', code, param: null } },
      code,
    );
    t.equal(body.at(-1), 0x0a, 'ends with a newline, for terminals');
  }
});

t.test('a detail follows the message, whatever is in it', async (t) => {
  for (const detail of ['known are a, b', '"quoted" \\ back', 'é ☃ 🚀', 'a\r\nSet-Cookie: x=1', '</script>']) {
    const { body, headers } = answerFor('unknown_upstream', detail, 0);
    t.equal(JSON.parse(body.toString()).error.message, `${FAILURES.unknown_upstream.message}: ${detail}`);
    t.equal(fieldsOf(headers).get('content-length'), String(body.length), 'bytes, not characters');
    t.notOk(headers.some((text) => text.includes('known are') || text.includes('Set-Cookie')));
  }
});

t.test('every answer has exactly its headers', async (t) => {
  for (const code of CODES) {
    const { headers, body } = answerFor(code, '', 0);
    const { status, retrySafe, proxyStatus } = FAILURES[code];
    const fields = fieldsOf(headers);
    t.equal(fields.size * 2, headers.length, 'none twice');
    const unsafe = status >= 500 && !retrySafe;
    t.same(
      Object.fromEntries(fields),
      {
        'content-type': 'application/json',
        'content-length': String(body.length),
        'x-aiproxy-error': code,
        'proxy-status': `aiproxy; error=${proxyStatus}`,
        ...(unsafe ? { 'x-should-retry': 'false' } : {}),
      },
      code,
    );
    t.ok(PROXY_ERROR_TYPES.has(proxyStatus), proxyStatus);
  }
});

t.test('a retry is forbidden exactly where a 5xx may have run', async (t) => {
  const forbidden = CODES.filter((code) => answerFor(code, '', 0).headers.includes('x-should-retry'));
  t.same(
    forbidden.toSorted(),
    [
      'deadline_exceeded',
      'draining',
      'first_event_timeout',
      'headers_timeout',
      'idle_timeout',
      'internal_error',
      'stream_too_slow',
      'total_timeout',
      'upstream_cut',
      'upstream_head_too_large',
      'upstream_protocol_error',
      'upstream_reset',
    ],
    'what never reached the upstream may be sent again',
  );
});

t.test('Retry-After comes only when given, in whole seconds', async (t) => {
  for (const code of CODES) {
    t.equal(fieldsOf(answerFor(code, '', 0).headers).get('retry-after'), undefined, code);
    for (const [seconds, said] of [
      [1, '1'],
      [0.2, '1'],
      [1.01, '2'],
      [60, '60'],
    ] as const) {
      t.equal(fieldsOf(answerFor(code, '', seconds).headers).get('retry-after'), said);
    }
  }
  t.equal(fieldsOf(answerFor('queue_full', '', -1).headers).get('retry-after'), undefined);
});

t.test('two answers share nothing', async (t) => {
  const first = answerFor('queue_full', '', 3);
  first.headers.push('server-timing', 'x');
  first.body[0] = 0;
  const second = answerFor('queue_full', '', 3);
  t.notOk(second.headers.includes('server-timing'));
  t.equal(second.body[0], 0x7b);
});

t.test('every code is provoked by an e2e test, through a proxy and its real sockets', async (t) => {
  const folder = new URL('../e2e/', import.meta.url);
  const tests = readdirSync(folder)
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => readFileSync(new URL(name, folder), 'utf8'))
    // The others ask a stats port alone, or the command line.
    .filter((text) => text.includes("from '../support/rig.ts'"))
    // What a comment or a title says proves nothing: the code must be compared with, as text of its own.
    .map((text) => text.replace(/^\s*(\/\/|\*).*$/gm, ''));
  t.ok(tests.length > 50, `${tests.length} files`);
  for (const code of CODES)
    t.ok(
      tests.some((text) => text.includes(`'${code}'`)),
      code,
    );
});
