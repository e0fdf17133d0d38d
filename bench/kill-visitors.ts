// The clients of the kill soak: each kind asks for one thing after another, for as long as the soak lasts, and checks each answer that is whole.
import { KillClient, type Outcome, type Scene, type Sink, type Tally } from './kill-client.ts';
import { keepTalking } from './kill-websockets.ts';
import { PatternCheck, patternAt } from './pattern.ts';
import { sleep } from './processes.ts';

const MB = 1024 * 1024;
const PIECE = 64 * 1024;
const FAILED = ['internal_error', 'bad_request', 'upstream_protocol_error', 'invalid_target'];

/** One kind of client, and how many there are of it at any time. */
export interface Kind {
  readonly name: string;
  readonly count: number;
  /** One client after another until the soak is over. */
  keepComing(scene: Scene, tally: Tally): Promise<void>;
}

/** One exchange on the connection it gets. */
type Visit = (client: KillClient, scene: Scene) => Promise<Outcome>;

export const KINDS: readonly Kind[] = [
  over('json', 16, ask),
  over('sse', 10, listen),
  over('upload', 4, upload),
  over('download', 3, (client, scene) => download(client, scene, 'fast')),
  over('slow', 4, (client, scene) => download(client, scene, 'slow')),
  over('http/1.0', 3, (client, scene) => download(client, scene, 'old')),
  over('mute', 2, mumble),
  { name: 'ws', count: 10, keepComing: keepTalking },
];

/** A kind that speaks HTTP. */
function over(name: string, count: number, visit: Visit): Kind {
  return { name, count, keepComing: (scene, tally) => keepVisiting(name, visit, scene, tally) };
}

async function keepVisiting(name: string, visit: Visit, scene: Scene, tally: Tally): Promise<void> {
  let client: KillClient | null = null;
  while (!scene.over) {
    if (!client || client.closed) client = new KillClient(scene);
    const outcome = await visit(client, scene);
    const { end, status, code } = outcome;
    const what = end === 'whole' ? `${status}${code && ` ${code}`}` : end;
    tally.set(what, (tally.get(what) ?? 0) + 1);
    if (FAILED.includes(code)) scene.wrong(`${name} was answered ${status} ${code}: ${outcome.text}`);
    if (end === 'hung' && !scene.over) scene.wrong(`${name}: no end of the exchange, status ${status || 'none'}`);
    if (end !== 'whole' || client.socket.readableEnded) {
      client.socket.destroy();
      client = null;
    }
    await sleep(scene.chance.between(0, 30));
  }
}

function head(method: string, target: string, { chance }: Scene, fields = '', version = '1.1'): string {
  const lane = chance.happens(0.3) ? 'x-aiproxy-priority: slow\r\n' : '';
  const deadline = chance.happens(0.05) ? `x-aiproxy-deadline-ms: ${chance.between(20, 500)}\r\n` : '';
  const who = `authorization: Bearer user-${chance.between(1, 4)}\r\n`;
  return `${method} ${target} HTTP/${version}\r\nhost: soak\r\n${who}${lane}${deadline}${fields}\r\n`;
}

let asked = 0;

/** A short question, whose answer repeats it: nobody gets another's. */
async function ask(client: KillClient, scene: Scene): Promise<Outcome> {
  const { chance } = scene;
  const upstream = chance.pick(['plain', 'ai', 'ai', 'cached', 'cached', 'pair']);
  const n = upstream === 'cached' ? chance.between(0, 40) : 1000 + ++asked;
  const isPost = chance.happens(0.5);
  const question = isPost ? JSON.stringify({ n }) : String(n);
  const outcome = await client.ask(
    isPost
      ? head('POST', `/${upstream}/json`, scene, `content-length: ${question.length}\r\n`) + question
      : head('GET', `/${upstream}/json?n=${n}`, scene),
  );
  if (outcome.end === 'whole' && outcome.code === '') {
    const { question: answered } = JSON.parse(outcome.text) as { question: string };
    if (answered !== question) scene.wrong(`${upstream}: asked ${question}, answered ${answered}`);
  }
  return outcome;
}

