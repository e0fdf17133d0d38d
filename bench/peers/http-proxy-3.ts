// http-proxy-3 with a keep-alive agent (without one it opens a connection per request).
import { Agent, createServer } from 'node:http';
import httpProxy from 'http-proxy-3';

const [listen, upstream] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: 64, maxFreeSockets: 64, scheduling: 'lifo' });
const proxy = httpProxy.createProxyServer({ target: `http://127.0.0.1:${upstream}`, agent });
proxy.on('error', (_error, _request, answer) => answer.destroy());
createServer({ keepAliveTimeout: 75_000 }, (request, answer) => proxy.web(request, answer)).listen(
  Number(listen),
  '127.0.0.1',
);
process.on('SIGTERM', () => process.exit(0));
