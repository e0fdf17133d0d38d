// What an exchange leaves behind: its counts and its line in the log.

import type { Exchange } from './exchange.ts';

/** Counts the exchange and writes its access line. */
export function report(exchange: Exchange): void {
  const now = exchange.shared.now();
  const { stats } = exchange.upstream;
  const totalMs = now - exchange.acceptedAt;
  stats.countStatus(exchange.status);
  if (exchange.failure) {
    stats.failed(exchange.failure);
    if (exchange.failure === 'queue_full' || exchange.failure === 'queue_timeout') {
      if (exchange.operation) exchange.operation.refused++;
    }
  }
  stats.bytesIn += exchange.bytesIn;
  stats.bytesOut += exchange.bytesOut;
  stats.latency.record(totalMs);
  if (exchange.headAt >= 0) {
    stats.ttfb.record(exchange.headAt - exchange.acceptedAt);
    stats.overhead.record(overheadMs(exchange, totalMs, now));
  }
  const { access } = exchange.shared;
  if (access.wants(exchange.failure, exchange.status)) writeLine(exchange, totalMs, now);
}

/** What aiproxy itself added: the total less the waits for the client's body and in the queue, less the upstream's time. */
function overheadMs(exchange: Exchange, totalMs: number, now: number): number {
  const upstreamMs = (exchange.endedAt >= 0 ? exchange.endedAt : now) - exchange.dispatchedAt;
  return Math.max(0, totalMs - exchange.bodyWaitMs - queueMs(exchange, now) - upstreamMs);
}

function queueMs(exchange: Exchange, now: number): number {
  if (exchange.queuedAt < 0) return 0;
  return (exchange.grantedAt >= 0 ? exchange.grantedAt : now) - exchange.queuedAt;
}

function writeLine(exchange: Exchange, totalMs: number, now: number): void {
  const { rest, queryAt } = exchange.target;
  const reachedQueue = exchange.queuedAt >= 0 || exchange.grantedAt >= 0;
  exchange.shared.access.write({
    upstream: exchange.upstream.name,
    method: exchange.client.method,
    path: rest.slice(0, queryAt),
    status: exchange.status,
    failure: exchange.failure,
    queue_ms: reachedQueue ? tenths(queueMs(exchange, now)) : null,
    connect_ms: exchange.connectMs >= 0 ? tenths(exchange.connectMs) : null,
    ttfb_ms: exchange.headAt >= 0 && exchange.sentAt >= 0 ? tenths(exchange.headAt - exchange.sentAt) : null,
    total_ms: tenths(totalMs),
    bytes_in: exchange.bytesIn,
    bytes_out: exchange.bytesOut,
    reused: exchange.reused,
    attempts: exchange.attempts,
    cache: exchange.cacheUse ? exchange.cacheUse.outcome : null,
    operation: exchange.head.operation ? exchange.head.operation.slice(0, 64) : null,
    hedged: exchange.isHedged,
    lane: exchange.lane === '' ? null : exchange.lane,
    target: exchange.via && exchange.upstream.targets.all.length > 1 ? exchange.via.url : null,
    retry_ms: exchange.attempts > 0 && exchange.retryMs !== 0 ? tenths(retryMs(exchange, now)) : null,
    close_code: null,
  });
}

/** Negative while it is between two attempts: less the time that began. */
function retryMs({ retryMs }: Exchange, now: number): number {
  return retryMs < 0 ? retryMs + now : retryMs;
}

/** One decimal is what a person can use. */
export function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}

/** `Server-Timing` of an answer: queue, connect (only when a connection was opened for it), ttfb. */
export function serverTiming(exchange: Exchange): string {
  const queue = `queue;dur=${tenths(queueMs(exchange, exchange.headAt))}`;
  const ttfb = `ttfb;dur=${tenths(exchange.headAt - exchange.sentAt)}`;
  return exchange.connectMs > 0 ? `${queue}, connect;dur=${tenths(exchange.connectMs)}, ${ttfb}` : `${queue}, ${ttfb}`;
}
