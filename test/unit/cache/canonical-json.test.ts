// Canonical JSON: one spelling per meaning, and never one spelling for two meanings.
import fc from 'fast-check';
import t from 'tap';
import { canonicalJson } from '../../../src/cache/canonical-json.ts';

function canonical(text: string): string | null {
  return canonicalJson(Buffer.from(text))?.toString() ?? null;
}

// ---- a value, and the many ways to write it

type Json =
  | { kind: 'literal'; text: string }
  | { kind: 'string'; value: string }
  | { kind: 'array'; items: Json[] }
  | { kind: 'object'; members: [name: string, value: Json][] };

const NUMBERS = ['0', '-0', '1', '1.0', '1.00', '1e2', '1E2', '1e+2', '100', '12345678901234567890', '0.1', '1e999'];
const text16 = fc.oneof(
  fc.string({ maxLength: 6 }),
  fc.string({ unit: 'binary', maxLength: 6 }),
  // Lone surrogates, halves in the wrong order, and pairs.
  fc
    .array(
      fc.constantFrom('\ud83d', '\ude00', '\\', '"', '/', '\n', '\u0000', 'A', 'é', '\u2028', '\ufffd', '\ufeff'),
      {
        maxLength: 5,
      },
    )
    .map((units) => units.join('')),
);
const { json } = fc.letrec<{ json: Json }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(...NUMBERS, 'true', 'false', 'null').map((text): Json => ({ kind: 'literal', text })),
    text16.map((value): Json => ({ kind: 'string', value })),
    fc.array(tie('json'), { maxLength: 4 }).map((items): Json => ({ kind: 'array', items })),
    fc
      .uniqueArray(fc.tuple(text16, tie('json')), { selector: ([name]) => name, maxLength: 4 })
      .map((members): Json => ({ kind: 'object', members })),
  ),
}));

/** Choices of a writer: each call takes the next. */
type Dice = (sides: number) => number;
const dice = fc.infiniteStream(fc.nat({ max: 1000 })).map((stream): Dice => {
  return (sides) => stream.next().value! % sides;
});

