// What the page shows of the cache, as browser JavaScript: one card for all, one line per upstream that has one.

export const CACHE_JS = String.raw`
/** What became of requests, from cheap to dear; the names are those of /stats. */
const OUTCOMES = ['hits', 'coalesced', 'revalidated', 'stale', 'misses', 'bypassed'];

const lookedUp = (cache) => cache.hits + cache.stale + cache.revalidated + cache.coalesced + cache.misses;

/** A big number with a word beside it, and whatever stands below. */
function figure(name, ...below) {
  const value = make('b', {});
  const note = make('span', {});
  const root = make('div', { class: 'use' }, make('span', { class: 'name' }, name), make('p', { class: 'now' }, value, note), ...below);
  return {
    root,
    update(text, more) {
      put(value, text);
      put(note, more);
    },
  };
}

function outcomesPart() {
  const total = make('span', {});
  const split = bar(OUTCOMES);
  const legend = chips('Requests by what the cache did');
  const root = make('section', {}, make('h4', {}, 'Requests ', total), split.root, legend.root);
  return {
    root,
    update(cache) {
      const counts = OUTCOMES.map((name) => cache[name]);
      const all = counts.reduce((a, b) => a + b, 0);
      put(total, count(all));
      root.hidden = all === 0;
      if (all > 0) split.update(counts.map((n) => n / all), 'Requests: ' + OUTCOMES.map((name) => name + ' ' + percent(cache[name] / all)).join(', '));
      legend.update(Object.fromEntries(OUTCOMES.map((name) => [name, cache[name]])), (name) => name);
    },
  };
}

function redisPart() {
  const state = make('b', { class: 'redis' });
  const numbers = facts('Found', 'Written');
  const trouble = chips('Trouble with Redis');
  const root = make('section', {}, make('h4', {}, 'Redis ', state), numbers.root, trouble.root);
  return {
    root,
    update(redis) {
      root.hidden = redis === null;
      if (redis === null) return;
      const { gets, hits, puts, timeouts, errors, dropped, rejected } = redis;
      put(state, redis.state);
      mark(state, 'data-state', redis.state);
      numbers.update(count(hits) + ' of ' + count(gets), count(puts));
      trouble.update({ timeouts, errors, dropped, rejected }, () => 'failure');
    },
  };
}

function cacheCard(name) {
  const flights = make('p', { class: 'queue' });
  const saved = facts('Calls saved', 'Time saved');
  const rateOf = figure('Hit rate', saved.root);
  const use = bar(['use']);
  const kept = facts('Entries', 'Evicted', 'Swept');
  const memory = figure('Memory', use.root, kept.root);
  const speed = sparkline('Calls saved per second', rate);
  const outcomes = outcomesPart();
  const redis = redisPart();
  const past = series();
  const head = make('header', {}, make('h3', {}, name), flights);
  const charts = make('div', { class: 'charts' }, rateOf.root, memory.root, speed.root);
  const halves = make('div', { class: 'halves' }, outcomes.root, redis.root);
  const root = make('article', { class: 'card cache' }, head, charts, halves);
  return {
    root,
    forget: past.forget,
    miss: (at) => speed.update(at, null, past.add(at, null)),
    update({ at, savedPerSecond, numbers }) {
      const { flights: flying, flight_memory_bytes: held, max_bytes: most } = numbers;
      put(flights, flying === 0 ? 'no shared fetch' : count(flying) + (flying === 1 ? ' shared fetch, ' : ' shared fetches, ') + bytes(held));
      rateOf.update(percent(numbers.hit_rate), numbers.hit_rate === null ? 'nothing looked up yet' : 'of ' + count(lookedUp(numbers)) + ' looked up');
      saved.update(count(numbers.saved_requests), duration(numbers.saved_ms));
      memory.update(bytes(numbers.bytes), 'of ' + bytes(most));
      use.update([Math.min(1, numbers.bytes / most)], bytes(numbers.bytes) + ' of ' + bytes(most) + ' used');
      kept.update(count(numbers.entries), count(numbers.evicted), count(numbers.swept));
      speed.update(at, savedPerSecond, past.add(at, savedPerSecond));
      outcomes.update(numbers);
      redis.update(numbers.redis);
      halves.hidden = outcomes.root.hidden && redis.root.hidden;
    },
  };
}

/** Of one upstream; hidden where nothing is stored or shared. */
function cachedLine() {
  const hitRate = make('b', {});
  const rest = make('span', {});
  const root = make('p', { class: 'cached' }, 'Cache ', hitRate, rest);
  return {
    root,
    update(cache) {
      root.hidden = cache === null;
      if (cache === null) return;
      put(hitRate, cache.hit_rate === null ? 'nothing looked up yet' : percent(cache.hit_rate) + ' hits');
      const saved = count(cache.saved_requests) + (cache.saved_requests === 1 ? ' call and ' : ' calls and ') + duration(cache.saved_ms) + ' saved';
      put(rest, cache.hit_rate === null ? '' : '  \u00b7  ' + saved + '  \u00b7  ' + count(cache.entries) + ' stored, ' + bytes(cache.bytes));
    },
  };
}
`;
