// @fastify/http-proxy with its undici agent, no logger.
import fastifyProxy from '@fastify/http-proxy';
import { fastify } from 'fastify';

const [listen, upstream] = process.argv.slice(2);
const app = fastify({ logger: false, keepAliveTimeout: 75_000 });
await app.register(fastifyProxy, {
  upstream: `http://127.0.0.1:${upstream}`,
  undici: { connections: 64, pipelining: 1, keepAliveTimeout: 60_000, allowH2: false },
});
await app.listen({ port: Number(listen), host: '127.0.0.1' });
process.on('SIGTERM', () => process.exit(0));
