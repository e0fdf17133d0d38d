// A strict reader of what a client gets: one answer, and how it ended. Anything that two readers could take differently is `wrong`.

export interface GotAnswer {
  readonly interims: { readonly status: number; readonly headers: readonly string[] }[];
  /** 0 = no head came. */
  status: number;
  reason: string;
  headers: readonly string[];
  body: string;
  trailers: readonly string[];
  complete: boolean;
  /** Bytes behind the answer. */
  rest: string;
}

/** How the connection is: still open, ended by a FIN, or reset. */
export type Ended = 'open' | 'fin' | 'reset';

const FIELD = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\t\x20-\x7e\x80-\xff]*)$/;

/** @throws what is not well formed */
export function readAnswer(bytes: string, toHead: boolean, http10: boolean, ended: Ended): GotAnswer {
  const got: GotAnswer = {
    interims: [],
    status: 0,
    reason: '',
    headers: [],
    body: '',
    trailers: [],
    complete: false,
    rest: '',
  };
  let text = bytes;
  for (;;) {
    const end = text.indexOf('\r\n\r\n');
    if (end < 0) {
      if (text !== '') throw new Error(`not the head of an answer: ${JSON.stringify(text)}`);
      return got;
    }
    const [line = '', ...fields] = text.slice(0, end).split('\r\n');
    text = text.slice(end + 4);
    const match = /^HTTP\/1\.1 (\d{3}) ([\t\x20-\x7e]*)$/.exec(line);
    if (!match) throw new Error(`a status line ${JSON.stringify(line)}`);
    const status = Number(match[1]);
    const headers = readFields(fields);
    if (status >= 200) {
      Object.assign(got, { status, reason: match[2], headers });
      break;
    }
    if (http10) throw new Error('an interim answer to HTTP/1.0');
    got.interims.push({ status, headers });
  }
  readBody(got, text, toHead, http10, ended);
  return got;
}

function readFields(lines: readonly string[]): string[] {
  return lines.flatMap((line) => {
    const parts = FIELD.exec(line);
    if (!parts) throw new Error(`a header line ${JSON.stringify(line)}`);
    return [parts[1]!, parts[2]!.trim()];
  });
}

function readBody(got: GotAnswer, text: string, toHead: boolean, http10: boolean, ended: Ended): void {
  const lengths = valuesOf(got.headers, 'content-length');
  const codings = valuesOf(got.headers, 'transfer-encoding');
  if (lengths.length + codings.length > 1) throw new Error(`framed more than once: ${[...lengths, ...codings]}`);
  if (codings.length > 0 && (codings[0] !== 'chunked' || http10)) throw new Error(`coded ${codings[0]}`);
  if (lengths.length > 0 && !/^\d{1,16}$/.test(lengths[0]!)) throw new Error(`length ${lengths[0]}`);
  if (toHead || got.status === 204 || got.status === 304) {
    got.complete = true;
    got.rest = text;
  } else if (codings.length > 0) readChunks(got, text);
  else if (lengths.length > 0) {
    const length = Number(lengths[0]);
    got.body = text.slice(0, length);
    got.complete = got.body.length === length;
    got.rest = text.slice(length);
  } else if (http10) {
    got.body = text;
    got.complete = ended === 'fin';
  } else throw new Error('an answer without framing');
}

function readChunks(got: GotAnswer, bytes: string): void {
  let text = bytes;
  for (;;) {
    const line = /^([0-9a-f]+)\r\n/.exec(text);
    if (!line) {
      if (!/^[0-9a-f]*\r?$/.test(text)) throw new Error(`not a chunk: ${JSON.stringify(text)}`);
      return;
    }
    const size = Number.parseInt(line[1]!, 16);
    text = text.slice(line[0].length);
    if (size === 0) break;
    got.body += text.slice(0, size);
    if (text.length < size + 2) return;
    if (text.slice(size, size + 2) !== '\r\n') throw new Error('a chunk without its end');
    text = text.slice(size + 2);
  }
  const end = `\r\n${text}`.indexOf('\r\n\r\n');
  if (end < 0) return;
  got.trailers = readFields(
    text
      .slice(0, Math.max(0, end - 2))
      .split('\r\n')
      .filter((line) => line !== ''),
  );
  got.complete = true;
  got.rest = text.slice(end + 2);
}

export function valuesOf(headers: readonly string[], name: string): string[] {
  return headers.filter((_, i) => i % 2 === 1 && headers[i - 1]!.toLowerCase() === name);
}
