// The life of a request, in order. Read this and you know the product.
//
//   listener → Entrance.accept: is the request well formed, which route? → new Exchange → advance() over the route's stages
//                                    (a WebSocket goes another way: tunnel.ts)
//   attempt → (retry: back to `guard`) → exchange.begin → exchange.write… → exchange.finish | fail → exchange.settle
//
// A stage is a plain function: NEXT goes on, DONE means an answer was given, WAIT means somebody will unpark the exchange.

import { revalidationPairs, withoutConditionals } from '../cache/conditional.ts';
import { NO_FIELDS } from '../cache/request-fields.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { Attempt } from './attempt.ts';
import { Body } from './body.ts';
import { CacheUse } from './cache-use.ts';
import { Phase } from './deadlines.ts';
import { Exchange } from './exchange.ts';
import { Flight } from './flight.ts';
import { Hedge, hedgeDelayMs } from './hedge.ts';
import { isTooLate, joinQueue, leaveQueue, tookPermit } from './queueing.ts';
import { Refresh } from './refresh.ts';
import { choose, mayBeShared, planCacheUse } from './reuse.ts';
import { DONE, type Holder, NEXT, type Route, type Stage, type StageResult, WAIT } from './route.ts';
import { serve } from './serve.ts';
import type { Shared } from './shared.ts';

/** The ways to an upstream. Every exchange runs through the stages of one of them, from the first to the last. */
export function planRoutes(upstream: Upstream): { readonly regular: Route; readonly bypass: Route } {
  const { cache, metering, config } = upstream;
  const limits = metering ? [meter] : [];
  const guards = config.breaker ? [guard] : [];
  const route = (way: Route['way'], stages: readonly Stage[], flight: Route | null, hedge: Route | null): Route => {
    const retryFrom = Math.max(0, stages.indexOf(stages.includes(guard) ? guard : acquire));
    return { upstream, way, stages, retryFrom, flight, hedge };
  };
  // A second attempt beside a slow one. Its permit was spare, and is there already.
  const hedge = upstream.hedging ? route(upstream.shared, [dispatch], null, null) : null;
  // The fetch that requests share, an exchange whose client is a Flight.
  const flight = route(upstream.shared, [recall, ...limits, ...guards, acquire, dispatch], null, hedge);
  // Where answers are stored, or twins share a fetch.
  const reusing = cache ? [reuse, coalesce] : [];
  const regular = [readBody, ...reusing, ...limits, ...guards, acquire, dispatch];
  const passing = cache ? [readBody, passBy, acquire, dispatch] : [readBody, acquire, dispatch];
  return {
    regular: route(upstream.regular, regular, flight, hedge),
    bypass: route(upstream.bypass, passing, null, null),
  };
}

/** Reads the body ahead, up to body_buffer, so that a slow upload holds no permit. */
function readBody(exchange: Exchange): StageResult {
  const { head, shared, client } = exchange;
  if (!head.chunked && head.contentLength <= 0) return NEXT;
  exchange.body = new Body(client, head.contentLength, shared.bodyMemory);
  client.readBody();
  return exchange.park(THE_BODY);
}

/** A stored answer, if there is one that may be used. */
function reuse(exchange: Exchange): StageResult {
  const use = exchange.cacheUse ?? planCacheUse(exchange);
  const cache = exchange.upstream.cache!;
  if (use.key === '') {
    if (!use.fields.onlyIfCached) return NEXT;
    exchange.fail('not_cached', use.detail);
    return DONE;
  }
  const { offered } = use;
  use.offered = null;
  const entry = choose(exchange, use, offered ?? cache.memory.find(use.key));
  // One of another variant may still be there.
  if (offered && use.entry) use.recalled = true;
  if (entry) {
    const renews = use.detail === 'stale_while_revalidate';
    // Serving ends the exchange, and the fetch that renews the answer needs its body.
    const body = renews ? exchange.takeBody() : null;
    if (serve(exchange, use, entry)) {
      if (renews) refreshBehind(exchange, use, body);
      return DONE;
    }
    if (renews) exchange.body = body;
  }
  if (!use.fields.onlyIfCached || (mayBeShared(cache, use) && mayFly(exchange, use))) return NEXT;
  cache.counters.misses++;
  exchange.fail('not_cached', use.forwarded);
  return DONE;
}

/** A bypass path of an upstream with a cache: all there is to do is to say so. */
function passBy(exchange: Exchange): StageResult {
  exchange.cacheUse = new CacheUse(NO_FIELDS, '');
  exchange.cacheUse.detail = 'bypass_path';
  exchange.upstream.cache!.counters.bypassed++;
  return NEXT;
}

/** The answer to HEAD, or to a range, is not one that can be shared or looked up elsewhere. */
function mayFly({ client }: Exchange, { fields }: CacheUse): boolean {
  return client.method !== 'HEAD' && fields.range === '';
}

/** What came under this key was not for others: its requests do not wait for each other, and keep their conditions. */
function isNotForSharing({ flights, now }: Shared, { key, fields, entry }: CacheUse): boolean {
  if (flights.isMarked(key, now())) return true;
  const isConditional = fields.ifNoneMatch !== '' || fields.ifModifiedSince !== '';
  return isConditional && entry === null && flights.wasMarked(key, now());
}

