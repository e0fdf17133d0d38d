// A client's request head: what aiproxy itself needs from it, and what goes on to the upstream.
// RFC 9110 section 7.6.1 (hop-by-hop fields), RFC 9112 section 6 (framing). One pass over flat raw pairs.

import { sameName } from '../fields.ts';
import { parseGrpcTimeout, parseWholeMs } from './deadline-fields.ts';

/** What was found in a head. `problem` is set when the request must be refused. */
export interface RequestHead {
  /** Flat raw pairs for the upstream, case and order kept; without hop-by-hop fields, Host, framing and aiproxy's own. */
  readonly forward: string[];
  /** Number of Host fields, and whether each is well formed. */
  hosts: number;
  hostOk: boolean;
  /** Declared length; -1 = none. */
  contentLength: number;
  chunked: boolean;
  /** Value of x-aiproxy-operation, '' = none. */
  operation: string;
  /** Value of x-aiproxy-priority, '' = none. */
  priority: string;
  /** What the caller still waits, ms; -1 = it does not say. */
  deadlineMs: number;
  /** It asks for a WebSocket (RFC 6455 section 4.1): `Connection: upgrade` and `Upgrade: websocket`. Any other offer is ignored. */
  websocket: boolean;
  /** Value of x-aiproxy-token, '' = none, or more than one. A secret. */
  token: string;
  /** The client asked for this in its Connection field. */
  wantsClose: boolean;
  wantsKeepAlive: boolean;
  /** `Expect: 100-continue` */
  expectsContinue: boolean;
  problem: string;
}

/** Headers for aiproxy alone; nothing that starts like this is ever forwarded. */
const OWN_PREFIX = 'x-aiproxy-';
const OPERATION = 'x-aiproxy-operation';
const PRIORITY = 'x-aiproxy-priority';
const DEADLINE = 'x-aiproxy-deadline-ms';
const TOKEN = 'x-aiproxy-token';

/**
 * @param raw flat raw pairs as node:http gives them
 * @param http10 an HTTP/1.0 request has no Transfer-Encoding
 */
export function readRequestHead(raw: readonly string[], http10: boolean): RequestHead {
  const head: RequestHead = {
    forward: [],
    hosts: 0,
    hostOk: true,
    contentLength: -1,
    chunked: false,
    operation: '',
    priority: '',
    deadlineMs: -1,
    websocket: false,
    token: '',
    wantsClose: false,
    wantsKeepAlive: false,
    expectsContinue: false,
    problem: '',
  };
  let connection = '';
  let upgrade = '';
  let tokens = 0;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    const value = raw[i + 1]!;
    // Most names are told apart by their length alone.
    switch (name.length) {
      case 2:
        if (sameName(name, 'te')) continue;
        break;
      case 4:
        if (sameName(name, 'host')) {
          head.hosts++;
          if (!isWellFormedHost(value)) head.hostOk = false;
          continue;
        }
        break;
      case 6:
        if (sameName(name, 'expect')) {
          readExpect(head, value);
          continue;
        }
        break;
      case 7:
        if (sameName(name, 'trailer')) continue;
        if (sameName(name, 'upgrade')) {
          upgrade = upgrade ? `${upgrade},${value}` : value;
          continue;
        }
        break;
      case 10:
        if (sameName(name, 'connection')) {
          connection = connection ? `${connection},${value}` : value;
          continue;
        }
        if (sameName(name, 'keep-alive')) continue;
        break;
      case 12:
        if (sameName(name, 'grpc-timeout')) readDeadline(head, parseGrpcTimeout(value));
        break;
      case 14:
        if (sameName(name, 'content-length')) {
          readContentLength(head, value);
          continue;
        }
        break;
      case 16:
        if (sameName(name, 'proxy-connection')) continue;
        break;
      case 17:
        if (sameName(name, 'transfer-encoding')) {
          readTransferEncoding(head, value, http10);
          continue;
        }
        break;
      case 18:
        if (sameName(name, 'proxy-authenticate')) continue;
        break;
      case 19:
        if (sameName(name, 'proxy-authorization')) continue;
        break;
      case 30:
        if (sameName(name, 'x-envoy-expected-rq-timeout-ms')) readDeadline(head, parseWholeMs(value));
        break;
    }
    if (name.length >= OWN_PREFIX.length && isOwn(name)) {
      if (name.length === OPERATION.length && sameName(name, OPERATION)) head.operation = value;
      else if (name.length === PRIORITY.length && sameName(name, PRIORITY)) head.priority = value;
      else if (name.length === TOKEN.length && sameName(name, TOKEN)) head.token = tokens++ === 0 ? value : '';
      else if (name.length === DEADLINE.length && sameName(name, DEADLINE)) readDeadline(head, parseWholeMs(value));
      continue;
    }
    head.forward.push(name, value);
  }
  if (head.chunked && head.contentLength >= 0) head.problem = 'it has both Content-Length and Transfer-Encoding';
  if (connection !== '') readConnection(head, connection, upgrade);
  return head;
}

