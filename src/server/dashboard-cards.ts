// The page's two kinds of cards, as browser JavaScript: one per limiter, one per upstream.

export const CARDS_JS = String.raw`
/** What one number was in the last five minutes: points of [time, value]; a null value is a gap. */
function series() {
  let points = [];
  return {
    forget() {
      points = [];
    },
    add(at, value) {
      points = points.filter(([then]) => at - then <= SPAN_MS);
      points.push([at, value]);
      return points;
    },
  };
}

// ---- one limiter

const COLUMNS = ['Operation', 'In flight', 'Queued', 'Granted', 'Waited', 'Refused', 'Wait p50', 'p95', 'p99'];

const limiterRow = (of) => [
  ...[of.in_flight, of.queued, of.granted, of.waited, of.refused].map(count),
  ...['p50', 'p95', 'p99'].map((key) => percentile(of.wait_ms, key)),
];

function limiterCard(name) {
  const note = make('p', { class: 'queue' });
  const now = make('b', {});
  const max = make('span', {});
  const use = bar(['use']);
  const peaks = facts('Peak in flight', 'Peak queue', 'Longest wait, 60 s', 'Adaptive limit', 'Shared permits');
  const queue = sparkline('Queued', count);
  const grid = table('Limiter ' + name + ' by operation', COLUMNS);
  const everything = row('all');
  const operations = make('tbody', {});
  const showOperations = keyed(operations, row);
  const past = series();
  grid.body.append(everything.root);
  grid.body.after(operations);
  const lanes = lanesPart(name);
  const tables = make('div', { class: 'tables' }, grid.root, lanes.root);
  const flying = make('div', { class: 'use' }, make('span', { class: 'name' }, 'In flight'), make('p', { class: 'now' }, now, max), use.root, peaks.root);
  const head = make('header', {}, make('h3', {}, name), note);
  const root = make('article', { class: 'card limiter' }, head, make('div', { class: 'charts' }, flying, queue.root, tables));
  return {
    root,
    forget: past.forget,
    miss: (at) => queue.update(at, null, past.add(at, null)),
    update({ at, numbers }) {
      const permits = numbers.max_concurrent;
      const room = numbers.max_queue === null ? '' : ' of ' + count(numbers.max_queue);
      // The same thresholds as the warning and alert lines of the log.
      mark(root, 'data-level', numbers.queued > 20 ? 'alert' : numbers.queued > 10 ? 'warn' : 'fine');
      put(note, numbers.queued === 0 ? 'no queue' : count(numbers.queued) + room + ' queued');
      put(now, count(numbers.in_flight));
      put(max, permits === null ? 'unlimited' : 'of ' + count(permits));
      use.root.hidden = permits === null;
      if (permits !== null) use.update([Math.min(1, numbers.in_flight / permits)], numbers.in_flight + ' of ' + permits + ' permits held', numbers.peak_in_flight === 0 ? null : numbers.peak_in_flight / permits);
      peaks.update(count(numbers.peak_in_flight), count(numbers.peak_queued), percentile(numbers.wait_ms, 'max'), adaptiveText(numbers), sharedText(numbers));
      lanes.update(numbers.lanes);
      queue.update(at, numbers.queued, past.add(at, numbers.queued));
      everything.update(limiterRow(numbers));
      showOperations(Object.entries(numbers.operations).map(([label, of]) => [label, limiterRow(of)]));
    },
  };
}

// ---- one upstream

const CLASSES = ['2xx', '3xx', '4xx', '5xx', 'other'];
const classOf = (code) => (code.length === 3 && code[0] >= '2' && code[0] <= '5' ? code[0] + 'xx' : 'other');

const TIMES = [
  ['Latency', (numbers) => numbers.latency_ms],
  ['First byte', (numbers) => numbers.ttfb_ms],
  ['Proxy overhead', (numbers) => numbers.overhead_ms],
  ['Opening a connection', (numbers) => numbers.pool.connect_ms],
];

function webSocketsText(sockets) {
  if (sockets === null) return null;
  const text = count(sockets.open) + ' of ' + limit(sockets.max) + ' open, ' + count(sockets.opened) + ' so far';
  return sockets.refused > 0 ? [text + ', ' + count(sockets.refused) + ' refused', 'warn'] : text;
}

function answersPart() {
  const total = make('span', {});
  const split = bar(CLASSES);
  const codes = chips('Answers by status code');
  const failures = chips('Failures by code');
  const traffic = facts('Received', 'Sent', 'WebSockets', ...TRIES);
  const failed = make('p', { class: 'failed' }, 'Failures');
  const root = make('section', {}, make('h4', {}, 'Answers ', total), split.root, codes.root, failed, failures.root, traffic.root);
  return {
    root,
    update(numbers) {
      const all = sum(numbers.status);
      const byClass = Object.fromEntries(CLASSES.map((name) => [name, 0]));
      for (const [code, n] of Object.entries(numbers.status)) byClass[classOf(code)] += n;
      const said = CLASSES.filter((name) => byClass[name] > 0).map((name) => name + ' ' + percent(byClass[name] / all));
      put(total, count(all));
      split.root.hidden = all === 0;
      if (all > 0) split.update(CLASSES.map((name) => byClass[name] / all), 'Answers by class: ' + said.join(', '));
      codes.update(numbers.status, classOf);
      failures.update(numbers.failures, () => 'failure');
      put(failed, sum(numbers.failures) > 0 ? 'Failures' : 'No failures');
      traffic.update(bytes(numbers.bytes_in), bytes(numbers.bytes_out), webSocketsText(numbers.websocket), ...triesText(numbers));
    },
  };
}

function streamsText(streams) {
  return streams.max === 0 ? null : count(streams.open) + ' of ' + limit(streams.max);
}

function poolPart() {
  const total = make('span', {});
  const use = bar(['active', 'connecting', 'idle']);
  const legend = chips('Connections by state');
  const reuse = facts('Reuse', 'Time saved', 'Opened', 'Closed', 'Failed to open', 'HTTP/2 streams');
  const reasons = chips('Closed connections by reason');
  const root = make('section', {}, make('h4', {}, 'Connections ', total), use.root, legend.root, reuse.root, reasons.root);
  return {
    root,
    update(pool) {
      const { active, connecting, idle, max } = pool;
      const whole = Math.max(max, active + connecting + idle) || 1;
      put(total, count(active + connecting + idle) + ' of ' + limit(max));
      use.update([active / whole, connecting / whole, idle / whole], active + ' active, ' + connecting + ' connecting, ' + idle + ' idle, of ' + max);
      legend.update({ active, connecting, idle }, (state) => state);
      reuse.update(percent(pool.reuse_rate), duration(pool.saved_ms), count(pool.opened), count(pool.closed), count(pool.connect_failed), streamsText(pool.streams));
      reasons.update(pool.closed_by, () => 'reason');
    },
  };
}

function upstreamCard(name) {
  const url = make('span', { class: 'url' });
  const flying = make('p', { class: 'queue' });
  const empty = make('p', { class: 'empty' }, 'No requests yet');
  const speeds = series();
  const tails = series();
  const speed = sparkline('Requests per second', rate);
  const tail = sparkline('Latency p95', duration);
  const times = table('Times of ' + name + ', last 60 s', ['Last 60 s', 'p50', 'p95', 'p99', 'max']);
  const showTimes = keyed(times.body, row);
  const answers = answersPart();
  const pool = poolPart();
  const charts = make('div', { class: 'charts' }, speed.root, tail.root, times.root);
  const halves = make('div', { class: 'halves' }, answers.root, pool.root);
  const trouble = troublePart();
  const head = make('header', {}, make('h3', {}, name), url, ...trouble.roots, flying);
  const cached = cachedLine();
  const guards = guardsPart(name);
  const root = make('article', { class: 'card upstream' }, head, cached.root, empty, charts, guards.root, halves);
  return {
    root,
    forget() {
      speeds.forget();
      tails.forget();
    },
    miss(at) {
      speed.update(at, null, speeds.add(at, null));
      tail.update(at, null, tails.add(at, null));
    },
    update({ at, perSecond, numbers }) {
      const quiet = numbers.requests === 0 && numbers.in_flight === 0;
      const p95 = numbers.latency_ms.count > 0 ? numbers.latency_ms.p95 : null;
      empty.hidden = !quiet;
      charts.hidden = quiet;
      answers.root.hidden = quiet;
      put(url, numbers.url + (numbers.limiter === null ? '' : '  \u00b7  limiter ' + numbers.limiter));
      put(flying, count(numbers.in_flight) + ' in flight');
      cached.update(numbers.cache);
      trouble.update(numbers);
      guards.update(numbers);
      speed.update(at, perSecond, speeds.add(at, perSecond));
      tail.update(at, p95, tails.add(at, p95));
      showTimes(TIMES.map(([title, read]) => [title, ['p50', 'p95', 'p99', 'max'].map((key) => percentile(read(numbers), key))]));
      answers.update(numbers);
      pool.update(numbers.pool);
    },
  };
}
`;
