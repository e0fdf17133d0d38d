// Which tokens a listener takes.

import t from 'tap';
import { Tokens } from '../../../src/proxy/tokens.ts';

t.test('exactly the secrets there are, byte for byte', (t) => {
  const tokens = new Tokens(['first-secret', 'second-secret-that-is-longer', 'schlüssel']);
  for (const right of ['first-secret', 'second-secret-that-is-longer']) t.equal(tokens.includes(right), true, right);
  for (const wrong of [
    '',
    'first-secre',
    'first-secret ',
    'first-secret,first-secret',
    'FIRST-SECRET',
    'second-secret',
    'first-secretsecond-secret-that-is-longer',
    '\0',
  ])
    t.equal(tokens.includes(wrong), false, JSON.stringify(wrong));
  t.equal(tokens.includes(Buffer.from('schlüssel').toString('latin1')), true, 'UTF-8 on the wire, latin1 in a head');
  t.equal(tokens.includes('schlüssel'), false);
  t.end();
});

t.test('no secrets, no way in', (t) => {
  t.equal(new Tokens([]).includes('x'), false);
  t.end();
});
