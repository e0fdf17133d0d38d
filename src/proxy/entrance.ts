// Where the requests of one listener come in: what is well formed gets an exchange on its route, all else a clear refusal.

import { answerFor, type FailureCode } from '../errors.ts';
import type { RequestHead } from '../http/request-head.ts';
import { parseTarget, type Target } from '../http/target.ts';
import type { ListenerStats } from '../observe/stats.ts';
import type { Client, UpgradableClient } from './client.ts';
import { Exchange } from './exchange.ts';
import type { Route } from './route.ts';
import type { Routes } from './routes.ts';
import type { Shared } from './shared.ts';
import { Tokens } from './tokens.ts';
import { Tunnel } from './tunnel.ts';

/** Memory that is short is so for seconds, and a loop that is late too. */
const OVERLOAD_RETRY_S = 2;
/** RFC 9110 section 11.6.1: a 401 names the scheme. This one is ours: the token has a field of its own, as Authorization is the API's. */
const CHALLENGE = ['www-authenticate', 'AiproxyToken'];

/** What is particular to a listener. */
export interface EntranceRules {
  /** Secrets; empty = everybody may come in. */
  readonly authorize: readonly string[];
  /** Name of the upstream that every path leads to; null = its first segment names one. */
  readonly upstream: string | null;
}

export class Entrance {
  readonly #shared: Shared;
  readonly #routes: Routes;
  readonly #stats: ListenerStats;
  readonly #tokens: Tokens | null;
  /** '' = the path says it. */
  readonly #upstream: string;

  constructor(shared: Shared, routes: Routes, stats: ListenerStats, { authorize, upstream }: EntranceRules) {
    this.#shared = shared;
    this.#routes = routes;
    this.#stats = stats;
    this.#tokens = authorize.length > 0 ? new Tokens(authorize) : null;
    this.#upstream = upstream ?? '';
  }

  /** Takes one request on its way. Never throws. */
  accept(client: UpgradableClient): void {
    try {
      this.#stats.requests++;
      this.#admit(client);
    } catch (error) {
      this.#shared.onBug(error);
      client.abort();
    }
  }

  #admit(client: UpgradableClient): void {
    const { head } = client;
    // No stage of a route: the token is the listener's, and who has none learns nothing of the routes, not even which there are.
    if (this.#tokens && !this.#tokens.includes(head.token)) {
      this.refuse(client, 'unauthorized', '');
      return;
    }
    const target = parseTarget(client.url, this.#upstream);
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
      if (head.websocket) {
        this.#openTunnel(client, route, target);
        return;
      }
      this.#stats.inFlight++;
      const exchange = new Exchange(this.#shared, route, client, target);
      exchange.advance();
    }
  }

  /** RFC 6455 section 4.1: the opening handshake is a GET of HTTP/1.1, and what follows it is no body. */
  #openTunnel(client: UpgradableClient, route: Route, target: Target): void {
    const { head, method, http10 } = client;
    if (!route.upstream.webSockets) this.refuse(client, 'websocket_off', '');
    else if (method !== 'GET' || http10)
      this.refuse(client, 'bad_request', 'a WebSocket begins with a GET of HTTP/1.1');
    else if (head.contentLength > 0 || head.chunked)
      this.refuse(client, 'bad_request', 'a WebSocket begins without a body');
    else {
      this.#stats.inFlight++;
      new Tunnel(this.#shared, route, client, target).start();
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
        close_code: null,
      });
    }
    if (code === 'unauthorized') answer.headers.push(...CHALLENGE);
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
