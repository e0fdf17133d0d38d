// The rules between keys of limits and resilience, inside one section, in an upstream, and across the file.
//
// As in rules.ts, they run whether or not the keys themselves are right.

import { type Key, type Path, pathText } from './path.ts';
import { atMost, fields, type Report } from './rules.ts';
import { suggest } from './suggest.ts';
import { parseDuration, parseSize } from './units.ts';

const ANY = { min: 0, max: Number.POSITIVE_INFINITY };

export function overloadRules(section: unknown, report: Report): void {
  const shares = fields(section);
  const steps = ['shrink_cache_at', 'refuse_at', 'close_at'] as const;
  for (const [index, key] of steps.slice(0, -1).entries()) {
    const other = steps[index + 1]!;
    const [input, limit] = [shares[key], shares[other]];
    if (typeof input !== 'number' || typeof limit !== 'number' || input < limit) continue;
    refuse(report, [key], input, `must be below ${other}`, [other], limit);
  }
}

export function adaptiveRules(section: unknown, report: Report): void {
  const { min, max } = fields(section);
  if (typeof min === 'number' && typeof max === 'number' && max >= 1 && min > max) {
    report.addIssue(atMost(['min'], min, ['max'], max));
  }
}

/** What is given out over Redis is counted, and the same in all sidecars. */
export function limiterRules(section: unknown, report: Report): void {
  const { shared, max_concurrent: limit } = fields(section);
  if (shared !== 'redis' || (limit !== 'unlimited' && fields(limit).adaptive === undefined)) return;
  refuse(report, ['shared'], shared, 'needs a fixed number as max_concurrent', ['max_concurrent'], limit);
}

export function targetRules(section: unknown, report: Report): void {
  const seen = new Map<string, string>();
  for (const [name, input] of Object.entries(fields(fields(section).headers))) {
    const first = seen.get(name.toLowerCase());
    seen.set(name.toLowerCase(), name);
    if (first === undefined) continue;
    report.addIssue({
      code: 'custom',
      path: ['headers', name],
      message: `is there already, written "${first}"`,
      input,
    });
  }
}

export function breakerRules(section: unknown, report: Report): void {
  durationRule('open', 'max_open', section, report);
  const { consecutive_failures: failures, failure_ratio: ratio } = fields(section);
  if (failures !== 'unlimited' || ratio !== 'none') return;
  const message = 'must be a number where consecutive_failures is off too';
  refuse(report, ['failure_ratio'], ratio, message, ['consecutive_failures'], failures);
}

export function retriesRules(section: unknown, report: Report): void {
  durationRule('backoff', 'max_backoff', section, report);
  const { budget_ratio: ratio, budget_min: min } = fields(section);
  if (ratio !== 0 || min !== 0) return;
  const message = 'must be at least 1 where budget_ratio is nothing too';
  refuse(report, ['budget_min'], min, message, ['budget_ratio'], ratio);
}

export function feedbackRules(section: unknown, report: Report): void {
  const { max_pause: pause, pace } = fields(section);
  if (pace !== false || parseDuration(pause, ANY) !== 0) return;
  refuse(report, ['pace'], pace, 'must be true where max_pause is nothing too', ['max_pause'], pause);
}

/** Where an upstream's requests go: one place or several. */
export function targetsRules(upstream: unknown, report: Report): void {
  const { url, targets, tls, http2 } = fields(upstream);
  if (url === undefined && targets === undefined) {
    const message = 'is required (or `targets`, a list) and must be a URL such as https://api.openai.com';
    report.addIssue({ code: 'custom', path: ['url'], message, input: url });
  }
  if (url !== undefined && targets !== undefined) {
    refuse(report, ['targets'], targets, 'must stand in place of url, not beside it', ['url'], url);
  }
  const written = Object.entries(fields(tls)).filter(([, value]) => value !== undefined);
  for (const [path, value] of urlsOf(url, targets)) {
    if (typeof value !== 'string' || !/^(http|unix):/.test(value)) continue;
    if (http2 === true || (typeof http2 === 'object' && http2 !== null)) {
      const message = path.length === 1 ? 'needs an upstream with an https url' : 'needs targets that are all https';
      refuse(report, ['http2'], http2, message, path, value);
    }
    for (const [key, input] of written) {
      if (path.length === 1) {
        report.addIssue({ code: 'custom', path: ['tls', key], message: 'needs an upstream with an https url', input });
      } else refuse(report, ['tls', key], input, 'needs targets that are all https', path, value);
    }
  }
}

