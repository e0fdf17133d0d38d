// The clients of the body bench: a process that uploads and downloads as its parent says, and checks every byte that comes back.
import { connect, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { AnswerReader } from './answer-reader.ts';
import { PatternCheck, patternAt } from './pattern.ts';

export type BodyCommand =
  /** So many clients, each so many bodies of so many bytes one after the other. Every second client sends in chunks. */
  | { step: 'upload'; port: number; path: string; clients: number; times: number; bytes: number }
  /** `rate` bytes per second for each client, 0 = as fast as they come. What is not whole after `seconds` is given up. */
  | { step: 'download'; port: number; path: string; clients: number; rate: number; seconds: number };

/** Bodies that were whole and right, and what was not. */
export interface BodyReport {
  readonly bodies: number;
  readonly givenUp: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly wrong: readonly string[];
}

const PIECE = 64 * 1024;
const TICK_MS = 10;
const GET_FIELDS = 'host: bench\r\nauthorization: Bearer sk-bench\r\n';

process.on('disconnect', () => process.exit(0));
process.on('message', (command: BodyCommand) => {
  void perform(command).then((report) => process.send?.(report));
});

class Course {
  bodies = 0;
  givenUp = 0;
  bytes = 0;
  readonly wrong: string[] = [];
}

async function perform(command: BodyCommand): Promise<BodyReport> {
  const course = new Course();
  const startedAt = performance.now();
  const one = (n: number) => (command.step === 'upload' ? upload(command, n, course) : download(command, course));
  await Promise.all(Array.from({ length: command.clients }, (_, n) => one(n)));
  return { ...course, seconds: (performance.now() - startedAt) / 1000 };
}

function upload(
  { port, path, times, bytes }: BodyCommand & { step: 'upload' },
  n: number,
  course: Course,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const chunked = n % 2 === 1;
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  let left = times;
  let text = '';
  const fail = (what: string) => {
    course.wrong.push(what);
    socket.destroy();
  };
  const reader = new AnswerReader({
    head: () => {},
    body: (chunk) => {
      text += chunk.toString('latin1');
    },
    whole: () => {
      if (text !== JSON.stringify({ bytes, right: true })) return fail(`an upload of ${bytes}: ${text.slice(0, 300)}`);
      course.bodies++;
      course.bytes += bytes;
      text = '';
      if (--left > 0) send(socket, path, bytes, chunked);
      else socket.destroy();
    },
  });
  socket.on('data', (chunk: Buffer) => reader.feed(chunk));
  socket.on('error', (error) => fail(error.message));
  socket.on('close', () => {
    if (left > 0 && course.wrong.length === 0) course.wrong.push('a connection was closed within an upload');
    resolve();
  });
  send(socket, path, bytes, chunked);
  return promise;
}

function send(socket: Socket, path: string, bytes: number, chunked: boolean): void {
  const framing = chunked ? 'transfer-encoding: chunked' : `content-length: ${bytes}`;
  socket.write(`POST ${path} HTTP/1.1\r\n${GET_FIELDS}content-type: application/json\r\n${framing}\r\n\r\n`);
  let sent = 0;
  const more = () => {
    while (sent < bytes && !socket.destroyed) {
      const piece = patternAt(sent, Math.min(PIECE, bytes - sent));
      sent += piece.length;
      if (chunked) socket.write(`${piece.length.toString(16)}\r\n`);
      let room = socket.write(piece);
      if (chunked) room = socket.write(sent < bytes ? '\r\n' : '\r\n0\r\n\r\n');
      if (!room) return;
    }
    socket.off('drain', more);
  };
  socket.on('drain', more);
  more();
}

function download({ port, path, rate, seconds }: BodyCommand & { step: 'download' }, course: Course): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const check = new PatternCheck();
  const startedAt = performance.now();
  let whole = false;
  const reader = new AnswerReader({
    head: (status) => {
      if (status !== 200) course.wrong.push(`a download was answered ${status}`);
    },
    body: (chunk) => check.add(chunk),
    whole: () => {
      whole = true;
      course.bodies++;
      socket.destroy();
    },
  });
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  const allowed = () => ((performance.now() - startedAt) / 1000) * rate;
  const tick = setInterval(() => {
    if (performance.now() - startedAt > seconds * 1000) socket.destroy();
    else if (rate > 0 && check.bytes < allowed()) socket.resume();
  }, TICK_MS);
  socket.on('data', (chunk: Buffer) => {
    reader.feed(chunk);
    if (rate > 0 && check.bytes >= allowed()) socket.pause();
  });
  socket.on('error', (error) => course.wrong.push(`a download: ${error.message}`));
  socket.on('close', () => {
    clearInterval(tick);
    const inTime = performance.now() - startedAt < seconds * 1000;
    if (!check.right) course.wrong.push(`a download: a wrong byte before ${check.bytes}`);
    if (!whole && inTime) course.wrong.push(`a download was cut after ${check.bytes}`);
    if (!whole) course.givenUp++;
    course.bytes += check.bytes;
    resolve();
  });
  socket.write(`GET ${path} HTTP/1.1\r\n${GET_FIELDS}\r\n`);
  return promise;
}
