// Where clients' requests come in: what is well formed gets an exchange on its route, all else a clear refusal.

import { answerFor, type FailureCode } from '../errors.ts';
import type { RequestHead } from '../http/request-head.ts';
import { parseTarget } from '../http/target.ts';
import type { ListenerStats } from '../observe/stats.ts';
import type { Client } from './client.ts';
import { Exchange } from './exchange.ts';
import type { Routes } from './routes.ts';
import type { Shared } from './shared.ts';

/** Memory that is short is so for seconds, and a loop that is late too. */
const OVERLOAD_RETRY_S = 2;

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
      if (this.#shared.overload?.refusing && route.way !== route.upstream.bypass) {
        this.refuse(client, 'overloaded', '', OVERLOAD_RETRY_S);
        return;
      }
      this.#stats.inFlight++;
      const exchange = new Exchange(this.#shared, route, client, target);
      exchange.advance();
    }
  }

  /** Answers a request that leads to no upstream. */
  refuse(client: Client, code: FailureCode, detail: string, retryAfterS = 0): void {
    this.#stats.refused.add(code);
    const answer = answerFor(code, detail, retryAfterS);
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
        hedged: false,
        lane: null,
        target: null,
        retry_ms: null,
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
