// A second attempt and the percentile it sets out by.

import t from 'tap';
import type { Exchange } from '../../../src/proxy/exchange.ts';
import { Hedge } from '../../../src/proxy/hedge.ts';

/** An exchange whose first attempt began at 100 and has no head yet; it is 250. */
function firstExchange(heads: number[]) {
  const stats = { hedges: 0, hedgesWon: 0, headCame: (ms: number) => heads.push(ms) };
  const first = {
    client: { method: 'GET', url: '/', unsent: 0 },
    attempt: { startedAt: 100, cancel() {} },
    headAt: -1,
    hedge: null,
    slot: null,
    holdsPermit: false,
    shared: { now: () => 250 },
    upstream: { stats },
    enter() {},
    rearm() {},
    answer() {},
  };
  return first as unknown as Exchange;
}

const itsOwn = () => ({ failure: null, sentAt: 200, headAt: 240, dismiss() {} }) as unknown as Exchange;

t.test(
  'a first attempt that lost counts as at least as slow as it was: or the percentile would sink by and by',
  async (t) => {
    const heads: number[] = [];
    const hedge = new Hedge(firstExchange(heads), itsOwn);
    hedge.begin(200, '', []);
    t.same(heads, [150]);
  },
);

t.test('one that goes on does not count yet', async (t) => {
  const heads: number[] = [];
  const hedge = new Hedge(firstExchange(heads), itsOwn);
  hedge.begin(503, '', []);
  t.same(heads, []);
});
