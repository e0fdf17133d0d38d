// The config that the demo starts aiproxy with: the seed's numbers, and the mocks' relays in place of the real APIs.
import type { UpstreamsReady } from './upstreams.ts';

/** Free ports on 127.0.0.1. */
export interface ProxyPorts {
  readonly listen: number;
  readonly stats: number;
}

/** YAML; `caPath` names the PEM file of the mocks' authority. */
export function proxyConfig(ports: ProxyPorts, upstreams: Pick<UpstreamsReady, 'ports'>, caPath: string): string {
  const tls = `tls: { ca: ${JSON.stringify(caPath)}, servername: localhost }`;
  const url = (port: number): string => `url: https://127.0.0.1:${port}`;
  return `# Written by "aiproxy demo"; removed when it ends.
listen: 127.0.0.1:${ports.listen}
stats: 127.0.0.1:${ports.stats}
log: { level: error, access: off }
drain: { accept_for: 0s, timeout: 1s }
limiters:
  ai: { max_concurrent: 100, max_queue: unlimited, queue_timeout: none }
upstreams:
  openai:
    ${url(upstreams.ports.openai)}
    limiter: ai
    pool: { connections: 50, keepalive: 20, warm: 2 }
    timeouts: { headers: 60s }
    ${tls}
  deepseek:
    ${url(upstreams.ports.deepseek)}
    limiter: ai
    pool: { connections: 30, keepalive: 10, warm: 2 }
    timeouts: { headers: 60s }
    ${tls}
  fatsecret:
    ${url(upstreams.ports.fatsecret)}
    pool: { connections: 30, keepalive: 10, warm: 2 }
    timeouts: { headers: 30s }
    ${tls}
`;
}
