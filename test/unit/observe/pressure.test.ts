// Memory as the cgroups tell it, from folders made here, and the lateness of the event loop.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { LoopLag, MemoryGauge } from '../../../src/observe/pressure.ts';

const MB = 2 ** 20;
const RSS = 77 * MB;
const rss = () => RSS;

type Files = Record<string, string | number>;

/** A folder that looks like a machine, with `change` to write more into it. */
function machine(t: Test, files: Files) {
  const root = t.testdir();
  const change = (files: Files) => {
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), `${content}\n`);
    }
  };
  change(files);
  return { root, change };
}

const measure = (root: string, memoryBytes: number | null = null) => {
  const gauge = new MemoryGauge(memoryBytes, root, rss);
  gauge.read();
  return [gauge.used, gauge.limit];
};
const stat = (inactive: number) => `anon 1\nfile 2\nactive_anon 3\ninactive_file ${inactive}\nactive_file 4\nslab 5`;

/** A cgroup of version 2 below the mount. */
function v2(path: string, max: number | string, current: number, inactive: number): Files {
  const folder = `sys/fs/cgroup${path}`;
  return {
    [`${folder}/memory.max`]: max,
    [`${folder}/memory.current`]: current,
    [`${folder}/memory.stat`]: stat(inactive),
  };
}

function v1(path: string, limit: number | string, usage: number, inactive: number): Files {
  const folder = `sys/fs/cgroup/memory${path}`;
  return {
    [`${folder}/memory.limit_in_bytes`]: limit,
    [`${folder}/memory.usage_in_bytes`]: usage,
    [`${folder}/memory.stat`]: `cache 1\ninactive_file 99999999999\ntotal_cache 2\ntotal_inactive_file ${inactive}\ntotal_rss 9`,
  };
}

t.test('version 2: usage less the page cache that is dropped first, against memory.max', async (t) => {
  const { root } = machine(t, {
    'proc/self/cgroup': '1:name=systemd:/x\n0::/a',
    ...v2('/a', 512 * MB, 300 * MB, 100 * MB),
  });
  t.same(measure(root), [200 * MB, 512 * MB]);
});

t.test('version 1: total_inactive_file, against memory.limit_in_bytes', async (t) => {
  const { root } = machine(t, {
    'proc/self/cgroup': '12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n0::/docker/abc',
    ...v1('/docker/abc', 256 * MB, 200 * MB, 50 * MB),
  });
  t.same(measure(root), [150 * MB, 256 * MB]);
});

t.test('the memory controller may share its line with others', async (t) => {
  const { root } = machine(t, { 'proc/self/cgroup': '5:cpu,memory:/a', ...v1('/a', 256 * MB, 200 * MB, 0) });
  t.same(measure(root), [200 * MB, 256 * MB]);
});

t.test('of limits within limits the one that is nearest counts, with what is used of it', async (t) => {
  const cgroup = { 'proc/self/cgroup': '0::/pods/pod1/main' };
  const nested = (pod: Files) => ({
    ...cgroup,
    ...v2('', 'max', 9000 * MB, 0),
    ...v2('/pods', 'max', 8000 * MB, 0),
    ...pod,
  });
  const lower = nested({
    ...v2('/pods/pod1', 300 * MB, 280 * MB, 20 * MB),
    ...v2('/pods/pod1/main', 500 * MB, 200 * MB, 0),
  });
  t.same(measure(machine(t, lower).root), [260 * MB, 300 * MB], 'the pod’s is lower, and others are in the pod too');
  const higher = nested({
    ...v2('/pods/pod1', 900 * MB, 800 * MB, 0),
    ...v2('/pods/pod1/main', 500 * MB, 200 * MB, 0),
  });
  t.same(measure(machine(t, higher).root), [800 * MB, 900 * MB], 'or is higher, but nearer to its end');
  const wide = nested({ ...v2('/pods/pod1', 900 * MB, 400 * MB, 0), ...v2('/pods/pod1/main', 210 * MB, 200 * MB, 0) });
  t.same(measure(machine(t, wide).root), [200 * MB, 210 * MB], 'nearest is the share, not the size');
  const inner = nested({ ...v2('/pods/pod1', 'max', 800 * MB, 0), ...v2('/pods/pod1/main', 500 * MB, 200 * MB, 0) });
  t.same(measure(machine(t, inner).root), [200 * MB, 500 * MB]);
});

t.test('a container sees its own cgroup at the mount, whatever its path is outside', async (t) => {
  for (const path of ['/kubepods/pod1/abc', '/../../outside', '/']) {
    const two = machine(t, { 'proc/self/cgroup': `0::${path}`, ...v2('', 512 * MB, 300 * MB, 0) });
    t.same(measure(two.root), [300 * MB, 512 * MB], path);
    const one = machine(t, { 'proc/self/cgroup': `4:memory:${path}`, ...v1('', 512 * MB, 300 * MB, 0) });
    t.same(measure(one.root), [300 * MB, 512 * MB], path);
  }
});

t.test('a path that leads out of the mount is not followed', async (t) => {
  const { root } = machine(t, {
    'proc/self/cgroup': '0::/../outside',
    ...v2('', 512 * MB, 300 * MB, 0),
    'sys/fs/outside/memory.max': MB,
    'sys/fs/outside/memory.current': MB,
  });
  t.same(measure(root), [300 * MB, 512 * MB]);
});

