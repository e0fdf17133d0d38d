// A listener that is told to stop before it has started.

import { existsSync, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { Address } from '../../../src/config/schema.ts';
import { ListenerStats } from '../../../src/observe/stats.ts';
import { Listener } from '../../../src/server/listener.ts';
import { anyPort, listenOn, unixAddress } from '../../support/doors.ts';
import { FakeClock, fakeWheel } from '../../support/fake-clock.ts';
import { makeConfig } from '../../support/proxy.ts';

const directory = mkdtempSync(join(tmpdir(), 'aiproxy-'));
const path = join(directory, 'x.sock');
t.teardown(() => rmdirSync(directory));

const serversLeft = () => process.getActiveResourcesInfo().filter((kind) => kind.endsWith('ServerWrap')).length;

for (const address of [anyPort, { ...anyPort, host: 'localhost' }, unixAddress(path)] satisfies Address[]) {
  t.test(`${address.text} (${address.host}): one that was stopped while it started listens nowhere`, async (t) => {
    const { listener: config } = makeConfig({ upstreams: {} });
    const { wheel } = fakeWheel(new FakeClock(0));
    const listener = new Listener(listenOn(address), config, { accept: () => {} }, new ListenerStats(), wheel, () => 0);
    const started = listener.start();
    const stopped = listener.stopAccepting();
    await t.rejects(started, /^cannot listen on .*: aiproxy is stopping$/);
    await stopped;
    t.notOk(existsSync(path), 'no socket file is left');
    await new Promise(setImmediate);
    t.equal(serversLeft(), 0, 'no server is left');
  });
}
