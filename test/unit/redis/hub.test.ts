// The one connection: a Redis that does not answer costs one timeout whoever asks, and is asked again once its users are square with it.
import t from 'tap';
import { RedisHub } from '../../../src/redis/hub.ts';
import { RedisScript } from '../../../src/redis/script.ts';
import { up, withHubs } from '../../support/hubs.ts';
import type { TestRedis } from '../../support/redis.ts';
import { until, whileNothing, within } from '../../support/until.ts';

const TIMEOUT_MS = 150;
/** What a machine with other things to do may add. */
const MARGIN_MS = 350;
const FAST = { beatMs: 30, deadMs: 200 };

/** What became of a question. */
async function outcome(question: Promise<unknown>): Promise<string> {
  return await question.then(
    (value) => `${value}`,
    (error: Error) => `! ${error.message}`,
  );
}

function ping(hub: RedisHub): Promise<string> {
  return outcome(hub.ask((redis) => redis.ping()));
}

async function calls(redis: TestRedis, command: string): Promise<number> {
  const stats = await redis.ask('INFO commandstats');
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
}

withHubs('questions are answered; an error reply is one command’s trouble', async (t, { open }) => {
  const hub = await open({ timeoutMs: TIMEOUT_MS });
  t.equal(await ping(hub), 'PONG');
  t.match(await outcome(hub.ask((redis) => redis.eval('return x.y', 0))), /^! ERR/);
  const thrown = hub.ask(() => {
    throw new Error('a bug');
  });
  t.equal(await outcome(thrown), '! a bug');
  await whileNothing(TIMEOUT_MS + 50);
  t.equal(hub.state, 'up');
  t.equal(await ping(hub), 'PONG');
  t.same({ ...hub.counters }, { asked: 4, errors: 1, timeouts: 0 });
});

withHubs('a frozen Redis costs one timeout in all, and is back by itself', async (t, { redis, open }) => {
  const hub = await open({ timeoutMs: TIMEOUT_MS });
  const log: string[] = [];
  hub.use({ onDown: (reason) => log.push(reason), onUp: () => log.push('up') });
  const leave = hub.use({ onDown: () => log.push('left'), onUp: () => log.push('left') });
  leave();
  redis.freeze();
  const began = performance.now();
  const early = [ping(hub), ping(hub)];
  await whileNothing(TIMEOUT_MS / 3);
  early.push(ping(hub));
  const away = `! Redis is away: no answer within ${TIMEOUT_MS} ms`;
  t.same(await Promise.all(early), [away, away, away]);
  const took = performance.now() - began;
  t.ok(took >= TIMEOUT_MS - 5 && took < TIMEOUT_MS + MARGIN_MS, `took ${took} ms`);
  t.same({ ...hub.counters }, { asked: 3, errors: 0, timeouts: 1 });
  const late = performance.now();
  t.equal(await ping(hub), '! Redis is away');
  t.ok(performance.now() - late < 50, 'at once');
  t.equal(hub.counters.asked, 3);
  await whileNothing(300);
  t.equal(hub.state, 'down');
  redis.thaw();
  await up(hub);
  t.equal(await ping(hub), 'PONG');
  t.same(log, [`no answer within ${TIMEOUT_MS} ms`, 'up']);
  t.equal(hub.counters.errors, 0, 'late answers are nobody’s');
});

withHubs('a loop that stalled is no timeout', async (t, { open }) => {
  const hub = await open({ timeoutMs: TIMEOUT_MS });
  const answer = await new Promise((resolve) => {
    // After an immediate the loop looks at timers first, and at sockets only then.
    setImmediate(() => {
      void ping(hub).then(resolve);
      const stalledUntil = performance.now() + TIMEOUT_MS + 50;
      while (performance.now() < stalledUntil);
    });
  });
  t.equal(answer, 'PONG');
  await whileNothing(20);
  t.equal(hub.state, 'up');
  t.equal(hub.counters.timeouts, 0);
});

withHubs('a question under way when the server dies is rejected then', async (t, { redis, open }) => {
  const hub = await open();
  redis.freeze();
  const question = ping(hub);
  await redis.kill();
  t.match(await within('an answer', question, 1000), /^! Redis is away/);
  t.equal(hub.state, 'down');
  await redis.restart();
  await up(hub);
});

withHubs('what users owe Redis is done before anybody asks again', async (t, { redis, open }) => {
  const hub = await open({ timeoutMs: TIMEOUT_MS });
  const log: string[] = [];
  let fail: Error | null = new Error('broken');
  const owed = async (name: string) => {
    log.push(`${name} ${hub.state}`);
    if (fail) throw fail;
  };
  hub.use({ beforeUp: () => owed('one'), onUp: () => log.push('up') });
  hub.use({
    beforeUp: async (redis) => {
      log.push('two');
      await redis.eval('return x.y', 0);
    },
  });
  redis.freeze();
  await ping(hub);
  redis.thaw();
  await until('tried twice', () => log.length === 2);
  t.same(log, ['one down', 'one down'], 'who cannot keeps it down');
  fail = null;
  await up(hub);
  t.same(log.slice(2), ['one down', 'two', 'up'], 'an error reply does not');
  t.equal(hub.counters.errors, 1);
});

