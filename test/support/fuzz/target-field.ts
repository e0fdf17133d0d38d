// One random request target: what is accepted goes to the upstream it names alone, byte for byte behind its base path, and whatever a
// server makes of it stays below that. By the rules alone, or through a whole proxy to recording upstreams.

import { connect } from 'node:net';
import { parseTarget, upstreamPath } from '../../../src/http/target.ts';
import { TestProxy } from '../proxy.ts';
import { escapes } from './escapes.ts';
import { Recorder } from './recorder.ts';
import { type TargetCase, UPSTREAMS } from './target-grammar.ts';

/** @throws when a server could see the path outside of the base path */
function assertStays(path: string, basePath: string): void {
  const floor = basePath.split('/').filter((segment) => segment !== '');
  const seenAs = escapes(path.replace(/\?.*$/s, ''), floor);
  if (seenAs !== null)
    throw new Error(`${path} may be seen as ${JSON.stringify(seenAs)}, outside of ${basePath || '/'}`);
}

/** The rules alone. */
export class TargetFuzz {
  readonly counts = { accepted: 0, refused: 0 };

  static async start(): Promise<TargetFuzz> {
    return new TargetFuzz();
  }

  async check({ target }: TargetCase): Promise<void> {
    // As the first segment names the upstream, and on a listener that belongs to one.
    for (const only of ['', 'ai']) {
      const parsed = parseTarget(target, only);
      if (typeof parsed === 'string') {
        this.counts.refused++;
        continue;
      }
      this.counts.accepted++;
      const { name, rest } = parsed;
      if (only === '') {
        if (`/${name}${rest}` !== target) throw new Error(`${JSON.stringify(parsed)} is not ${JSON.stringify(target)}`);
        // As if the upstream's name were a directory of one server for all of them.
        if (Object.hasOwn(UPSTREAMS, name)) assertStays(target, `/${name}`);
      } else if (rest !== target) throw new Error(`${JSON.stringify(parsed)} is not ${JSON.stringify(target)}`);
      const basePath = UPSTREAMS[name] ?? '/base';
      const path = upstreamPath(basePath, parsed);
      if (path !== basePath + (rest.startsWith('/') ? rest : `/${rest}`)) throw new Error(`sent as ${path}`);
      assertStays(path, basePath);
    }
  }

  async close(): Promise<void> {}
}

/** Through a proxy with several upstreams, and listeners that belong to one. */
export class TargetField {
  readonly #recorders = new Map<string, Recorder>();
  #proxy!: TestProxy;
  readonly counts = { accepted: 0, refused: 0 };

  static async start(): Promise<TargetField> {
    const field = new TargetField();
    const upstreams: Record<string, { url: string }> = {};
    for (const [name, basePath] of Object.entries(UPSTREAMS)) {
      const recorder = new Recorder();
      field.#recorders.set(name, recorder);
      upstreams[name] = { url: `http://127.0.0.1:${await recorder.start()}${basePath}` };
    }
    field.#proxy = await TestProxy.start({ upstreams, log: { access: 'off', level: 'error' } });
    return field;
  }

  async check({ target }: TargetCase): Promise<void> {
    const status = await this.#ask(`GET ${target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`);
    const got = [...this.#recorders].flatMap(([name, { received }]) => received.map((one) => ({ name, ...one })));
    const wrong = [...this.#recorders.values()].flatMap((recorder) => recorder.wrong);
    for (const recorder of this.#recorders.values()) recorder.received = [];
    if (wrong.length > 0) throw new Error(`${wrong.join('; ')} for ${JSON.stringify(target)}`);
    if (status !== 200) {
      this.counts.refused++;
      if (![400, 404].includes(status) || got.length > 0) throw new Error(`${status}, ${JSON.stringify(got)}`);
      return;
    }
    this.counts.accepted++;
    const [one] = got;
    if (got.length !== 1 || !one) throw new Error(`${got.length} requests for ${JSON.stringify(target)}`);
    const rest = target.slice(one.name.length + 1);
    const wanted = `${UPSTREAMS[one.name]}${rest.startsWith('/') ? '' : '/'}${rest}`;
    if (!target.startsWith(`/${one.name}`) || one.target !== wanted)
      throw new Error(`${JSON.stringify(target)} reached ${one.name} as ${JSON.stringify(one.target)}`);
    assertStays(one.target, UPSTREAMS[one.name]!);
  }

  async close(): Promise<void> {
    await this.#proxy.stop();
    for (const recorder of this.#recorders.values()) recorder.close();
  }

  /** @returns the status of the only answer */
  async #ask(bytes: string): Promise<number> {
    const socket = connect({ port: this.#proxy.port, host: '127.0.0.1', noDelay: true });
    let answered = '';
    socket.on('data', (chunk: Buffer) => {
      answered += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.write(Buffer.from(bytes, 'latin1'));
    await new Promise((resolve) => socket.once('close', resolve));
    const statuses = [...answered.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
    if (statuses.length !== 1) throw new Error(`${statuses.length} answers: ${answered}`);
    return statuses[0]!;
  }
}
