// Why a stream of HTTP/2 failed, in the words by which an attempt tells failures apart.

import { type ClientHttp2Stream, constants } from 'node:http2';
import { NEVER_PROCESSED, PROTOCOL_ERROR } from './carrier.ts';

export type StreamError = Error & { code?: string };

/** What the connection knows of it. */
export interface StreamLoss {
  /** It is still there for other streams. */
  readonly isUp: boolean;
  /** What came on it was not HTTP/2. */
  readonly isBroken: boolean;
  /** Of its GOAWAY; 0 = without an error, or none came. */
  readonly goawayCode: number;
  readonly socketError: NodeJS.ErrnoException | null;
  /** By GOAWAY the peer has said that it never looked at this stream, nor will. */
  neverProcessed(id: number | undefined): boolean;
}

const { NGHTTP2_REFUSED_STREAM, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_NO_ERROR } = constants;
/** What either side says of frames and fields that are wrong. */
const PROTOCOL_CODES: readonly number[] = [
  constants.NGHTTP2_PROTOCOL_ERROR,
  constants.NGHTTP2_FLOW_CONTROL_ERROR,
  constants.NGHTTP2_STREAM_CLOSED,
  constants.NGHTTP2_FRAME_SIZE_ERROR,
  constants.NGHTTP2_COMPRESSION_ERROR,
];
/** RFC 9113 section 7, by number. */
const CODE_NAMES: readonly string[] = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'INTERNAL_ERROR',
  'FLOW_CONTROL_ERROR',
  'SETTINGS_TIMEOUT',
  'STREAM_CLOSED',
  'FRAME_SIZE_ERROR',
  'REFUSED_STREAM',
  'CANCEL',
  'COMPRESSION_ERROR',
  'CONNECT_ERROR',
  'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY',
  'HTTP_1_1_REQUIRED',
];

function nameOf(code: number): string {
  return CODE_NAMES[code] ?? `code ${code}`;
}

/** @param code what an attempt goes by; a reset has none, and its message says what the peer said */
export function failure(message: string, code?: string): StreamError {
  const error: StreamError = new Error(message);
  if (code) error.code = code;
  return error;
}

/** @param begun the head of the answer had come; @param error what node says of it, if it says anything */
export function streamFailure(
  connection: StreamLoss,
  { id, rstCode }: ClientHttp2Stream,
  begun: boolean,
  error: StreamError | null,
): StreamError {
  const { goawayCode, isBroken, isUp, socketError } = connection;
  if (!begun && connection.neverProcessed(id)) return failure('GOAWAY', NEVER_PROCESSED);
  if (!begun && rstCode === NGHTTP2_REFUSED_STREAM) return failure(nameOf(rstCode), NEVER_PROCESSED);
  if (goawayCode !== 0) return failure(`GOAWAY ${nameOf(goawayCode)}`);
  if (isBroken || PROTOCOL_CODES.includes(rstCode)) return failure(nameOf(rstCode), PROTOCOL_ERROR);
  if (!isUp) return failure(socketError?.code ?? 'the connection closed');
  // Node says it of a head beyond its own limits; a server has next to no reason to say it of one stream.
  if (!begun && rstCode === NGHTTP2_ENHANCE_YOUR_CALM) return failure(nameOf(rstCode), 'UND_ERR_HEADERS_OVERFLOW');
  return rstCode === NGHTTP2_NO_ERROR ? (error ?? failure('the stream ended early')) : failure(nameOf(rstCode));
}