t.test('no limit is none: max, the largest number of version 1, or nothing at all', async (t) => {
  const unlimited = [RSS, Number.POSITIVE_INFINITY];
  const two = { 'proc/self/cgroup': '0::/a' };
  const one = { 'proc/self/cgroup': '4:memory:/a' };
  const machines: Files[] = [
    { ...two, ...v2('/a', 'max', 300 * MB, 0) },
    { ...one, ...v1('/a', '9223372036854771712', 300 * MB, 0) },
    { ...one, ...v1('/a', '-1', 300 * MB, 0) },
    { ...two, ...v2('/a', '0', 300 * MB, 0) },
    { ...two, ...v2('/a', 'odd', 300 * MB, 0) },
    { ...two, ...v2('/a', '', 300 * MB, 0) },
    two,
    one,
    { 'proc/self/cgroup': '' },
    { 'proc/self/cgroup': 'nonsense\n::\n0:' },
    {},
  ];
  for (const files of machines) t.same(measure(machine(t, files).root), unlimited, JSON.stringify(files));
});

t.test('with a configured size the process is measured against that alone', async (t) => {
  const { root } = machine(t, { 'proc/self/cgroup': '0::/', ...v2('', 512 * MB, 300 * MB, 100 * MB) });
  t.same(measure(root, 128 * MB), [RSS, 128 * MB]);
});

t.test('without memory.stat, or without its line, all of the usage counts', async (t) => {
  const files = { 'proc/self/cgroup': '0::/', ...v2('', 512 * MB, 300 * MB, 100 * MB) };
  const { root } = machine(t, files);
  rmSync(join(root, 'sys/fs/cgroup/memory.stat'));
  t.same(measure(root), [300 * MB, 512 * MB]);
  const short = machine(t, { ...files, 'sys/fs/cgroup/memory.stat': 'anon 1' });
  t.same(measure(short.root), [300 * MB, 512 * MB]);
});

t.test('more page cache than usage is a working set of nothing', async (t) => {
  const { root } = machine(t, { 'proc/self/cgroup': '0::/', ...v2('', 512 * MB, 3 * MB, 5 * MB) });
  t.same(measure(root), [0, 512 * MB]);
});

t.test('what an earlier, longer file said is not read again', async (t) => {
  const { root, change } = machine(t, { 'proc/self/cgroup': '0::/', ...v2('', 512 * MB, 300 * MB, 100 * MB) });
  const gauge = new MemoryGauge(null, root, rss);
  gauge.read();
  change({ 'sys/fs/cgroup/memory.stat': 'anon 1', 'sys/fs/cgroup/memory.current': '3' });
  gauge.read();
  t.equal(gauge.used, 3);
});

t.test('a usage that can be read no longer is the RSS without a limit, until it can be again', async (t) => {
  const files = { 'proc/self/cgroup': '0::/', ...v2('', 512 * MB, 300 * MB, 0) };
  const { root, change } = machine(t, files);
  const gauge = new MemoryGauge(null, root, rss);
  gauge.read();
  rmSync(join(root, 'sys/fs/cgroup/memory.current'));
  gauge.read();
  t.same([gauge.used, gauge.limit], [RSS, Number.POSITIVE_INFINITY]);
  change({ 'sys/fs/cgroup/memory.current': 'odd' });
  gauge.read();
  t.same([gauge.used, gauge.limit], [RSS, Number.POSITIVE_INFINITY]);
  change(files);
  gauge.read();
  t.same([gauge.used, gauge.limit], [300 * MB, 512 * MB]);
});

t.test('a limit that is changed under the running process is seen within forty readings', async (t) => {
  const { root, change } = machine(t, { 'proc/self/cgroup': '0::/', ...v2('', 512 * MB, 300 * MB, 0) });
  const gauge = new MemoryGauge(null, root, rss);
  gauge.read();
  change({ 'sys/fs/cgroup/memory.max': 1024 * MB });
  for (let i = 0; i < 40; i++) gauge.read();
  t.equal(gauge.limit, 1024 * MB);
});

t.test('on the machine that runs this it reads something, and throws nothing', async (t) => {
  const gauge = new MemoryGauge(null);
  gauge.read();
  t.ok(gauge.used > MB, `${gauge.used} of ${gauge.limit}`);
  t.ok(gauge.limit > 0);
});

t.test('the loop is as late as the last two checks both were', async (t) => {
  const lag = new LoopLag(250);
  const ticks = (...times: number[]) => times.map((at) => lag.tick(at));
  t.same(ticks(1000, 1250, 1500), [0, 0, 0]);
  t.same(ticks(3750, 4000), [0, 0], 'one long pause is over when it is seen');
  t.same(ticks(4650, 5200, 5800), [0, 300, 300], 'one that lasts is not');
  t.equal(lag.ms, 300);
  t.same(ticks(6050, 6300), [0, 0], 'and when the loop is well again it shows at once');
});

t.test('a check that comes early is not late', async (t) => {
  const lag = new LoopLag(250);
  t.same(
    [0, 100, 200, 449].map((at) => lag.tick(at)),
    [0, 0, 0, 0],
  );
  const late = new LoopLag(250);
  t.same(
    [1e9, 1e9 + 600].map((at) => late.tick(at)),
    [0, 0],
    'nor the first, whatever the clock shows',
  );
});