function urlsOf(url: unknown, targets: unknown): [Key[], unknown][] {
  if (!Array.isArray(targets)) return [[['url'], url]];
  return targets.map((target, index) => [['targets', index, 'url'], fields(target).url]);
}

/** Between the file's own keys, its limiters and its upstreams. */
export function resilienceFileRules(file: unknown, report: Report): void {
  const { body_buffer: buffer, limiters, upstreams } = fields(file);
  redisRules(file, report);
  const most = parseSize(buffer, ANY);
  for (const [name, upstream] of Object.entries(fields(upstreams))) {
    laneRules(name, fields(upstream), fields(limiters), report);
    const input = fields(fields(upstream).retries).replay_limit;
    const size = parseSize(input, ANY);
    if (typeof size === 'string' || typeof most === 'string' || size <= most) continue;
    report.addIssue(atMost(['upstreams', name, 'retries', 'replay_limit'], input, ['body_buffer'], buffer));
  }
}

function laneRules(
  name: string,
  upstream: Record<string, unknown>,
  limiters: Record<string, unknown>,
  report: Report,
): void {
  const { lane, limiter } = upstream;
  if (typeof lane !== 'string') return;
  const told = { code: 'custom', path: ['upstreams', name, 'lane'] as Key[], input: lane } as const;
  if (limiter === undefined) {
    report.addIssue({ ...told, message: 'needs a limiter with this lane beside it' });
    return;
  }
  // A limiter that does not exist is one mistake already.
  if (typeof limiter !== 'string' || !Object.hasOwn(limiters, limiter)) return;
  const lanes = Object.keys(fields(fields(limiters[limiter]).lanes));
  if (lanes.includes(lane)) return;
  const where = pathText(['limiters', limiter]);
  const message =
    lanes.length === 0 ? `must be a lane, and ${where} has none` : `must be a lane of ${where}: ${lanes.join(', ')}`;
  report.addIssue({ ...told, message, params: { meant: suggest(lane, lanes) } });
}

/** The server is there for what is shared, and what is shared needs the server. */
function redisRules(file: unknown, report: Report): void {
  const { redis } = fields(file);
  const uses = usesOfRedis(file);
  const user = uses.find(([, value]) => value === 'redis');
  if (redis === undefined && user !== undefined) {
    refuse(report, ['redis', 'url'], undefined, `is required by ${pathText(user[0])}`, [...user[0]], 'redis');
  }
  if (redis !== undefined && uses.length === 0) {
    const message = 'needs a use: cache.store: redis, or shared: redis in a limiter or a rate limit';
    report.addIssue({ code: 'custom', path: ['redis'], message, input: redis });
  }
}

/** Wherever something is to be shared, be it said well or not. */
function usesOfRedis(file: unknown): [Path, unknown][] {
  const { cache, limiters, upstreams } = fields(file);
  const uses: [Path, unknown][] = [];
  const { store } = fields(cache);
  if (store !== undefined && store !== 'memory') uses.push([['cache', 'store'], store]);
  for (const [name, limiter] of Object.entries(fields(limiters))) {
    uses.push([['limiters', name, 'shared'], fields(limiter).shared]);
  }
  for (const [name, upstream] of Object.entries(fields(upstreams))) {
    const limits = fields(upstream).rate_limits;
    if (!Array.isArray(limits)) continue;
    for (const [index, limit] of limits.entries()) {
      uses.push([['upstreams', name, 'rate_limits', index, 'shared'], fields(limit).shared]);
    }
  }
  return uses.filter(([, value]) => value !== undefined);
}

/** The one duration is at most the other; both are keys of the section. */
function durationRule(key: string, other: string, section: unknown, report: Report): void {
  const { [key]: input, [other]: limit } = fields(section);
  const [duration, most] = [parseDuration(input, ANY), parseDuration(limit, ANY)];
  if (typeof duration === 'string' || typeof most === 'string' || duration <= most) return;
  report.addIssue(atMost([key], input, [other], limit));
}

/** Both paths start at the section of the rule; the value of the other key is told after the message. */
function refuse(report: Report, path: Key[], input: unknown, message: string, other: Key[], value: unknown): void {
  const params = { depth: path.length, other: { path: other, value } };
  report.addIssue({ code: 'custom', path, message, input, params });
}

type Size = string | 0;

/** Of `replay_limit`, whose default must fit into what is read ahead. */
export function replayDefault(written: Size | undefined, buffer: Size): Size {
  const usual = '64kb';
  return written ?? (Number(parseSize(buffer, ANY)) < Number(parseSize(usual, ANY)) ? buffer : usual);
}
