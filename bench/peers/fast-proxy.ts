// fast-proxy with its undici pool, which is its quicker way.
import { createServer } from 'node:http';
import fastProxy from 'fast-proxy';

const [listen, upstream] = process.argv.slice(2);
const { proxy } = fastProxy({
  base: `http://127.0.0.1:${upstream}`,
  undici: { connections: 64, pipelining: 1, keepAliveTimeout: 60_000, allowH2: false },
});
createServer({ keepAliveTimeout: 75_000 }, (request, answer) => proxy(request, answer, request.url ?? '/', {})).listen(
  Number(listen),
  '127.0.0.1',
);
process.on('SIGTERM', () => process.exit(0));
