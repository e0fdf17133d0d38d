// The log and its access lines.
import t from 'tap';
import { type AccessLine, AccessLogger, makeLog } from '../../../src/observe/log.ts';

function capture() {
  const lines: string[] = [];
  return { lines, out: { write: (line: string) => void lines.push(line) } };
}

const LINE: AccessLine = {
  upstream: 'openai',
  method: 'POST',
  path: '/v1/chat/completions',
  status: 200,
  failure: null,
  queue_ms: 1.5,
  connect_ms: null,
  ttfb_ms: 20,
  total_ms: 30.1,
  bytes_in: 240,
  bytes_out: 500,
  reused: true,
  attempts: 1,
  cache: null,
  operation: null,
  hedged: false,
  lane: null,
  target: null,
  retry_ms: null,
  close_code: null,
};

t.test('a line is one JSON object with an ISO time, and without host and pid', async (t) => {
  const { lines, out } = capture();
  const { log } = makeLog('info', out);
  log.warn({ limiter: 'ai' }, 'the queue is growing');
  t.equal(lines.length, 1);
  t.ok(lines[0]!.endsWith('\n') && lines[0]!.indexOf('\n') === lines[0]!.length - 1);
  const line = JSON.parse(lines[0]!);
  t.match(line.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  t.same({ ...line, time: '' }, { level: 40, time: '', limiter: 'ai', msg: 'the queue is growing' });
});

t.test('what is below the level is not written', async (t) => {
  const { lines, out } = capture();
  const { log } = makeLog('warn', out);
  log.info('no');
  log.warn('yes');
  t.same(
    lines.map((line) => JSON.parse(line).msg),
    ['yes'],
  );
});

t.test('log.access says which exchanges have a line', async (t) => {
  const { log } = makeLog('info', capture().out);
  const cases = [
    [null, 200],
    [null, 404],
    [null, 499],
    [null, 500],
    [null, 503],
    ['bad_request', 400],
    ['client_gone', 499],
    ['upstream_cut', 200],
    ['queue_full', 503],
  ] as const;
  const wanted = (mode: 'all' | 'errors' | 'off') =>
    cases.map(([failure, status]) => (new AccessLogger(log, mode).wants(failure, status) ? 1 : 0)).join('');
  t.equal(wanted('all'), '111111111');
  t.equal(wanted('errors'), '000111111', 'a failure, also behind a good status, or a 5xx of the upstream');
  t.equal(wanted('off'), '000000000');
});

t.test('above level info there are no access lines, whatever log.access says', async (t) => {
  for (const level of ['warn', 'error', 'fatal', 'silent'] as const) {
    const access = new AccessLogger(makeLog(level, capture().out).log, 'all');
    t.equal(access.mode, 'off');
    t.notOk(access.wants('queue_full', 503), level);
  }
  for (const level of ['trace', 'debug', 'info'] as const) {
    t.ok(new AccessLogger(makeLog(level, capture().out).log, 'all').wants(null, 200), level);
  }
});

t.test('an access line holds the exchange and nothing else', async (t) => {
  const { lines, out } = capture();
  const line = { ...LINE, failure: 'upstream_cut', cache: 'miss', operation: 'chat' } as const;
  new AccessLogger(makeLog('info', out).log, 'all').write(line);
  const { time, ...rest } = JSON.parse(lines[0]!);
  t.type(time, 'string');
  t.same(rest, { level: 30, ...line, msg: 'exchange' });
  t.hasStrict(rest, { connect_ms: null, queue_ms: 1.5 }, 'a phase that was not reached is null, not missing');
});

t.test('a long path is cut, an ordinary one is not', async (t) => {
  const { lines, out } = capture();
  const access = new AccessLogger(makeLog('info', out).log, 'all');
  for (const length of [511, 512, 513, 100_000]) access.write({ ...LINE, path: `/${'a'.repeat(length - 1)}` });
  const paths = lines.map((line) => JSON.parse(line).path as string);
  t.same(
    paths.map((path) => path.length),
    [511, 512, 513, 513],
  );
  t.same(
    paths.map((path) => path.endsWith('…')),
    [false, false, true, true],
  );
  t.equal(paths[3], `/${'a'.repeat(511)}…`);
});

t.test('a path cannot break out of its line', async (t) => {
  const { lines, out } = capture();
  new AccessLogger(makeLog('info', out).log, 'all').write({ ...LINE, path: '/a"\n{"status":200}\u2028\x1b[31m' });
  t.equal(lines[0]!.indexOf('\n'), lines[0]!.length - 1);
  t.notMatch(lines[0], '\x1b');
  t.equal(JSON.parse(lines[0]!).path, '/a"\n{"status":200}\u2028\x1b[31m');
});

t.test('flush writes what a destination holds back, and does not mind one that is gone', async (t) => {
  const { out } = capture();
  makeLog('info', out).flush();
  let flushed = 0;
  makeLog('info', {
    ...out,
    flushSync() {
      flushed++;
      throw new Error('sonic boom is not ready yet');
    },
  } as typeof out).flush();
  t.equal(flushed, 1);
});
