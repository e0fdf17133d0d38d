// Which upstream, and which lane of it, a request target leads to.

import type { Target } from '../http/target.ts';
import type { Lane, Upstream } from '../upstream/upstream.ts';

/** At most so many names are listed to a client that asked for an unknown one. */
const MAX_NAMES = 20;

export interface Route {
  readonly upstream: Upstream;
  readonly lane: Lane;
}

export class Routes {
  readonly #upstreams: ReadonlyMap<string, Upstream>;
  readonly #regular: ReadonlyMap<string, Route>;

  constructor(upstreams: readonly Upstream[]) {
    this.#upstreams = new Map(upstreams.map((upstream) => [upstream.name, upstream]));
    this.#regular = new Map(upstreams.map((upstream) => [upstream.name, { upstream, lane: upstream.regular }]));
  }

  match(target: Target): Route | null {
    const route = this.#regular.get(target.name);
    if (!route) return null;
    const { upstream } = route;
    return upstream.bypassPaths.matches(target) ? { upstream, lane: upstream.bypass } : route;
  }

  /** For the 404: the names there are. */
  get known(): string {
    const names = [...this.#upstreams.keys()];
    const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : '';
    return `${names.slice(0, MAX_NAMES).join(', ')}${more}`;
  }
}
