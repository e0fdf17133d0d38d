// What a tunnel leaves behind: its counts and its line in the log.

import { tenths } from './report.ts';
import type { Tunnel } from './tunnel.ts';

const SWITCHED = 101;
/** It ended without a Close frame. */
const NO_FRAME = 'none';

/** Counts the tunnel and writes its access line. */
export function reportTunnel(tunnel: Tunnel): void {
  const { upstream, shared, failure, status } = tunnel;
  const { stats } = upstream;
  const totalMs = shared.now() - tunnel.acceptedAt;
  stats.countStatus(status);
  if (failure) stats.failed(failure);
  stats.bytesIn += tunnel.bytesIn;
  stats.bytesOut += tunnel.bytesOut;
  // How long people talk is no latency.
  if (status === SWITCHED) tunnel.stats.closed(tunnel.closeCode === null ? NO_FRAME : String(tunnel.closeCode));
  else stats.latency.record(totalMs);
  if (tunnel.headAt >= 0) stats.ttfb.record(tunnel.headAt - tunnel.acceptedAt);
  if (shared.access.wants(failure, status)) writeLine(tunnel, totalMs);
}

function writeLine(tunnel: Tunnel, totalMs: number): void {
  const { target, client, upstream, via, sentAt, headAt } = tunnel;
  const { operation } = client.head;
  tunnel.shared.access.write({
    upstream: upstream.name,
    method: client.method,
    path: target.rest.slice(0, target.queryAt),
    status: tunnel.status,
    failure: tunnel.failure,
    queue_ms: null,
    connect_ms: sentAt >= 0 ? tenths(sentAt - tunnel.startedAt) : null,
    ttfb_ms: headAt >= 0 ? tenths(headAt - sentAt) : null,
    total_ms: tenths(totalMs),
    bytes_in: tunnel.bytesIn,
    bytes_out: tunnel.bytesOut,
    reused: tunnel.attempts > 0 ? false : null,
    attempts: tunnel.attempts,
    cache: null,
    operation: operation ? operation.slice(0, 64) : null,
    hedged: false,
    lane: null,
    target: via && upstream.targets.all.length > 1 ? via.url : null,
    retry_ms: null,
    close_code: tunnel.closeCode,
  });
}
