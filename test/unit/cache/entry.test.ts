// What an entry holds on to is what it counts.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { Entry } from '../../../src/cache/entry.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const TERMS = {
  lifetimeMs: 60_000,
  initialAgeMs: 0,
  alwaysValidate: false,
  neverStale: false,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  etag: '',
  lastModified: '',
};

function entryOf(uri: string, varyValue: string): Entry {
  return new Entry({
    key: 'k',
    upstream: 'ai',
    uri,
    status: 200,
    reason: 'OK',
    headers: [],
    body: Buffer.alloc(0),
    requestAt: 0,
    responseAt: 0,
    terms: TERMS,
    vary: ['x-tenant'],
    varyValues: [varyValue],
    costMs: 1,
    pace: null,
  });
}

t.test('an entry does not keep the head of the request that a part of its key is a slice of', async (t) => {
  const entries: Entry[] = [];
  collect();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 1000; i++) {
    const head = Buffer.alloc(20_000, `${i} `).toString('latin1');
    entries.push(entryOf(head.slice(100, 160), head.slice(200, 260)));
  }
  collect();
  const held = process.memoryUsage().heapUsed - before;
  const counted = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  t.ok(held < counted + 1_000_000, `${held} bytes held, ${counted} counted, 20 MB of heads gone`);
});

t.test('the age of an entry never falls when the clock is set back', async (t) => {
  const entry = entryOf('/', '');
  t.equal(entry.ageMs(5000), 5000);
  t.equal(entry.ageMs(-5000), 0);
});