async function listen(client: KillClient, scene: Scene): Promise<Outcome> {
  const events = scene.chance.between(5, 200);
  const upstream = scene.chance.pick(['ai', 'ai', 'plain', 'pair']);
  const outcome = await client.ask(
    head('GET', `/${upstream}/sse?events=${events}`, scene, 'accept: text/event-stream\r\n'),
  );
  if (outcome.end === 'whole' && outcome.status === 200) {
    const numbers = [...outcome.text.matchAll(/^data: \{"n":(\d+),/gm)].map(([, n]) => Number(n));
    const right =
      numbers.length === events && numbers.every((n, i) => n === i) && outcome.text.endsWith('data: [DONE]\n\n');
    if (!right) scene.wrong(`${upstream}: ${numbers.length} of ${events} events in a stream that ended well`);
  }
  return outcome;
}

async function upload(client: KillClient, scene: Scene): Promise<Outcome> {
  const { chance } = scene;
  const bytes = chance.between(MB, 10 * MB);
  const chunked = chance.happens(0.5);
  const expect = chance.happens(0.2) ? 'expect: 100-continue\r\n' : '';
  const framing = chunked ? 'transfer-encoding: chunked\r\n' : `content-length: ${bytes}\r\n`;
  const target = `/${chance.pick(['plain', 'ai'])}/upload?bytes=${bytes}`;
  const answer = client.ask(head('POST', target, scene, framing + expect));
  const slow = chance.happens(0.3);
  for (let at = 0; at < bytes && client.asking; ) {
    const piece = patternAt(at, Math.min(PIECE, bytes - at));
    at += piece.length;
    if (chunked) client.socket.write(`${piece.length.toString(16)}\r\n`);
    let room = client.socket.write(piece);
    if (chunked) room = client.socket.write(at < bytes ? '\r\n' : '\r\n0\r\n\r\n');
    if (slow) await sleep(chance.between(0, 20));
    while (!room && client.asking && client.socket.writableNeedDrain) await sleep(2);
    client.touch();
  }
  const outcome = await answer;
  if (outcome.end === 'whole' && outcome.status === 200) {
    const { bytes: came } = JSON.parse(outcome.text) as { bytes: number };
    if (came !== bytes) scene.wrong(`${target} arrived as ${came}`);
  }
  // Answered early, the rest of the body is still on its way: this connection is no more use.
  if (outcome.status !== 200) client.socket.destroy();
  return outcome;
}

async function download(client: KillClient, scene: Scene, pace: 'fast' | 'slow' | 'old'): Promise<Outcome> {
  const { chance } = scene;
  const bytes = chance.between(1, pace === 'fast' ? 10 * MB : 3 * MB);
  const target = `/${chance.pick(['plain', 'ai', 'pair'])}/download?bytes=${bytes}${chance.happens(0.5) ? '&chunked' : ''}`;
  const check = new PatternCheck();
  // Some stop for longer than write_stall.
  const pause = chance.happens(0.1) ? 6000 : chance.between(1, 40);
  const sink: Sink = (chunk) => {
    check.add(chunk);
    if (pace !== 'slow' || client.socket.isPaused()) return;
    client.socket.pause();
    setTimeout(() => client.socket.resume(), pause);
  };
  const stays = chance.happens(0.5) ? 'connection: keep-alive\r\n' : '';
  const request = pace === 'old' ? head('GET', target, scene, stays, '1.0') : head('GET', target, scene);
  const outcome = await client.ask(request, sink);
  if (!check.right) scene.wrong(`${target}: a wrong byte before ${check.bytes}`);
  if (outcome.end === 'whole' && outcome.status === 200 && check.bytes !== bytes) {
    scene.wrong(`${target}: ${check.bytes} bytes look like the whole answer (${pace})`);
  }
  return outcome;
}

/** Half a request, or half a body, and then nothing. */
async function mumble(client: KillClient, scene: Scene): Promise<Outcome> {
  const whole = head('POST', '/ai/json', scene, 'content-length: 100000\r\n');
  const outcome = await client.ask(whole.slice(0, scene.chance.between(1, whole.length)));
  client.socket.destroy();
  return outcome;
}