/** Of several the shortest counts; one that cannot be read does not. */
function readDeadline(head: RequestHead, ms: number): void {
  if (ms >= 0 && (head.deadlineMs < 0 || ms < head.deadlineMs)) head.deadlineMs = ms;
}

function isOwn(name: string): boolean {
  // 'x' or 'X' first: cheaper than comparing the prefix of every header.
  if ((name.charCodeAt(0) | 0x20) !== 0x78 || name.charCodeAt(9) !== 0x2d) return false;
  return sameName(name, OWN_PREFIX);
}

function readExpect(head: RequestHead, value: string): void {
  if (value.length === 12 && sameName(value, '100-continue')) head.expectsContinue = true;
  else head.problem = 'the only Expect understood is 100-continue';
}

function readConnection(head: RequestHead, connection: string, upgrade: string): void {
  if (namesNoField(connection)) {
    head.wantsClose = connection.length === 5;
    head.wantsKeepAlive = connection.length === 10;
    return;
  }
  const named = connectionTokens(connection);
  head.wantsClose = named.delete('close');
  head.wantsKeepAlive = named.delete('keep-alive');
  head.websocket = named.has('upgrade') && upgrade.length === 9 && sameName(upgrade, 'websocket');
  dropNamed(head.forward, named);
}

/** Exactly `keep-alive` or `close`: what nearly everybody sends, without the general case's split. */
export function namesNoField(connection: string): boolean {
  return (
    (connection.length === 10 && sameName(connection, 'keep-alive')) ||
    (connection.length === 5 && sameName(connection, 'close'))
  );
}

/** The lower-cased tokens of a Connection field (RFC 9110 section 7.6.1). */
export function connectionTokens(connection: string): Set<string> {
  const tokens = new Set<string>();
  for (const token of connection.toLowerCase().split(',')) {
    const name = token.trim();
    if (name !== '') tokens.add(name);
  }
  return tokens;
}

function readContentLength(head: RequestHead, value: string): void {
  if (head.contentLength >= 0) {
    head.problem = 'it has more than one Content-Length';
    return;
  }
  const length = wholeLength(value);
  if (length < 0) head.problem = 'its Content-Length is not a number';
  else head.contentLength = length;
}

/** A Content-Length in plain digits, as far as a number is exact; anything else is -1 (RFC 9110 section 8.6). */
export function wholeLength(value: string): number {
  let length = 0;
  for (let i = 0; i < value.length; i++) {
    const digit = value.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    length = length * 10 + digit;
  }
  return value.length === 0 || length > Number.MAX_SAFE_INTEGER ? -1 : length;
}

function readTransferEncoding(head: RequestHead, value: string, http10: boolean): void {
  if (http10) head.problem = 'HTTP/1.0 has no Transfer-Encoding';
  else if (head.chunked || value.length !== 7 || !sameName(value, 'chunked')) {
    head.problem = 'the only Transfer-Encoding understood is one "chunked"';
  } else head.chunked = true;
}

/** Drops the named fields, in place. */
export function dropNamed(pairs: string[], named: ReadonlySet<string>): void {
  if (named.size === 0) return;
  let kept = 0;
  for (let i = 0; i < pairs.length; i += 2) {
    if (named.has(pairs[i]!.toLowerCase())) continue;
    pairs[kept++] = pairs[i]!;
    pairs[kept++] = pairs[i + 1]!;
  }
  pairs.length = kept;
}

/**
 * `uri-host [":" port]` of RFC 9110 section 7.2, as a client of ours may send it: a name, an IPv4 or a bracketed IPv6 address.
 * Node accepts userinfo, paths, commas and nothing at all.
 */
export function isWellFormedHost(value: string): boolean {
  const length = value.length;
  if (length === 0 || length > 255) return false;
  let i = 0;
  if (value.charCodeAt(0) === 0x5b) {
    i = value.indexOf(']');
    if (i < 3) return false;
    for (let j = 1; j < i; j++) {
      const c = value.charCodeAt(j);
      const lower = c | 0x20;
      const ok = (c >= 0x30 && c <= 0x39) || (lower >= 0x61 && lower <= 0x66) || c === 0x3a || c === 0x2e;
      if (!ok) return false;
    }
    i++;
  } else {
    for (; i < length; i++) {
      const c = value.charCodeAt(i);
      if (c === 0x3a) break;
      const lower = c | 0x20;
      const ok = (c >= 0x30 && c <= 0x39) || (lower >= 0x61 && lower <= 0x7a) || c === 0x2d || c === 0x2e || c === 0x5f;
      if (!ok) return false;
    }
    if (i === 0) return false;
  }
  if (i === length) return true;
  if (value.charCodeAt(i) !== 0x3a || length - i - 1 > 5) return false;
  for (i++; i < length; i++) {
    const c = value.charCodeAt(i);
    if (c < 0x30 || c > 0x39) return false;
  }
  return true;
}
