// Which route a request target leads to.

import type { Target } from '../http/target.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { Route } from './route.ts';

/** At most so many names are listed to a client that asked for an unknown one. */
const MAX_NAMES = 20;

/** The ways to one upstream. */
export interface UpstreamRoutes {
  readonly regular: Route;
  readonly bypass: Route;
}

export class Routes {
  readonly #upstreams: ReadonlyMap<string, UpstreamRoutes>;

  /** @param plan see pipeline.ts */
  constructor(upstreams: readonly Upstream[], plan: (upstream: Upstream) => UpstreamRoutes) {
    this.#upstreams = new Map(upstreams.map((upstream) => [upstream.name, plan(upstream)]));
  }

  match(target: Target): Route | null {
    const routes = this.#upstreams.get(target.name);
    if (!routes) return null;
    return routes.regular.upstream.bypassPaths.matches(target) ? routes.bypass : routes.regular;
  }

  /** For the 404: the names there are. */
  get known(): string {
    const names = [...this.#upstreams.keys()];
    const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : '';
    return `${names.slice(0, MAX_NAMES).join(', ')}${more}`;
  }
}
