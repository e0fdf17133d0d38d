// A strict reader of Prometheus' text format 0.0.4: throws at the first line that a scraper could stumble over.
import assert from 'node:assert/strict';

export interface ParsedFamily {
  readonly type: string;
  readonly help: string;
  /** By name and labels as written. */
  readonly series: Map<string, ParsedSample>;
}

export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/y;
const NUMBER = /^(?:[+-]Inf|NaN|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/;

export function parseExposition(text: string): Map<string, ParsedFamily> {
  assert.ok(text.endsWith('\n'), 'the last line ends with a newline');
  const families = new Map<string, ParsedFamily>();
  let current: { name: string; family: ParsedFamily } | null = null;
  let help: RegExpExecArray | null = null;
  for (const line of text.slice(0, -1).split('\n')) {
    if (line.startsWith('# HELP ')) {
      help = /^# HELP (\S+) (.+)$/.exec(line);
      assert.ok(help, `help: ${line}`);
    } else if (line.startsWith('# TYPE ')) {
      const type: RegExpExecArray | null = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
      assert.ok(type, `type: ${line}`);
      assert.equal(help?.[1], type[1], `HELP right before TYPE: ${line}`);
      assert.ok(!families.has(type[1]!), `one family of each name: ${line}`);
      current = { name: type[1]!, family: { type: type[2]!, help: help![2]!, series: new Map() } };
      families.set(current.name, current.family);
      help = null;
    } else {
      assert.ok(current, `a sample after its TYPE: ${line}`);
      readSample(current.name, current.family, line);
    }
  }
  for (const [name, family] of families) checkFamily(name, family);
  return families;
}

function readSample(familyName: string, family: ParsedFamily, line: string): void {
  const match = SAMPLE.exec(line);
  assert.ok(match, `a sample: ${line}`);
  const [, name = '', labelText = '', number = ''] = match;
  const suffixes = family.type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
  assert.ok(
    suffixes.some((suffix) => name === familyName + suffix),
    `a sample of ${familyName}: ${line}`,
  );
  assert.match(number, NUMBER, `a number: ${line}`);
  const labels = readLabels(labelText, line);
  const key = `${name}${JSON.stringify(Object.entries(labels).sort())}`;
  assert.ok(!family.series.has(key), `no series twice: ${line}`);
  family.series.set(key, { name, labels, value: Number(number.replace('Inf', 'Infinity')) });
}

function readLabels(text: string, line: string): Record<string, string> {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const match = LABEL.exec(text);
    assert.ok(match, `labels: ${line}`);
    assert.ok(!Object.hasOwn(labels, match[1]!), `no label twice: ${line}`);
    labels[match[1]!] = match[2]!.replace(/\\(.)/g, (_, char) => (char === 'n' ? '\n' : char));
  }
  return labels;
}

function checkFamily(name: string, { type, series }: ParsedFamily): void {
  assert.ok(series.size > 0, `${name} has samples`);
  if (type === 'counter') assert.match(name, /_total$/);
  else assert.doesNotMatch(name, /_total$/);
  if (type === 'histogram') checkHistogram(name, [...series.values()]);
}

/** Every label set: bounds rise, buckets never fall, +Inf comes last and equals the count. */
function checkHistogram(name: string, samples: ParsedSample[]): void {
  const groups = Map.groupBy(samples, ({ labels: { le, ...rest } }) => JSON.stringify(rest));
  for (const [labels, group] of groups) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const counts = group.filter((sample) => sample.name === `${name}_count`);
    const sums = group.filter((sample) => sample.name === `${name}_sum`);
    assert.equal(counts.length, 1, `one count: ${name} ${labels}`);
    assert.equal(sums.length, 1, `one sum: ${name} ${labels}`);
    let [bound, count] = [-Infinity, 0];
    for (const { labels: its, value } of buckets) {
      const le = Number(its.le?.replace('+Inf', 'Infinity'));
      assert.ok(le > bound && value >= count, `buckets rise: ${name} ${labels} le=${its.le}`);
      [bound, count] = [le, value];
    }
    assert.equal(bound, Infinity, `+Inf comes last: ${name} ${labels}`);
    assert.equal(count, counts[0]!.value, `+Inf is the count: ${name} ${labels}`);
  }
}