const SHORT: Record<string, string> = { '\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '"': '"', '\\': '\\' };

function writeString(value: string, roll: Dice): string {
  let out = '"';
  for (const c of value) {
    const lone = c.length === 1 && c >= '\ud800' && c <= '\udfff';
    const must = lone || c < ' ' || c === '"' || c === '\\';
    const way = roll(4);
    if (c === '/' && way === 1) out += '\\/';
    else if (!lone && SHORT[c] && way < 2) out += `\\${SHORT[c]}`;
    else if (must || way === 2) {
      for (let i = 0; i < c.length; i++) {
        const hex = c.charCodeAt(i).toString(16).padStart(4, '0');
        out += `\\u${roll(2) ? hex : hex.toUpperCase()}`;
      }
    } else out += c;
  }
  return `${out}"`;
}

function write(value: Json, roll: Dice): string {
  const blank = () => ['', '', '', ' ', '\n\t', '\r\n '][roll(6)];
  const list = (texts: string[]) => texts.map((text) => blank() + text + blank()).join(',');
  switch (value.kind) {
    case 'literal':
      return value.text;
    case 'string':
      return writeString(value.value, roll);
    case 'array':
      return `[${list(value.items.map((item) => write(item, roll)))}${value.items.length ? '' : blank()}]`;
    case 'object': {
      const members = [...value.members];
      for (let i = members.length - 1; i > 0; i--) {
        const j = roll(i + 1);
        [members[i], members[j]] = [members[j]!, members[i]!];
      }
      const texts = members.map(([name, of]) => `${writeString(name, roll)}${blank()}:${blank()}${write(of, roll)}`);
      return `{${list(texts)}${members.length ? '' : blank()}}`;
    }
  }
}

const plain: Dice = () => 3;

/** The same value but for one leaf, name, item or bracket. */
function mutated(value: Json, roll: Dice): Json {
  if (value.kind === 'array' && value.items.length > 0) {
    const at = roll(value.items.length);
    if (roll(3) === 0) return { kind: 'array', items: value.items.filter((_, i) => i !== at) };
    return { kind: 'array', items: value.items.map((item, i) => (i === at ? mutated(item, roll) : item)) };
  }
  if (value.kind === 'object' && value.members.length > 0) {
    const at = roll(value.members.length);
    const way = roll(3);
    if (way === 0) return { kind: 'object', members: value.members.filter((_, i) => i !== at) };
    const fresh = `${value.members.map(([name]) => name).join('')}x`;
    return {
      kind: 'object',
      members: value.members.map(([name, of], i): [string, Json] => {
        if (i !== at) return [name, of];
        return way === 1 ? [fresh, of] : [name, mutated(of, roll)];
      }),
    };
  }
  if (value.kind === 'string') {
    // The string that spells the same as a literal, one unit more, another unit.
    const way = roll(3);
    if (way === 0) return { kind: 'string', value: `${value.value}\ud83d` };
    if (way === 1) return { kind: 'string', value: `${value.value}\ufffd` };
    return { kind: 'array', items: [value] };
  }
  if (value.kind === 'literal') {
    if (roll(3) === 0) return { kind: 'string', value: value.text };
    const others = [...NUMBERS, 'true', 'false', 'null'].filter((text) => text !== value.text);
    return { kind: 'literal', text: others[roll(others.length)]! };
  }
  return value.kind === 'array' ? { kind: 'object', members: [] } : { kind: 'array', items: [] };
}

/** Equal for equal meanings only, in another way than the code: through JSON.parse, numbers as they are written. */
function meaning(value: Json): unknown {
  if (value.kind === 'literal') return ['literal', value.text];
  if (value.kind === 'string')
    return ['string', [...Array(value.value.length).keys()].map((i) => value.value.charCodeAt(i))];
  if (value.kind === 'array') return ['array', value.items.map(meaning)];
  const members = value.members.map(([name, of]): [string, unknown] => [JSON.stringify(name), meaning(of)]);
  return ['object', members.sort(([a], [b]) => (a < b ? -1 : 1))];
}

t.test('the order of names, white space and escapes do not matter', async () => {
  fc.assert(
    fc.property(json, dice, dice, (value, one, other) => {
      const text = canonical(write(value, one));
      if (text === null) throw new Error(`refused ${write(value, plain)}`);
      if (canonical(write(value, other)) !== text) throw new Error(text);
      if (canonical(text) !== text) throw new Error(`${text} is not canonical itself`);
    }),
    { numRuns: 500 },
  );
});

t.test('any other meaning is another text', async () => {
  fc.assert(
    fc.property(json, dice, dice, (value, roll, spelling) => {
      const other = mutated(value, roll);
      if (JSON.stringify(meaning(value)) === JSON.stringify(meaning(other))) throw new Error('not mutated');
      const one = canonical(write(value, spelling));
      const two = canonical(write(other, spelling));
      if (one === null || two === null || one === two) throw new Error(`${one} is also ${two}`);
    }),
    { numRuns: 1000 },
  );
});

t.test('it agrees with JSON.parse on what is equal', async () => {
  const value = fc.jsonValue({ maxDepth: 4 });
  fc.assert(
    fc.property(value, value, (one, two) => {
      // Numbers as JSON.stringify writes them are equal only when they are written alike.
      const same = JSON.stringify(sorted(one)) === JSON.stringify(sorted(two));
      if ((canonical(JSON.stringify(one)) === canonical(JSON.stringify(two))) !== same) throw new Error('disagrees');
      const text = canonical(JSON.stringify(one, null, 2))!;
      if (JSON.stringify(sorted(JSON.parse(text))) !== JSON.stringify(sorted(one))) throw new Error(text);
    }),
    { numRuns: 500 },
  );
});

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, of]) => [name, sorted(of)]);
  return { members: entries.sort(([a], [b]) => (a! < b! ? -1 : 1)) };
}

