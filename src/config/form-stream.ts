// The part of the form for how bytes pass: streams, WebSockets, HTTP/2 and limits on the head of an answer.

import { z } from 'zod';
import { duration, flag, section, size, whole } from './leaves.ts';
import { DAY_MS, GIB, KIB, LONGEST_MS, MIB } from './units.ts';

/** What `true` stands for. */
export const MAX_WEBSOCKETS = 1000;
export const MAX_STREAMS = 100;

const stream = section({
  heartbeat: duration({ min: 1000, max: LONGEST_MS, word: 'none' })
    .default('none')
    .describe('Duration of silence after which an event stream gets a comment line, or none. Default none.'),
  min_rate: size({ min: 0, max: GIB })
    .default(0)
    .describe('Size per second that the body of an answer must bring; 0 = no minimum. Default 0.'),
  min_rate_window: duration({ min: 1000, max: DAY_MS })
    .default('30s')
    .describe('Duration over which `min_rate` is measured. Default 30s.'),
  error_event: flag()
    .default(false)
    .describe('An event stream that was cut says so in a last event before the connection ends. Default false.'),
});

const websocket = section({
  max: whole({ min: 1, max: 1_000_000 })
    .default(MAX_WEBSOCKETS)
    .describe('Number of WebSockets to this upstream open at once. Default 1000.'),
});

const http2 = section({
  max_streams: whole({ min: 1, max: 10_000 })
    .default(MAX_STREAMS)
    .describe('Number of exchanges at once on one connection, or fewer if the upstream says so. Default 100.'),
});

/** Keys of an upstream. */
export const streamKeys = {
  stream: stream.prefault({}).describe('What is done about answers that take long to come whole.'),
  websocket: z
    .union([z.boolean(), websocket], { error: 'must be true, false or a mapping such as { max: 200 }' })
    .default(false)
    .describe('Clients may open WebSockets: true, false, or { max }. Default false.'),
  http2: z
    .union([z.boolean(), http2], { error: 'must be true, false or a mapping such as { max_streams: 100 }' })
    .default(false)
    .describe('HTTP/2 is offered to the upstream, only with https: true, false, or { max_streams }. Default false.'),
  max_head: size({ min: KIB, max: MIB }).default('32kb').describe('Size limit of the head of an answer. Default 32kb.'),
  max_headers: whole({ min: 1, max: 10_000 })
    .default(200)
    .describe('Number of header lines an answer may have. Default 200.'),
};
