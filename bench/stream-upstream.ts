// The upstream of the stream bench: every request gets an event stream without end, and they take turns evenly.
import { createServer, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { EVENTS_PER_SECOND, eventChunk, microsNow } from './event-stream.ts';

const HEAD =
  'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n';
const TICK_MS = 1;

const streams: Socket[] = [];
/** Whose turn is next, and how many turns are due but not a whole one. */
let next = 0;
let due = 0;
let before = performance.now();

setInterval(() => {
  const now = performance.now();
  due += ((now - before) / 1000) * EVENTS_PER_SECOND * streams.length;
  before = now;
  for (; due >= 1; due--) {
    if (streams.length === 0) return;
    next = (next + 1) % streams.length;
    streams[next]!.write(eventChunk(microsNow()), 'latin1');
  }
}, TICK_MS);

const server = createServer((socket) => {
  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
  let asked = false;
  socket.on('data', () => {
    // One request per connection, which fits one packet.
    if (asked) return;
    asked = true;
    socket.write(HEAD);
    streams.push(socket);
  });
  socket.on('close', () => {
    const place = streams.indexOf(socket);
    if (place >= 0) streams.splice(place, 1);
  });
});
server.listen(0, '127.0.0.1', 4096, () => {
  const address = server.address();
  if (address && typeof address === 'object') process.send?.({ port: address.port });
});
process.on('disconnect', () => process.exit(0));
