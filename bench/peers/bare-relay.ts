// The floor: node:http and one undici Client per connection, nothing between them. No limiter, no deadlines, no stats, no rules.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Client, type Dispatcher } from 'undici';

const [listen, upstream] = process.argv.slice(2);
const idle: Client[] = [];
const waiting: Relay[] = [];
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'host', 'content-length']);

class Relay implements Dispatcher.DispatchHandler {
  private readonly request: IncomingMessage;
  private readonly answer: ServerResponse;
  private body: Buffer | null = null;

  constructor(request: IncomingMessage, answer: ServerResponse) {
    this.request = request;
    this.answer = answer;
    request.on('data', (chunk: Buffer) => {
      this.body = this.body === null ? chunk : Buffer.concat([this.body, chunk]);
    });
    request.on('end', () => {
      const client = idle.pop();
      if (client) this.send(client);
      else waiting.push(this);
    });
  }

  send(client: Client): void {
    const headers: string[] = [];
    const raw = this.request.rawHeaders;
    for (let n = 0; n < raw.length; n += 2) {
      const name = raw[n]!.toLowerCase();
      if (!HOP_BY_HOP.has(name)) headers.push(name, raw[n + 1]!);
    }
    const { method, url } = this.request;
    client.dispatch({ method: method as Dispatcher.HttpMethod, path: url!, headers, body: this.body }, this);
  }

  onRequestStart(): void {}

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    const raw = controller.rawHeaders as Buffer[];
    const headers: string[] = [];
    for (let n = 0; n < raw.length; n += 2) {
      const name = raw[n]!.toString('latin1');
      if (name.length !== 10 || name.toLowerCase() !== 'connection') headers.push(name, raw[n + 1]!.toString('latin1'));
    }
    this.answer.writeHead(status, headers);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.answer.write(chunk);
  }

  onResponseEnd(): void {
    this.answer.end();
  }

  onResponseError(): void {
    this.answer.destroy();
  }
}

for (let n = 0; n < 64; n++) {
  const client = new Client(`http://127.0.0.1:${upstream}`, { allowH2: false, keepAliveTimeout: 60_000 });
  client.on('drain', () => {
    const next = waiting.shift();
    if (next) next.send(client);
    else idle.push(client);
  });
  idle.push(client);
}
createServer({ keepAliveTimeout: 75_000 }, (request, answer) => new Relay(request, answer)).listen(
  Number(listen),
  '127.0.0.1',
);
process.on('SIGTERM', () => process.exit(0));
