// An upstream that speaks HTTP/2, on node:http2: every stream runs through a script.

import { once } from 'node:events';
import {
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type SecureServerOptions,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { makeCertificate } from '../../src/demo/certificate.ts';
import type { ConfigOverrides, TestProxy, UpstreamOverrides } from './proxy.ts';
import type { Rig } from './rig.ts';

const certificate = makeCertificate({ names: ['localhost', '127.0.0.1'] });
/** What a proxy must trust to reach one. */
export const HTTP2_CA = certificate.cert;
export const HTTP2_TLS = { cert: certificate.cert, key: certificate.key };

/** One request. */
export interface Http2Request {
  readonly path: string;
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly raw: readonly string[];
  readonly stream: ServerHttp2Stream;
  readonly session: ServerHttp2Session;
  /** The whole body. */
  body(): Promise<Buffer>;
}

export type Http2Script = (request: Http2Request) => void | Promise<void>;

export class Http2Upstream {
  readonly #server: Http2SecureServer;
  readonly sessions: ServerHttp2Session[] = [];
  readonly requests: Http2Request[] = [];
  script: Http2Script;
  /** Streams open now, by this side's count, and the most there were; on all sessions. */
  open = 0;
  mostOpen = 0;

  private constructor(script: Http2Script, options: SecureServerOptions) {
    this.script = script;
    this.#server = createSecureServer({ ...HTTP2_TLS, ...options });
    this.#server.on('session', (session) => {
      this.sessions.push(session);
      session.on('error', () => {});
    });
    this.#server.on('stream', (stream, headers, _flags, raw) =>
      this.#run(stream as ServerHttp2Stream, headers, raw as unknown as string[]),
    );
    this.#server.on('sessionError', () => {});
    this.#server.on('tlsClientError', () => {});
  }

  static async start(script: Http2Script, options: SecureServerOptions = {}): Promise<Http2Upstream> {
    const upstream = new Http2Upstream(script, options);
    upstream.#server.listen(0, '127.0.0.1');
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Sessions that are up. */
  get up(): ServerHttp2Session[] {
    return this.sessions.filter((session) => !session.destroyed);
  }

  #run(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: readonly string[]): void {
    this.open++;
    this.mostOpen = Math.max(this.mostOpen, this.open);
    stream.on('error', () => {});
    stream.once('close', () => {
      this.open--;
    });
    const request: Http2Request = {
      path: String(headers[':path']),
      method: String(headers[':method']),
      headers,
      raw,
      stream,
      session: stream.session as ServerHttp2Session,
      body: async () => {
        const chunks: Buffer[] = [];
        for await (const chunk of stream) chunks.push(chunk as Buffer);
        return Buffer.concat(chunks);
      },
    };
    this.requests.push(request);
    Promise.resolve()
      .then(() => this.script(request))
      .catch((error: unknown) => {
        if (!stream.destroyed) console.error('the script of an upstream failed:', error);
        stream.destroy();
      });
  }

  async close(): Promise<void> {
    for (const session of this.sessions) session.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** A whole answer. */
export function reply(stream: ServerHttp2Stream, body = 'ok', headers: Record<string, string | number> = {}): void {
  if (stream.destroyed) return;
  stream.respond({ ':status': 200, ...headers });
  stream.end(body);
}

/** A proxy with the one upstream `ai`, which this is. */
export async function http2Scene(
  rig: Rig,
  script: Http2Script,
  upstream: Partial<UpstreamOverrides> = {},
  options: SecureServerOptions = {},
  rest: Omit<ConfigOverrides, 'upstreams'> = {},
): Promise<{ server: Http2Upstream; proxy: TestProxy }> {
  const server = await Http2Upstream.start(script, options);
  rig.closes(server);
  return { server, proxy: await http2Proxy(rig, server.url, upstream, rest) };
}

export async function http2Proxy(
  rig: Rig,
  url: string,
  upstream: Partial<UpstreamOverrides> = {},
  rest: Omit<ConfigOverrides, 'upstreams'> = {},
): Promise<TestProxy> {
  return await rig.one({ url, tls: { ca: HTTP2_CA }, http2: { maxStreams: 100 }, ...upstream }, rest);
}
