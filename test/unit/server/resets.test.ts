// A connection that is cut while it ends, on real sockets: whatever the moment, its close comes.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import t from 'tap';
import type { UpgradableClient } from '../../../src/proxy/client.ts';
import { ClientConnection, type ListenerSide } from '../../../src/server/client-connection.ts';
import { IdleList } from '../../../src/server/idle-list.ts';
import { clientTls, serverTls } from '../../support/doors.ts';
import { FakeClock, fakeWheel } from '../../support/fake-clock.ts';
import { makeConfig } from '../../support/proxy.ts';
import { until } from '../../support/until.ts';

const ROUNDS = 20;
const REQUEST = 'GET /ai/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n';

const answer = (client: UpgradableClient, body: Buffer) => {
  client.begin(200, '', ['content-length', String(body.length)]);
  client.finish(body);
};

/** What is done with a request, and when its connection is cut after that. */
const MOMENTS: Readonly<Record<string, (client: UpgradableClient, cut: () => void) => void>> = {
  'before its answer': (_client, cut) => cut(),
  'in the turn of its FIN': (client, cut) => {
    answer(client, Buffer.from('ok'));
    cut();
  },
  'in the turn after it': (client, cut) => {
    answer(client, Buffer.from('ok'));
    setImmediate(cut);
  },
  'with nothing but a FIN to send': (client, cut) => {
    (client as ClientConnection).socket.end();
    cut();
  },
  'with most of its answer unsent': (client, cut) => {
    answer(client, Buffer.alloc(8 << 20));
    setImmediate(cut);
  },
};

async function closes(isSecure: boolean, act: (typeof MOMENTS)[string]): Promise<number> {
  const { wheel } = fakeWheel(new FakeClock(0));
  let closed = 0;
  const take = (socket: Socket, raw: Socket) => {
    const side = {
      config: makeConfig({ upstreams: {} }).listener,
      wheel,
      now: () => 0,
      idle: new IdleList(),
      accept: (client: UpgradableClient) => act(client, () => client.abort()),
      closed: () => closed++,
    };
    new ClientConnection(side as unknown as ListenerSide, socket, raw);
  };
  const door = createTlsServer(serverTls as { cert: string; key: string }, (socket) => {
    take(socket, (socket as TLSSocket & { _parent: Socket })._parent);
  });
  const server = createServer((socket) => void (isSecure ? door.emit('connection', socket) : take(socket, socket)));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const clients = Array.from({ length: ROUNDS }, () => {
    const place = { port, host: '127.0.0.1' };
    const socket = isSecure ? connectTls({ ...place, servername: 'localhost', ...clientTls }) : connect(place);
    socket.on('error', () => {});
    // It never reads.
    socket.write(REQUEST);
    return socket;
  });
  await until('the close of every connection', () => closed === ROUNDS, 3000).catch(() => {});
  for (const client of clients) client.destroy();
  server.close();
  return closed;
}

for (const isSecure of [false, true]) {
  for (const [moment, act] of Object.entries(MOMENTS)) {
    t.test(`a ${isSecure ? 'TLS' : 'plain'} connection that is cut ${moment} closes`, async (t) => {
      t.equal(await closes(isSecure, act), ROUNDS);
    });
  }
}