withHubs('a script is sent along only when Redis does not have it', async (t, { redis, open }) => {
  const hub = await open();
  const script = new RedisScript('return { KEYS[1], ARGV[1], ARGV[2] }');
  const run = () => outcome(hub.ask((it) => script.run(it, ['key'], ['a', 1])));
  for (let i = 0; i < 3; i++) t.equal(await run(), 'key,a,1');
  t.equal(await calls(redis, 'eval'), 1);
  await redis.ask('SCRIPT FLUSH');
  for (let i = 0; i < 2; i++) t.equal(await run(), 'key,a,1');
  t.equal(await calls(redis, 'eval'), 2);
  t.same({ ...hub.counters }, { asked: 5, errors: 0, timeouts: 0 });
});

withHubs('each hears what is said on its channel, also when it began to listen late', async (t, { redis, open }) => {
  const hub = await open();
  const heard: string[] = [];
  const listen = (channel: string) =>
    hub.listen(channel, {
      onMessage: (text) => heard.push(`${channel} ${text}`),
      onSubscribed: (missed) => heard.push(`${channel} subscribed${missed ? ', missed' : ''}`),
    });
  listen('a');
  await until('subscribed', () => heard.length === 1);
  listen('b');
  await until('subscribed', () => heard.length === 2);
  await redis.ask('PUBLISH b 1');
  await redis.ask('PUBLISH c 2');
  await redis.ask('PUBLISH a 3');
  await until('heard', () => heard.length === 4);
  await redis.ask('CLIENT KILL TYPE pubsub');
  await until('subscribed again', () => heard.length === 6);
  t.same(heard, ['a subscribed', 'b subscribed', 'b 1', 'a 3', 'a subscribed, missed', 'b subscribed, missed']);
  t.equal(hub.state, 'up', 'the other connection does not care');
});

withHubs('who listens to nothing has one connection', async (t, { redis, open }) => {
  const connections = async () => (await redis.ask('CLIENT LIST')).split('name=aiproxy').length - 1;
  await open();
  t.equal(await connections(), 1);
});

withHubs('peers are counted by who said lately that he is alive', async (t, { redis, open, openBlind }) => {
  const count = async (timeoutMs = 5000) => {
    const hub = openBlind({ timeoutMs }, FAST);
    hub.countPeers();
    await up(hub);
    return hub;
  };
  const alone = await open();
  t.equal(await redis.ask('EXISTS test:peers'), ':0\r\n', 'who divides nothing is no peer');
  const one = await count(TIMEOUT_MS);
  t.equal(one.peers, 1, 'known as soon as it is up');
  const [two, three] = [await count(), await count()];
  t.equal(three.peers, 3);
  await until('the others see them', () => one.peers === 3 && two.peers === 3);
  await two.stop();
  await until('one has left', () => one.peers === 2, FAST.deadMs / 2);
  // As one that was killed: it says nothing any more.
  await redis.ask(`ZADD test:peers ${Date.now() + FAST.deadMs} killed`);
  await until('it is counted', () => one.peers === 3);
  await until('it is gone', () => one.peers === 2, FAST.deadMs + 1000);
  redis.freeze();
  await until('noticed', () => one.state === 'down', 2000);
  await three.stop();
  t.equal(one.peers, 2, 'as last known');
  redis.thaw();
  await up(one);
  t.equal(one.peers, 2, 'who is missing may not have found Redis again');
  await until('but is gone, after a while', () => one.peers === 1, 2000);
  t.equal(alone.peers, 1);
  await one.stop();
  t.equal(await redis.ask('EXISTS test:peers'), ':0\r\n');
});

withHubs('a Redis that lets nobody count is used all the same', async (t, { redis, openBlind }) => {
  await redis.ask('SET test:peers text');
  const hub = openBlind({}, FAST);
  hub.countPeers();
  await up(hub);
  await until('tried again', () => hub.counters.errors > 2);
  t.equal(hub.peers, 1);
  t.equal(await ping(hub), 'PONG');
});

withHubs(
  'stop rejects who waits, and is soon done: up, frozen, never connected',
  async (t, { redis, open, openBlind }) => {
    for (const counts of [false, true]) {
      const hub = await open();
      if (counts) hub.countPeers();
      redis.freeze();
      const question = ping(hub);
      const stopped = within('stopped', hub.stop(), 500);
      t.equal(await within('rejected', question, 100), '! Redis is not asked any more');
      await stopped;
      t.equal(await ping(hub), '! Redis is away');
      t.match({ ...hub.counters }, { errors: 0, timeouts: 0 });
      redis.thaw();
    }
    redis.freeze();
    await within('stopped', openBlind().stop(), 500);
    redis.thaw();
  },
);

t.test('a word at the end without a Redis is not said', async (t) => {
  const hub = new RedisHub({ url: '/nowhere', prefix: '', timeoutMs: 100 }, () => 0);
  await hub.farewell(async () => t.fail('asked'));
  await hub.stop();
  t.equal(hub.state, 'down');
});
