// What the stats port answers: the headers of every answer, and refusals in the one error shape.

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  /** Besides EVERY_ANSWER. */
  readonly headers?: Readonly<Record<string, string>>;
}

export const JSON_TYPE = 'application/json; charset=utf-8';
export const TEXT_TYPE = 'text/plain; charset=utf-8';

/** Trusted types forbid innerHTML and its kin outright: on the page, names and labels can only ever be text. */
export const EVERY_ANSWER: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
};

export function ok(type: string, body: string): Answer {
  return { status: 200, type, body };
}

export function refusal(status: number, code: string, message: string, headers: Record<string, string> = {}): Answer {
  const body = `${JSON.stringify({ error: { message, type: 'aiproxy_error', code, param: null } })}\n`;
  return { status, type: JSON_TYPE, body, headers: { ...headers, 'x-aiproxy-error': code } };
}

/** @param code of the error node:http gives up on a connection with */
export function malformed(code: string | undefined, maxHeadBytes: number): Answer {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return refusal(431, 'head_too_large', `the head of the request is larger than ${maxHeadBytes} bytes`);
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return refusal(408, 'request_timeout', 'the request did not arrive in time');
  }
  return refusal(400, 'malformed_request', 'this is not a well-formed HTTP/1.1 request');
}