t.test('whatever the bytes are, it takes what JSON.parse takes, or says null', async (t) => {
  let taken = 0;
  const piece = fc.constantFrom(
    ...'{}[]:,"\\ \n-+.eE01u/atrue'.split(''),
    '"a"',
    '1',
    'null',
    'false',
    '\\u00',
    '"b":',
  );
  const damaged = fc
    .tuple(json, dice, fc.nat({ max: 200 }), fc.nat({ max: 2 }), piece)
    .map(([value, roll, at, cut, into]) => {
      const text = write(value, roll);
      const from = at % (text.length + 1);
      return text.slice(0, from) + into + text.slice(from + cut);
    });
  const soup = fc.array(piece, { maxLength: 10 }).map((pieces) => pieces.join(''));
  fc.assert(
    fc.property(fc.oneof(damaged, soup), (text) => {
      const out = canonical(text);
      if (out === null) return;
      taken++;
      // Buffer.from writes lone surrogates as U+FFFD: what was looked at is that.
      const seen = Buffer.from(text).toString();
      if (JSON.stringify(sorted(JSON.parse(out))) !== JSON.stringify(sorted(JSON.parse(seen)))) throw new Error(out);
    }),
    { numRuns: 2000 },
  );
  t.ok(taken > 100, `${taken} of 2000 were taken`);
});

t.test('texts as they come out', async (t) => {
  const table: [text: string, out: string][] = [
    [' {"b" : 1 , "a":[ true,false , null ] }\r\n', '{"a":[true,false,null],"b":1}'],
    ['{"\\u0041":"\\u0041\\/"}', '{"A":"A/"}'],
    ['{"a":1,"B":2,"\\u00e9":3,"é1":4}', '{"B":2,"a":1,"é":3,"é1":4}'],
    ['{"\\u005c":1,"\\"":2}', '{"\\"":2,"\\\\":1}'],
    ['"\\ud83d\\ude00"', '"😀"'],
    ['"\\uD83D"', '"\\ud83d"'],
    ['"\\ude00\\ud83d"', '"\\ude00\\ud83d"'],
    ['"\\ude00\\ude00"', '"\\ude00\\ude00"'],
    ['"\\ud83d\\ud83d\\ude00"', '"\\ud83d😀"'],
    ['"\\ud83d\\n"', '"\\ud83d\\n"'],
    ['"\ufffd"', '"\ufffd"'],
    ['"\\u0000\\u001f\\u007f\\b"', '"\\u0000\\u001f\u007f\\b"'],
    ['12345678901234567890', '12345678901234567890'],
    ['[1.0,1,1e0,-0,0,1E5]', '[1.0,1,1e0,-0,0,1E5]'],
    ['{"__proto__":1,"constructor":2}', '{"__proto__":1,"constructor":2}'],
    ['{"10":1,"9":2}', '{"10":1,"9":2}'],
    ['{"#":1,"\\"":2,"a":3,"a!":4}', '{"\\"":2,"#":1,"a":3,"a!":4}'],
    ['{}', '{}'],
    ['[ ]', '[]'],
    ['""', '""'],
    // By UTF-16 code units: the surrogates of 😀 come before U+FF01.
    ['{"\uff01":1,"😀":2}', '{"😀":2,"\uff01":1}'],
  ];
  for (const [text, out] of table) t.equal(canonical(text), out, text);
});

t.test('every character, escaped, comes out as JSON.stringify writes it', async (t) => {
  const hex = (unit: number) => `\\u${unit.toString(16).padStart(4, '0')}`;
  let escapes = '';
  let text = '';
  // Blanks keep surrogates lone.
  for (let unit = 0; unit < 0x10000; unit++) {
    escapes += `${hex(unit)} `;
    text += `${String.fromCharCode(unit)} `;
  }
  for (let code = 0x10000; code <= 0x10ffff; code += 0x3ff) {
    const pair = String.fromCodePoint(code);
    escapes += hex(pair.charCodeAt(0)) + hex(pair.charCodeAt(1));
    text += pair;
  }
  t.ok(canonical(`"${escapes}"`) === JSON.stringify(text));
  t.ok(canonical(JSON.stringify(text)) === JSON.stringify(text));
});

