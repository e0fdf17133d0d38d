// A tunnel that is cut while its upstream's connection ends, on real sockets: whatever the moment, the close comes.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import t from 'tap';
import { WebSocketStats } from '../../../src/observe/stats.ts';
import type { Tunnel } from '../../../src/proxy/tunnel.ts';
import { Facade } from '../../../src/proxy/tunnel-facade.ts';
import { Relay } from '../../../src/proxy/tunnel-relay.ts';
import { FakeClock, fakeWheel } from '../../support/fake-clock.ts';
import { makeConfig } from '../../support/proxy.ts';
import { within } from '../../support/until.ts';

const HALF_A_FRAME = Buffer.of(0x81);

/** As much of a tunnel as its relay sees. Its client is one that nobody hears of. */
function tunnel(): Tunnel {
  const { wheel } = fakeWheel(new FakeClock(0));
  return {
    shared: { now: () => 0, wheel, turnover: { passed() {} } },
    way: makeConfig({ upstreams: { ai: { url: 'http://a' } } }).upstreams[0],
    stats: new WebSocketStats(),
    client: { listener: null, unsent: 0, write: () => true, finish: () => {}, abort: () => {} },
    bytesIn: 0,
    bytesOut: 0,
    closeCode: null,
    settle: () => {},
  } as unknown as Tunnel;
}

const MOMENTS: Readonly<Record<string, (upstream: Socket, cut: () => void) => void>> = {
  'at any time': (_upstream, cut) => cut(),
  'in the turn of its FIN': (upstream, cut) => {
    upstream.end();
    cut();
  },
  'in the turn after it': (upstream, cut) => {
    upstream.end();
    setImmediate(cut);
  },
  'with bytes and a FIN to send': (upstream, cut) => {
    upstream.write(Buffer.alloc(8 << 20));
    upstream.end();
    cut();
  },
};

for (const [moment, act] of Object.entries(MOMENTS)) {
  t.test(`an upstream that is cut ${moment} is closed`, async (t) => {
    const server = createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const upstream = connect({ port: (server.address() as AddressInfo).port, allowHalfOpen: true });
    await once(upstream, 'connect');
    upstream.on('error', () => upstream.destroy());
    const relay = new Relay(tunnel(), new Facade(), upstream);
    relay.start();
    relay.bodyData(HALF_A_FRAME);
    act(upstream, () => relay.stopped());
    await t.resolves(within('its close', once(upstream, 'close'), 1000));
    server.close();
  });
}
