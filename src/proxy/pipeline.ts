// The life of a request, in order. Read this and you know the product.
//
//   listener → Entrance.accept: is the request well formed, which upstream? → new Exchange → advance() over STAGES
//   attempt → exchange.begin → exchange.write… → exchange.finish | fail → exchange.settle
//
// A stage is a plain function: NEXT goes on, DONE means an answer was given, WAIT means somebody will unpark the exchange.

import { answerFor, type FailureCode } from '../errors.ts';
import type { RequestHead } from '../http/request-head.ts';
import { parseTarget } from '../http/target.ts';
import type { ListenerStats } from '../observe/stats.ts';
import { Attempt } from './attempt.ts';
import { Body } from './body.ts';
import type { Client } from './client.ts';
import { DONE, Exchange, type Holder, NEXT, type Shared, type Stage, type StageResult, WAIT } from './exchange.ts';
import type { Routes } from './routes.ts';

/** Every exchange runs through these, from the first to the last. */
const STAGES: readonly Stage[] = [readBody, acquire, dispatch];

/** Reads the body ahead, up to body_buffer, so that a slow upload holds no permit. */
function readBody(exchange: Exchange): StageResult {
  const { head, shared, client } = exchange;
  if (!head.chunked && head.contentLength <= 0) return NEXT;
  exchange.body = new Body(client, head.contentLength, shared.bodyMemory);
  client.readBody();
  return exchange.park(THE_BODY);
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
      new Exchange(this.#shared, STAGES, route.upstream, route.lane, client, target).advance();
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
