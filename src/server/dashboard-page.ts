// The page's life, as browser JavaScript: poll /stats, fill header and cards, say so when the port does not answer.

export const PAGE_JS = String.raw`
const POLL_MS = 2000;
const PATIENCE_MS = 5000;

const byId = (id) => document.getElementById(id);
const [about, state, alarm, troubles, numbersRoot] = ['about', 'state', 'alarm', 'troubles', 'numbers'].map(byId);

/** Every card on the page: a gap in reach, or a new process, concerns all of them. */
const cards = new Set();
const carded = (create) => (name) => {
  const card = create(name);
  cards.add(card);
  return card;
};
const showLimiters = keyed(byId('limiters'), carded(limiterCard));
const showTrouble = keyed(troubles, troubleLine);
const showHub = keyed(byId('redis'), carded(hubCard));
const showCache = keyed(byId('cache'), carded(cacheCard));
const showUpstreams = keyed(byId('upstreams'), carded(upstreamCard));

const TILES = ['Requests per second', 'In flight', 'Queued', 'Refused at the door', 'Memory (RSS)', 'Event loop p99', 'Overload'];
const tiles = TILES.map((name) => {
  const value = make('b', {});
  const note = make('small', {});
  const root = make('div', {}, make('dt', {}, name), make('dd', {}, value, note));
  byId('tiles').append(root);
  return (text, more) => {
    root.hidden = text === null;
    say(value, text ?? '');
    put(note, more);
  };
});

/** The last answer and when it came; null after a failure, because a rate over a gap would say nothing. */
let last = null;
let seen = false;
let lostAt = null;

/** Counters start again at 0 in another process: what was seen before is no base for rates. */
const isSameProcess = (before, now) => before.pid === now.pid && now.uptime_s >= before.uptime_s;

/** @returns requests per second since the last look; null when there is nothing to compare with */
function perSecond(at, requests, before) {
  if (before === undefined || at <= last.at) return null;
  return (Math.max(0, requests - before) / (at - last.at)) * 1000;
}

function showTiles(speed, { process, listener, limiters, overload }) {
  const queued = Object.values(limiters).reduce((all, limiter) => all + limiter.queued, 0);
  const refused = Object.entries(listener.refused).map(([code, n]) => words(code) + ' ' + count(n));
  tiles[0](rate(speed), listener.requests === 0 ? 'no requests yet' : count(listener.requests) + ' since start');
  tiles[1](count(listener.in_flight), count(listener.connections) + ' client connections');
  tiles[2](count(queued), queued === 0 ? 'nobody waits' : 'waiting for a permit');
  tiles[3](count(sum(listener.refused)), refused.join(', ') || 'reached no upstream');
  tiles[4](bytes(process.rss_bytes), 'heap ' + bytes(process.heap_used_bytes) + ', bodies ' + bytes(listener.body_memory_bytes));
  tiles[5](duration(process.event_loop_p99_ms), 'delay of the last 60 s');
  tiles[6](...(overloadTile(overload) ?? [null, '']));
}

function showState(name) {
  mark(state, 'data-state', name);
  put(state, name);
  document.title = name === 'serving' ? 'aiproxy' : 'aiproxy: ' + name;
}

function show(snapshot) {
  const at = performance.now();
  const { process, listener, limiters, redis, cache, upstreams } = snapshot;
  if (last && !isSameProcess(last.snapshot.process, process)) {
    last = null;
    for (const card of cards) card.forget();
  }
  const before = last?.snapshot;
  put(about, process.version + '  \u00b7  Node ' + process.node.replace(/^v/, '') + '  \u00b7  up ' + duration(process.uptime_s * 1000));
  showState(listener.draining ? 'draining' : 'serving');
  showTiles(perSecond(at, listener.requests, before?.listener.requests), snapshot);
  const wrong = allTrouble(snapshot);
  showTrouble(wrong.map(([key, name, said]) => [key, [name, said]]));
  troubles.hidden = wrong.length === 0;
  showLimiters(Object.entries(limiters).map(([name, numbers]) => [name, { at, numbers }]));
  showHub(redis === null ? [] : [['Redis', redis]]);
  const cached = Object.values(upstreams).some((upstream) => upstream.cache !== null);
  const savedPerSecond = perSecond(at, cache.saved_requests, before?.cache.saved_requests);
  showCache(cached ? [['Stored answers', { at, savedPerSecond, numbers: cache }]] : []);
  showUpstreams(Object.entries(upstreams).map(([name, numbers]) => {
    return [name, { at, numbers, perSecond: perSecond(at, numbers.requests, before?.upstreams[name]?.requests) }];
  }));
  for (const card of cards) if (!card.root.isConnected) cards.delete(card);
  byId('limiters').parentElement.hidden = Object.keys(limiters).length === 0;
  byId('redis').parentElement.hidden = redis === null;
  byId('cache').parentElement.hidden = !cached;
  numbersRoot.hidden = false;
  for (const part of [troubles, numbersRoot]) part.classList.remove('old');
  alarm.hidden = true;
  lostAt = null;
  last = { at, snapshot };
  seen = true;
}

function showLost(reason) {
  lostAt ??= new Date();
  last = null;
  for (const card of cards) card.miss(performance.now());
  showState('unreachable');
  const since = 'The stats port cannot be reached since ' + lostAt.toLocaleTimeString('en-GB') + ' (' + reason + '). ';
  put(alarm, since + (seen ? 'The numbers below are from before. ' : '') + 'Trying again every 2 s.');
  alarm.hidden = false;
  for (const part of [troubles, numbersRoot]) part.classList.add('old');
}

async function poll() {
  let snapshot = null;
  try {
    const answer = await fetch('stats', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error('it answered ' + answer.status);
    snapshot = await answer.json();
  } catch (error) {
    const reasons = { TimeoutError: 'no answer for 5 s', TypeError: 'no connection' };
    showLost(reasons[error.name] ?? error.message);
  }
  setTimeout(poll, POLL_MS);
  // Outside the try: a fault of this page must not read as a lost port.
  if (snapshot) show(snapshot);
}

poll();
`;
