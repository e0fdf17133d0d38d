// The life of a request, in order. Read this and you know the product.
//
//   listener → Entrance.accept: is the request well formed, which upstream? → new Exchange → advance() over STAGES
//   attempt → exchange.begin → exchange.write… → exchange.finish | fail → exchange.settle
//
// A stage is a plain function: NEXT goes on, DONE means an answer was given, WAIT means somebody will unpark the exchange.

import type { AnswerCache } from '../cache/answer-cache.ts';
import { revalidationPairs, withoutConditionals } from '../cache/conditional.ts';
import { NO_FIELDS } from '../cache/request-fields.ts';
import { answerFor, type FailureCode } from '../errors.ts';
import type { RequestHead } from '../http/request-head.ts';
import { parseTarget } from '../http/target.ts';
import type { ListenerStats } from '../observe/stats.ts';
import { Attempt } from './attempt.ts';
import { Body } from './body.ts';
import { CacheUse } from './cache-use.ts';
import type { Client } from './client.ts';
import { Phase } from './deadlines.ts';
import { DONE, Exchange, type Holder, NEXT, type Shared, type Stage, type StageResult, WAIT } from './exchange.ts';
import { Flight } from './flight.ts';
import { Refresh } from './refresh.ts';
import { choose, mayBeShared, planCacheUse } from './reuse.ts';
import type { Routes } from './routes.ts';
import { serve } from './serve.ts';

/** Every exchange runs through one of these lists, from the first to the last. */
const PLAIN: readonly Stage[] = [readBody, acquire, dispatch];
/** Where answers are stored, or twins share a fetch. */
const CACHED: readonly Stage[] = [readBody, reuse, coalesce, acquire, dispatch];
/** The fetch that requests share, an exchange whose client is a Flight. */
const SHARED: readonly Stage[] = [recall, acquire, dispatch];

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
function passBy(exchange: Exchange, cache: AnswerCache): void {
  exchange.cacheUse = new CacheUse(NO_FIELDS, '');
  exchange.cacheUse.detail = 'bypass_path';
  cache.counters.bypassed++;
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
  const { shared, upstream, target, head } = leader;
  const forward = withoutConditionals(head.forward);
  if (use.entry) forward.push(...revalidationPairs(use.entry));
  const flight = new Flight(upstream.cache!, use, leader, { ...head, forward }, background, (client) => {
    return new Exchange(shared, SHARED, upstream, upstream.shared, client, target, true);
  });
  flight.exchange.body = body;
  shared.flights.add(flight, (upstream.cache!.coalesce || background) && !use.fields.onlyIfCached);
  if (!background) {
    leader.leadsFlight = true;
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

/** A permit of the limiter and a connection slot, both at once, or a place in the queue. */
function acquire(exchange: Exchange): StageResult {
  const { line } = exchange.lane;
  if (line.tryEnter()) {
    exchange.tookPermit(false);
    return NEXT;
  }
  if (exchange.joinLine()) return exchange.park(THE_QUEUE);
  line.limiter.refused++;
  exchange.fail('queue_full', `${line.limiter.name} has ${line.limiter.queued} waiting`);
  return DONE;
}

/** One attempt; a second one, on a fresh connection, comes back here. */
function dispatch(exchange: Exchange): StageResult {
  exchange.attempts++;
  new Attempt(exchange).start();
  return WAIT;
}

const THE_BODY: Holder = { forget() {} };
const THE_STORE: Holder = { forget() {} };
const THE_QUEUE: Holder = { forget: (exchange) => exchange.leaveLine() };

/** Where clients' requests come in. */
export class Entrance {
  readonly #shared: Shared;
  readonly #routes: Routes;
  readonly #stats: ListenerStats;

  constructor(shared: Shared, routes: Routes, stats: ListenerStats) {
    this.#shared = shared;
    this.#routes = routes;
    this.#stats = stats;
  }

  /** Takes one request on its way. Never throws. */
  accept(client: Client): void {
    try {
      this.#stats.requests++;
      this.#admit(client);
    } catch (error) {
      this.#shared.onBug(error);
      client.abort();
    }
  }

  #admit(client: Client): void {
    const { head } = client;
    const target = parseTarget(client.url);
    if (head.problem) this.refuse(client, 'bad_request', head.problem);
    else if (!hostIsRight(head, client.http10)) this.refuse(client, 'invalid_host', '');
    else if (typeof target === 'string') this.refuse(client, 'invalid_target', target);
    else if (client.method === 'CONNECT') this.refuse(client, 'invalid_target', 'CONNECT is not supported');
    else {
      const route = this.#routes.match(target);
      if (!route) {
        this.refuse(client, 'unknown_upstream', `known are ${this.#routes.known}`);
        return;
      }
      this.#stats.inFlight++;
      const { upstream, lane } = route;
      const isCached = upstream.cache !== null && lane === upstream.regular;
      const exchange = new Exchange(this.#shared, isCached ? CACHED : PLAIN, upstream, lane, client, target);
      if (upstream.cache && !isCached) passBy(exchange, upstream.cache);
      exchange.advance();
    }
  }

  /** Answers a request that leads to no upstream. */
  refuse(client: Client, code: FailureCode, detail: string): void {
    this.#stats.refused.add(code);
    const answer = answerFor(code, detail, 0);
    const { access } = this.#shared;
    if (access.wants(code, answer.status)) {
      access.write({
        upstream: '',
        method: client.method,
        path: loggable(client.url),
        status: answer.status,
        failure: code,
        queue_ms: null,
        connect_ms: null,
        ttfb_ms: null,
        total_ms: 0,
        bytes_in: 0,
        bytes_out: answer.body.length,
        reused: null,
        attempts: 0,
        cache: null,
        operation: null,
      });
    }
    client.begin(answer.status, '', answer.headers);
    client.finish(answer.body);
  }
}

/** The path of a target that was refused. An absolute URL may carry a password, a query or fragment a key. */
function loggable(url: string): string {
  return url.startsWith('/') && !url.startsWith('//') ? url.slice(0, url.search(/[?#]|$/)) : '';
}

/** Exactly one, well formed; HTTP/1.0 may have none (RFC 9112 section 3.2). */
function hostIsRight(head: RequestHead, http10: boolean): boolean {
  return head.hostOk && (head.hosts === 1 || (http10 && head.hosts === 0));
}
