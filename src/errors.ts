// The failure table: every way an exchange can end badly, and the one function that turns a failure into an answer.

/** Whose side a failure is on. */
export type Side = 'client' | 'proxy' | 'upstream';

interface FailureRow {
  /** Status of the answer while none has begun; 499 is for the log only (nobody is left to answer). */
  readonly status: number;
  readonly side: Side;
  /** May the client send the same request again without fear that it runs (and is billed) twice? */
  readonly retrySafe: boolean;
  /** RFC 9209 section 2.3 error type for Proxy-Status. */
  readonly proxyStatus: string;
  readonly message: string;
}

const row = (status: number, side: Side, retrySafe: boolean, proxyStatus: string, message: string): FailureRow => ({
  status,
  side,
  retrySafe,
  proxyStatus,
  message,
});

/** One row per failure code. The README has the same table with what a user should do. */
export const FAILURES = {
  bad_request: row(400, 'client', false, 'http_request_error', 'The request is not valid HTTP/1.1'),
  invalid_target: row(400, 'client', false, 'http_request_error', 'The request target is not allowed'),
  invalid_host: row(400, 'client', false, 'http_request_error', 'The Host header must be present once and well formed'),
  unknown_upstream: row(404, 'client', false, 'destination_not_found', 'No upstream has this name'),
  unauthorized: row(
    401,
    'client',
    false,
    'http_request_denied',
    'This listener takes requests with the right x-aiproxy-token only (authorize)',
  ),
  websocket_off: row(
    403,
    'client',
    false,
    'http_request_denied',
    'This upstream takes no WebSockets: set `websocket: true` for it',
  ),
  request_timeout: row(408, 'client', true, 'http_request_error', 'The request did not arrive in time'),
  headers_too_large: row(431, 'client', false, 'http_request_error', 'The request head is too large'),
  client_stalled: row(
    499,
    'client',
    true,
    'http_request_error',
    'The client took no byte of the answer within timeouts.write_stall',
  ),
  not_cached: row(
    504,
    'client',
    true,
    'proxy_internal_response',
    'The request said only-if-cached, and no stored answer may be used for it',
  ),
  deadline_exceeded: row(
    504,
    'client',
    false,
    'http_response_timeout',
    'The deadline that the caller gave has passed (x-aiproxy-deadline-ms, x-envoy-expected-rq-timeout-ms or grpc-timeout)',
  ),
  client_gone: row(499, 'client', true, 'http_request_error', 'The client left before the answer was complete'),
  internal_error: row(500, 'proxy', false, 'proxy_internal_error', 'aiproxy failed; this is a bug, please report it'),
  body_memory_full: row(
    503,
    'proxy',
    true,
    'connection_limit_reached',
    'Too many request bodies are waiting (body_memory)',
  ),
  queue_full: row(503, 'proxy', true, 'connection_limit_reached', 'The queue of the limiter is full (max_queue)'),
  queue_timeout: row(503, 'proxy', true, 'connection_limit_reached', 'No permit came free in time (queue_timeout)'),
  websocket_limit: row(
    503,
    'proxy',
    true,
    'connection_limit_reached',
    'So many WebSockets to this upstream are open already (websocket.max)',
  ),
  rate_limited: row(
    429,
    'proxy',
    true,
    'http_request_denied',
    'The rate limit of this upstream is used up (rate_limits)',
  ),
  breaker_open: row(
    503,
    'proxy',
    true,
    'destination_unavailable',
    'The upstream has failed too often and is left alone for a while (breaker)',
  ),
  overloaded: row(503, 'proxy', true, 'connection_limit_reached', 'aiproxy is short of memory or time (overload)'),
  draining: row(
    503,
    'proxy',
    false,
    'proxy_internal_response',
    'aiproxy is shutting down and could not wait for the answer',
  ),
  dns_failed: row(502, 'upstream', true, 'dns_error', "The upstream's host name could not be resolved"),
  connect_failed: row(502, 'upstream', true, 'connection_refused', 'No connection to the upstream could be opened'),
  connect_timeout: row(
    504,
    'upstream',
    true,
    'connection_timeout',
    'No connection to the upstream within timeouts.connect',
  ),
  tls_failed: row(502, 'upstream', true, 'tls_certificate_error', 'TLS with the upstream failed'),
  upstream_reset: row(
    502,
    'upstream',
    false,
    'connection_terminated',
    'The upstream closed the connection before it answered',
  ),
  upstream_cut: row(
    502,
    'upstream',
    false,
    'http_response_incomplete',
    'The upstream closed the connection within its answer',
  ),
  upstream_protocol_error: row(
    502,
    'upstream',
    false,
    'http_protocol_error',
    'The upstream did not answer with valid HTTP/1.1',
  ),
  upstream_head_too_large: row(
    502,
    'upstream',
    false,
    'http_response_header_section_size',
    "The head of the upstream's answer is too large (max_head)",
  ),
  headers_timeout: row(
    504,
    'upstream',
    false,
    'http_response_timeout',
    'The upstream sent no answer within timeouts.headers',
  ),
  first_event_timeout: row(
    504,
    'upstream',
    false,
    'http_response_timeout',
    'The upstream sent nothing but filler within timeouts.first_event',
  ),
  idle_timeout: row(
    504,
    'upstream',
    false,
    'connection_read_timeout',
    'The upstream was silent for longer than timeouts.idle',
  ),
  stream_too_slow: row(
    504,
    'upstream',
    false,
    'connection_read_timeout',
    'The body of the answer came slower than stream.min_rate',
  ),
  total_timeout: row(504, 'upstream', false, 'http_response_timeout', 'The exchange took longer than timeouts.total'),
} as const satisfies Record<string, FailureRow>;

export type FailureCode = keyof typeof FAILURES;

/** An answer made by the proxy: flat raw header pairs and a body. */
export interface Answer {
  readonly status: number;
  readonly headers: string[];
  readonly body: Buffer;
}

/**
 * The answer for a failure: the body has the shape AI SDKs already parse,
 * `{"error":{"message","type":"aiproxy_error","code","param":null}}`.
 *
 * @param detail what exactly was wrong; never a credential or a query value
 * @param retryAfterS seconds for Retry-After; 0 = none
 * @param mayHaveRun the upstream may have carried the request out, whatever the failure
 */
export function answerFor(code: FailureCode, detail: string, retryAfterS: number, mayHaveRun = false): Answer {
  const failure = FAILURES[code];
  const message = detail ? `${failure.message}: ${detail}` : failure.message;
  const body = Buffer.from(`${JSON.stringify({ error: { message, type: 'aiproxy_error', code, param: null } })}\n`);
  const headers = [
    'content-type',
    'application/json',
    'content-length',
    String(body.length),
    'x-aiproxy-error',
    code,
    'proxy-status',
    `aiproxy; error=${failure.proxyStatus}`,
  ];
  // AI SDKs resend 5xx by themselves, and obey this header (openai-node and openai-python: should_retry).
  if ((!failure.retrySafe || mayHaveRun) && failure.status >= 500) headers.push('x-should-retry', 'false');
  if (retryAfterS > 0) headers.push('retry-after', String(Math.ceil(retryAfterS)));
  return { status: failure.status, headers, body };
}
