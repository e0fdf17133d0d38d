// What the page shows of an upstream's bad day, as browser JavaScript: breakers, targets, retries, limits, pauses, lanes, Redis, overload.
// What is not configured takes no room; what is well is said quietly.

export const RESILIENCE_JS = String.raw`
/** A short word in a coloured field; none where there is nothing to say. */
function pill() {
  const root = make('b', { class: 'pill', hidden: '' });
  return {
    root,
    update(text, level = 'fine') {
      root.hidden = text === null;
      if (text === null) return;
      put(root, text);
      mark(root, 'data-level', level);
    },
  };
}

/** Rounded up: what is said to end in 0 s has ended. */
const inSeconds = (ms) => duration(Math.ceil(ms / 1000) * 1000);

// ---- breakers and targets

const BREAKER_LEVELS = { closed: null, half_open: 'warn', open: 'alert' };

const breakerText = ({ state, retry_after_ms: ms }) => (state === 'open' ? 'open, tries again in ' + inSeconds(ms) : words(state));

/** @returns [text, level] of what the breakers of all targets mean for the upstream; null while all are closed */
function breakersText(targets) {
  const breakers = targets.map((target) => target.breaker).filter((breaker) => breaker !== null);
  const open = breakers.filter((breaker) => breaker.state === 'open');
  const half = breakers.filter((breaker) => breaker.state === 'half_open');
  const which = (some) => (targets.length === 1 ? 'breaker' : some.length + ' of ' + targets.length + ' targets');
  if (open.length === 0) return half.length === 0 ? null : [which(half) + ' half open', 'warn'];
  if (open.length < targets.length) return [which(open) + ' open', 'warn'];
  const soonest = Math.min(...open.map((breaker) => breaker.retry_after_ms));
  return [which(open) + ' open, tries again in ' + inSeconds(soonest), 'alert'];
}

/** Rows by place and name, because two may have the same name. */
const placed = (entries) => entries.map(([name, texts], i) => [i + ' ' + name, texts]);

function placedRow(key) {
  const name = key.slice(key.indexOf(' ') + 1);
  return row(name, name.replace(/^https:\/\//, ''));
}

const TARGET_COLUMNS = ['Target', 'Breaker', 'Opened', 'Priority', 'Weight', 'In flight', 'Attempts', 'Failures'];

const targetRow = ({ breaker, priority, weight, in_flight: flying, attempts, failures }) => [
  breaker === null ? DASH : [breakerText(breaker), BREAKER_LEVELS[breaker.state]],
  breaker === null ? DASH : count(breaker.opened),
  ...[priority, weight, flying, attempts, failures].map(count),
];

function targetsPart(name) {
  const grid = table('Targets of ' + name, TARGET_COLUMNS);
  const show = keyed(grid.body, placedRow);
  const root = make('section', { class: 'targets' }, grid.root);
  return {
    root,
    update(targets) {
      root.hidden = targets.length < 2;
      show(root.hidden ? [] : placed(targets.map((target) => [target.url, targetRow(target)])));
    },
  };
}

// ---- attempts after the first, and a lone target's breaker

/** Less than one retry is none. */
const budgetIsEmpty = (budget) => budget !== null && budget.balance < 1;

const TRIES = ['Retries', 'Retry budget', 'Not retried', 'Hedges', 'Maybe billed twice', 'Breaker'];

function triesText({ retries, retry_budget: budget, hedges, maybe_billed_twice: twice, targets }) {
  const breaker = targets.length === 1 ? targets[0].breaker : null;
  return [
    count(retries),
    budget && (budgetIsEmpty(budget) ? ['empty', 'alert'] : count(Math.floor(budget.balance)) + ' left'),
    budget && budget.exhausted > 0 ? [count(budget.exhausted), 'warn'] : null,
    hedges && count(hedges.sent) + ', ' + count(hedges.won) + ' won',
    twice > 0 ? [count(twice), 'warn'] : null,
    breaker && [(breaker.state === 'closed' ? 'closed' : breakerText(breaker)) + (breaker.opened > 0 ? ', opened ' + count(breaker.opened) + '\u00d7' : ''), BREAKER_LEVELS[breaker.state]],
  ];
}

// ---- rate limits, ours and the upstream's

const PERIODS = { 1000: 's', 60000: 'min', 3600000: 'h', 86400000: 'd' };
const LIMIT_COLUMNS = ['Rate limit', 'By', 'Held now', 'Held', 'Refused', 'Keys'];

const limitName = ({ requests, per_ms: per, burst }) => count(requests) + ' / ' + (PERIODS[per] ?? duration(per)) + ', burst ' + count(burst);

const limitRow = (limit) => [
  limit.key + (limit.shared ? ', shared' : ''),
  limit.on_limit === 'wait' ? [count(limit.held), limit.held > 0 ? 'warn' : null] : 'never',
  limit.on_limit === 'wait' ? count(limit.held_total) : DASH,
  count(limit.refused),
  limit.overflowed > 0 ? [count(limit.keys) + ', full', 'warn'] : count(limit.keys),
];

function limitsPart(name) {
  const grid = table('Rate limits of ' + name, LIMIT_COLUMNS);
  const show = keyed(grid.body, placedRow);
  const root = make('section', {}, grid.root);
  return {
    root,
    update(limits) {
      root.hidden = limits.length === 0;
      show(placed(limits.map((limit) => [limitName(limit), limitRow(limit)])));
    },
  };
}

function feedbackPart() {
  const heading = make('h4', {}, 'Asked for by the upstream');
  const numbers = facts('Pause', 'Pauses so far', 'Held now', 'Held', 'Credentials');
  const root = make('section', { class: 'feedback' }, heading, numbers.root);
  return {
    root,
    update(feedback) {
      root.hidden = feedback === null;
      if (feedback === null) return;
      const { paused_ms: ms, pauses, held, held_total: ever, credentials } = feedback;
      numbers.update(ms > 0 ? [inSeconds(ms), 'warn'] : 'none', count(pauses), held > 0 ? [count(held), 'warn'] : '0', count(ever), count(credentials));
    },
  };
}

/** Between an upstream's curves and its answers. */
function guardsPart(name) {
  const targets = targetsPart(name);
  const limits = limitsPart(name);
  const feedback = feedbackPart();
  const root = make('div', { class: 'guards' }, targets.root, limits.root, feedback.root);
  return {
    root,
    update(numbers) {
      targets.update(numbers.targets);
      limits.update(numbers.rate_limits);
      feedback.update(numbers.feedback);
      root.hidden = targets.root.hidden && limits.root.hidden && feedback.root.hidden;
    },
  };
}

/** Beside an upstream's name: what is wrong just now. */
function troublePart() {
  const breaker = pill();
  const pause = pill();
  return {
    roots: [breaker.root, pause.root],
    update({ targets, feedback }) {
      breaker.update(...(breakersText(targets) ?? [null]));
      pause.update(...(pauseText(feedback) ?? [null]));
    },
  };
}

// ---- of a limiter

const LANE_COLUMNS = ['Lane', 'Share', 'Queued', 'Granted', 'Of granted'];

function lanesPart(name) {
  const grid = table('Lanes of ' + name, LANE_COLUMNS);
  const show = keyed(grid.body, row);
  return {
    root: grid.root,
    update(lanes) {
      const entries = Object.entries(lanes);
      const shares = entries.reduce((all, [, lane]) => all + lane.share, 0);
      const granted = entries.reduce((all, [, lane]) => all + lane.granted, 0);
      grid.root.hidden = entries.length === 0;
      show(entries.map(([lane, of]) => [lane, [percent(of.share / shares), count(of.queued), count(of.granted), percent(granted === 0 ? null : of.granted / granted)]]));
    },
  };
}

const adaptiveText = ({ adaptive, max_concurrent: now }) => adaptive && limit(now) + ', from ' + count(adaptive.min) + ' to ' + count(adaptive.max);

function sharedText({ shared }) {
  if (shared === null) return null;
  if (shared.source === 'local') return ['local share', 'warn'];
  return count(shared.held) + ' leased' + (shared.waiting > 0 ? ', ' + count(shared.waiting) + ' asked for' : '');
}

// ---- of the process

const HUB_LEVELS = { up: 'good', down: 'alert', connecting: 'warn' };

const hubText = ({ state }) => state + ', every sidecar keeps to its local share';

function hubCard(name) {
  const state = pill();
  const peers = make('p', { class: 'queue' });
  const numbers = facts('Questions', 'Rate tokens', 'Of the local share');
  const trouble = chips('Trouble with Redis');
  const root = make('article', { class: 'card hub' }, make('header', {}, make('h3', {}, name), state.root, peers), numbers.root, trouble.root);
  return {
    root,
    forget() {},
    miss() {},
    update({ state: now, peers: alive, asked, errors, timeouts, tokens }) {
      state.update(now, HUB_LEVELS[now]);
      put(peers, count(alive) + (alive === 1 ? ' sidecar' : ' sidecars') + (now === 'up' ? '' : ' when last seen'));
      numbers.update(count(asked), count(tokens.redis), count(tokens.local));
      trouble.update({ timeouts, errors }, () => 'failure');
    },
  };
}

const OVERLOAD = [
  ['calm', null, ''],
  ['level 1', 'warn', 'The cache is made smaller.'],
  ['level 2', 'alert', 'The cache is made smaller and new requests are refused.'],
  ['level 3', 'alert', 'New requests are refused and clients\u2019 connections are closed.'],
];

/** @returns [value, note] of the tile; null = not watched */
function overloadTile(overload) {
  if (overload === null) return null;
  const [text, level] = OVERLOAD[overload.level];
  const { shrink, refuse, close } = overload.entered;
  const times = [['shrank cache', shrink], ['refused', refuse], ['closed', close]].filter(([, n]) => n > 0);
  return [[text, level], times.map(([what, n]) => what + ' ' + count(n) + '\u00d7').join(', ') || 'never yet'];
}

function overloadText(overload) {
  if (overload === null || overload.level === 0) return null;
  const [name, level, meaning] = OVERLOAD[overload.level];
  const memory = overload.memory_share === null ? '' : 'memory ' + percent(overload.memory_share) + ' full, ';
  return [name + '. ' + meaning + ' Now ' + memory + 'event loop ' + duration(overload.loop_lag_ms) + ' late.', level];
}

const pauseText = (feedback) => (feedback && feedback.paused_ms > 0 ? ['paused for ' + inSeconds(feedback.paused_ms), 'warn'] : null);

function upstreamTrouble({ targets, feedback, retry_budget: budget }) {
  const all = [breakersText(targets), budgetIsEmpty(budget) ? ['retry budget empty', 'alert'] : null, pauseText(feedback)];
  const wrong = all.filter((said) => said !== null);
  if (wrong.length === 0) return null;
  return [wrong.map(([text]) => text).join('; '), wrong.some(([, level]) => level === 'alert') ? 'alert' : 'warn'];
}

/** What is wrong anywhere just now: [key, name, [text, level]]. */
function allTrouble({ overload, redis, upstreams }) {
  const all = [
    ['overload', 'Overload', overloadText(overload)],
    ['redis', 'Redis', redis === null || redis.state === 'up' ? null : [hubText(redis), HUB_LEVELS[redis.state]]],
    ...Object.entries(upstreams).map(([name, upstream]) => ['upstream ' + name, name, upstreamTrouble(upstream)]),
  ];
  return all.filter(([, , said]) => said !== null);
}

/** A line of the list above everything. */
function troubleLine() {
  const name = make('b', {});
  const text = make('span', {});
  const root = make('li', {}, name, text);
  return {
    root,
    update([who, [what, level]]) {
      put(name, who);
      put(text, what);
      mark(root, 'data-level', level);
    },
  };
}
`;