/** Follows the fetch of a twin, or begins one that twins can follow. */
function coalesce(exchange: Exchange): StageResult {
  const use = exchange.cacheUse!;
  const { shared } = exchange;
  if (use.key === '' || use.alone) return NEXT;
  if (isTooLate(exchange)) return DONE;
  const cache = exchange.upstream.cache!;
  if (exchange.client.method === 'HEAD') exchange.tap = new Refresh(cache, use, 'HEAD');
  const isMarked = !use.fields.onlyIfCached && isNotForSharing(shared, use);
  if (isMarked) use.detail = 'hit_for_miss';
  if (isMarked || !mayFly(exchange, use)) {
    cache.counters.misses++;
    return NEXT;
  }
  let flight = cache.coalesce && !use.fields.onlyIfCached ? shared.flights.find(use.key) : null;
  while (flight && !flight.canJoin(exchange)) flight = flight.next;
  if (flight) flight.join(exchange, false);
  else launch(exchange, use, exchange.takeBody(), false);
  return WAIT;
}

/** A stale answer is about to be used: a fetch without followers renews it, unless one is on its way. */
function refreshBehind(exchange: Exchange, use: CacheUse, body: Body | null): void {
  if (exchange.shared.flights.find(use.key)) body?.release();
  else launch(exchange, use, body, true);
}

function launch(leader: Exchange, use: CacheUse, body: Body | null, background: boolean): void {
  const { shared, upstream, target, head, route } = leader;
  const forward = withoutConditionals(head.forward);
  if (use.entry) forward.push(...revalidationPairs(use.entry));
  const flight = new Flight(upstream.cache!, use, leader, { ...head, forward }, background, (client) => {
    return new Exchange(shared, route.flight!, client, target, true);
  });
  flight.exchange.body = body;
  shared.flights.add(flight, (upstream.cache!.coalesce || background) && !use.fields.onlyIfCached);
  if (!background) {
    leader.waitsForOther = true;
    flight.join(leader, true);
  }
  flight.exchange.advance();
}

/** What another sidecar has stored. */
function recall(exchange: Exchange): StageResult {
  const flight = exchange.client as Flight;
  if (!flight.asksRemote) return NEXT;
  // No deadline of ours: the store has its own.
  exchange.enter(Phase.Connect, exchange.shared.now());
  exchange.park(THE_STORE);
  flight.cache.remote!.get(
    flight.key,
    (names) => flight.varyValues(names),
    (entry) => {
      if (exchange.settled) return;
      try {
        if (entry && flight.isNews(entry)) flight.recalled(entry);
        else if (flight.asksOnlyStores) exchange.fail('not_cached', 'uri-miss');
        else exchange.unpark();
      } catch (error) {
        exchange.crashed(error); // the store's promise would take the process down
      }
    },
  );
  return WAIT;
}

/** What the request must wait for besides: its rate limits, and what the upstream said of its own. */
function meter(exchange: Exchange): StageResult {
  const turnstiles = exchange.upstream.metering!.turnstilesOf(exchange.head.forward);
  exchange.turnstiles = turnstiles;
  // The token is taken with the permit; but who would only be refused then need not wait for that.
  for (const turnstile of turnstiles) {
    if (!turnstile.rejects || turnstile.waitMs === 0) continue;
    turnstile.countRefusal();
    exchange.refusedBy = turnstile;
    exchange.fail('rate_limited', '');
    return DONE;
  }
  return NEXT;
}

/** Is there a server that takes an attempt, or are all left alone for a while? */
function guard(exchange: Exchange): StageResult {
  if (exchange.upstream.targets.hasOpen(exchange.shared.now())) return NEXT;
  exchange.fail('breaker_open', '');
  return DONE;
}

/** A permit of the limiter, a connection slot and the tokens, all at once, or a place in the queue. */
function acquire(exchange: Exchange): StageResult {
  const { line } = exchange.way;
  if (isTooLate(exchange)) return DONE;
  if (line.tryEnter(exchange.turnstiles)) {
    tookPermit(exchange, false);
    return NEXT;
  }
  // First, as its turn may come within joinQueue.
  exchange.park(THE_QUEUE);
  if (joinQueue(exchange)) return WAIT;
  line.limiter.refused++;
  const { refusedBy } = exchange;
  const whose = refusedBy ? `a quarter of ${line.limiter.name} waits for the same token` : '';
  exchange.fail('queue_full', whose || `${line.limiter.name} has ${line.limiter.queued} waiting`);
  return DONE;
}

/** One attempt, at the server that has least to do; a further one, there or at another, comes back here. */
function dispatch(exchange: Exchange): StageResult {
  const { upstream, shared, way } = exchange;
  const now = shared.now();
  // A bypass path knows no breaker.
  const target =
    upstream.targets.pick(now, exchange.tried) ?? (way === upstream.bypass ? upstream.targets.all[0]! : null);
  if (!target) {
    // Its breaker has opened, or the one probe was begun, since `guard`.
    exchange.fail('breaker_open', '');
    return DONE;
  }
  if (exchange.attempts++ > 0) upstream.stats.retries++;
  else if (!exchange.isHedge) upstream.stats.sent++;
  if (exchange.attempts === 1 && exchange.route.hedge) exchange.hedgeAt = now + hedgeDelayMs(exchange);
  new Attempt(exchange, target, now).start();
  return WAIT;
}

/** The answer is late: another attempt beside the first, if a permit is to spare. */
export function launchHedge(exchange: Exchange): void {
  const { shared, route, target, upstream, way, turnstiles } = exchange;
  if (!upstream.targets.hasOpen(shared.now()) || !way.line.tryEnter(turnstiles)) return;
  const hedge = new Hedge(exchange, (client) => new Exchange(shared, route.hedge!, client, target, true));
  tookPermit(hedge.exchange, false);
  hedge.exchange.advance();
}

const THE_BODY: Holder = { forget() {} };
const THE_STORE: Holder = { forget() {} };
const THE_QUEUE: Holder = { forget: leaveQueue };
