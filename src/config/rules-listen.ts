// The rule between addresses: no two listeners at one place, the stats port included.
//
// As in rules.ts, it runs whether or not the keys themselves are right.

import { collide, parseAddress } from './address.ts';
import { writtenListens } from './listens.ts';
import { type Key, pathText } from './path.ts';
import { fields, type Report } from './rules.ts';
import type { Address } from './schema.ts';

export function listenFileRules(file: unknown, report: Report): void {
  const taken: { path: Key[]; address: Address }[] = [];
  const stats = { path: ['stats'] as Key[], address: fields(file).stats };
  for (const { path, address: input } of [...writtenListens(file), stats]) {
    const address = parseAddress(input);
    if (typeof address === 'string') continue;
    const other = taken.find((one) => collide(one.address, address));
    taken.push({ path, address });
    if (other === undefined) continue;
    const message = `must not share the ${address.path === '' ? 'port' : 'socket'} of ${pathText(other.path)}`;
    const params = { depth: path.length, other: { path: other.path, value: other.address.text } };
    report.addIssue({ code: 'custom', path, message, input, params });
  }
}