t.test('what is not JSON, or not the same to every parser, is left to its exact bytes', async (t) => {
  const table: [why: string, text: string | Buffer][] = [
    ['empty', ''],
    ['blank', ' \n'],
    ['a BOM', '\ufeff{}'],
    ['no UTF-8', Buffer.from([0x22, 0xff, 0x22])],
    ['overlong UTF-8', Buffer.from([0x22, 0xc0, 0xaf, 0x22])],
    ['an encoded surrogate', Buffer.from([0x22, 0xed, 0xa0, 0xbd, 0x22])],
    ['UTF-16', Buffer.from('{"a":1}', 'utf16le')],
    ['trailing junk', '{} x'],
    ['two texts', '{}{}'],
    ['a trailing comma', '[1,]'],
    ['a trailing comma in an object', '{"a":1,}'],
    ['only a comma', '[,]'],
    ['an open array', '[1'],
    ['an open object', '{"a":1'],
    ['an open string', '"a'],
    ['an open escape', '"\\'],
    ['an open unicode escape', '"\\u00'],
    ['a wrong escape', '"\\x41"'],
    ['a wrong unicode escape', '"\\u00g0"'],
    ['a raw line end in a string', '"\n"'],
    ['a raw NUL in a string', '"\0"'],
    ['single quotes', "{'a':1}"],
    ['a bare name', '{a:1}'],
    ['a number as name', '{1:1}'],
    ['no colon', '{"a" 1}'],
    ['no value', '{"a":}'],
    ['a comment', '{/**/}'],
    ['a leading zero', '01'],
    ['a negative leading zero', '-01'],
    ['a plus', '+1'],
    ['a lone minus', '-'],
    ['a dot at the end', '1.'],
    ['a dot at the start', '.5'],
    ['an open exponent', '1e'],
    ['an open signed exponent', '1e+'],
    ['hexadecimal', '0x10'],
    ['NaN', 'NaN'],
    ['Infinity', '-Infinity'],
    ['a capital literal', 'True'],
    ['half a literal', 'nul'],
    ['a longer literal', 'nullx'],
    ['a no-break space', '\u00a01'],
    ['a vertical tab', '\v1'],
    ['a name twice', '{"a":1,"a":1}'],
    ['a name twice, apart', '{"a":1,"b":2,"a":3}'],
    ['a name twice, one escaped', '{"a":1,"\\u0061":2}'],
    ['a name twice, deep', '[{"x":{"a":1,"a":2}}]'],
  ];
  for (const [why, text] of table) t.equal(canonicalJson(Buffer.from(text as string)), null, why);
});

t.test('it goes 64 levels deep and no deeper, however deep the text is', async (t) => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  t.equal(canonical(nested(64)), nested(64));
  t.equal(canonical(nested(65)), null);
  t.equal(canonical(`${'{"a":'.repeat(64)}1${'}'.repeat(64)}`)?.length, 64 * 6 + 1);
  t.equal(canonical(`${'{"a":'.repeat(65)}1${'}'.repeat(65)}`), null);
  t.equal(canonical('['.repeat(1_000_000)), null);
  t.equal(canonical(`[${'[],'.repeat(1000)}[]]`)?.length, 3004, 'neighbours are not depth');
});

t.test('time grows with the length and no faster', async (t) => {
  const texts: [what: string, make: (n: number) => string][] = [
    ['numbers', (n) => `[${'1,'.repeat(n / 2)}1]`],
    ['one string', (n) => `"${'a'.repeat(n)}"`],
    ['escapes', (n) => `"${'\\n'.repeat(n / 2)}"`],
    ['open strings', (n) => `["${'\\"'.repeat(n / 2)}`],
    ['names', (n) => `{${Array.from({ length: n / 12 }, (_, i) => `"k${n - i}":${i}`).join(',')}}`],
    ['blanks', (n) => `[${' '.repeat(n)}]`],
    ['deep rows', (n) => `${'['.repeat(60)}${'[1],'.repeat(n / 4)}1${']'.repeat(60)}`],
    ['deep names in the wrong order', (n) => `${'{"b":1,"a":'.repeat(60)}"${'x'.repeat(n)}"${'}'.repeat(60)}`],
    ['digits', (n) => '1'.repeat(n)],
  ];
  for (const [what, make] of texts) {
    const small = Buffer.from(make(25_000));
    const large = Buffer.from(make(1_600_000));
    const ratio = fastest(large) / fastest(small);
    // 64 times the length; cold caches and collection on a busy machine make it 500, a quadratic one would take 4096 times.
    t.ok(ratio < 1000, `${what}: ${ratio.toFixed(1)} times as long`);
  }
});

/** CPU time, µs. */
function fastest(bytes: Buffer): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const before = process.cpuUsage();
    canonicalJson(bytes);
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, user + system);
  }
  return best;
}
