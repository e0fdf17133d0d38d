// How long a caller still waits, by the fields in which callers say so.

/** Below 2^53. */
const MAX_DIGITS = 15;

/**
 * `x-aiproxy-deadline-ms`, and `x-envoy-expected-rq-timeout-ms` (Envoy, "Router: HTTP headers"; it writes it only above 0): digits.
 * @returns ms; -1 = malformed, or so many digits that they bound nothing
 */
export function parseWholeMs(value: string): number {
  return value.length <= MAX_DIGITS ? digits(value, value.length) : -1;
}

/**
 * `grpc-timeout` (gRPC over HTTP/2, "Requests"): 1 to 8 digits, then one of H M S m u n.
 * @returns ms, with a fraction for micro- and nanoseconds; -1 = malformed
 */
export function parseGrpcTimeout(value: string): number {
  const count = value.length - 1;
  if (count > 8) return -1;
  const number = digits(value, count);
  if (number < 0) return -1;
  switch (value.charCodeAt(count)) {
    case 0x48: // H
      return number * 3_600_000;
    case 0x4d: // M
      return number * 60_000;
    case 0x53: // S
      return number * 1000;
    case 0x6d: // m
      return number;
    case 0x75: // u
      return number / 1000;
    case 0x6e: // n
      return number / 1_000_000;
    default:
      return -1;
  }
}

function digits(value: string, end: number): number {
  if (end <= 0) return -1;
  let number = 0;
  for (let i = 0; i < end; i++) {
    const digit = value.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    number = number * 10 + digit;
  }
  return number;
}
