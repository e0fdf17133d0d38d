// Fetches under way by key, and the marks that keep requests from waiting in line.
import t from 'tap';
import { FlightTable, type Flying } from '../../../src/cache/flight-table.ts';

class Fake implements Flying {
  readonly key: string;
  readonly name: string;
  readonly upstream: string;
  readonly uri: string;
  next: this | null = null;
  changes = 0;
  stops = 0;
  onStop: (() => void) | null = null;

  constructor(key: string, name = key, uri = '/', upstream = 'u') {
    this.key = key;
    this.name = name;
    this.uri = uri;
    this.upstream = upstream;
  }

  outdated(): void {
    this.changes++;
  }

  stop(): void {
    this.stops++;
    this.onStop?.();
  }
}

function found(table: FlightTable<Fake>, key: string): string {
  let names = '';
  for (let flight = table.find(key); flight; flight = flight.next) names += flight.name;
  return names;
}

t.test('flights of one key are found newest first, and each can leave from any place', async (t) => {
  for (const order of ['abc', 'acb', 'bac', 'bca', 'cab', 'cba']) {
    const table = new FlightTable<Fake>();
    const flights = new Map([...'abc'].map((name) => [name, new Fake('k', name)]));
    for (const flight of flights.values()) table.add(flight, true);
    t.equal(found(table, 'k'), 'cba');
    t.equal(table.size, 3);
    let left = 'cba';
    for (const name of order) {
      table.remove(flights.get(name)!);
      left = left.replace(name, '');
      t.equal(found(table, 'k'), left);
      t.equal(flights.get(name)!.next, null, 'holds no other');
    }
    t.equal(table.find('k'), null);
    t.equal(table.size, 0);
  }
});

t.test('one that is not open, or closed, is not found but still counts and is stopped', async (t) => {
  const table = new FlightTable<Fake>();
  const [shut, open] = [new Fake('k', 's'), new Fake('k', 'o')];
  table.add(shut, false);
  t.equal(table.find('k'), null);
  table.add(open, true);
  t.equal(found(table, 'k'), 'o');
  table.close(shut);
  t.equal(found(table, 'k'), 'o', 'closing one that was never open takes nothing away');
  table.close(open);
  table.close(open);
  t.equal(table.find('k'), null);
  t.equal(table.size, 2);
  table.stopAll();
  t.same([shut.stops, open.stops], [1, 1]);
  table.remove(shut);
  table.remove(open);
  t.equal(table.size, 0);
});

t.test('a flight may leave the table while all are stopped', async (t) => {
  const table = new FlightTable<Fake>();
  const flights = Array.from({ length: 100 }, (_, i) => new Fake(`k${i % 7}`, String(i)));
  for (const flight of flights) {
    table.add(flight, true);
    flight.onStop = () => table.remove(flight);
  }
  table.stopAll();
  t.ok(flights.every(({ stops }) => stops === 1));
  t.equal(table.size, 0);
  for (let i = 0; i < 7; i++) t.equal(table.find(`k${i}`), null);
});

t.test('what an unsafe method has changed is told, and found by nobody any more', async (t) => {
  const table = new FlightTable<Fake>();
  const [a, b, other, elsewhere] = [
    new Fake('k1', 'a'),
    new Fake('k2', 'b'),
    new Fake('k3', 'c', '/other'),
    new Fake('k4', 'd', '/', 'v'),
  ];
  for (const flight of [a, b, other, elsewhere]) table.add(flight, true);
  table.purge({ upstream: 'u', uri: '/', prefix: null, key: null });
  t.same(
    [a, b, other, elsewhere].map(({ changes }) => changes),
    [1, 1, 0, 0],
  );
  t.same(['k1', 'k2', 'k3', 'k4'].map((key) => found(table, key)).join(), ',,c,d');
  t.equal(table.size, 4, 'they fly on');
});

t.test('a mark ends when its time has come', async (t) => {
  const table = new FlightTable<Fake>();
  t.notOk(table.isMarked('k', 0));
  table.mark('k', 100);
  t.ok(table.isMarked('k', 99));
  t.notOk(table.isMarked('other', 99));
  t.notOk(table.isMarked('k', 100));
  t.ok(table.wasMarked('k', 100 + 3_599_999), 'but remembered for an hour');
  t.notOk(table.wasMarked('k', 100 + 3_600_000));
  t.notOk(table.wasMarked('other', 0));
  table.mark('k', 100);
  table.mark('k', 200);
  t.ok(table.isMarked('k', 150), 'a new one counts from its own time');
});

t.test('marks are bounded: the oldest goes first, and one that was renewed is not old', async (t) => {
  const table = new FlightTable<Fake>();
  for (let i = 0; i < 10_000; i++) table.mark(`k${i}`, 1e6);
  table.mark('k0', 1e6);
  for (let i = 0; i < 500; i++) table.mark(`new${i}`, 1e6);
  t.ok(table.isMarked('k0', 0));
  let left = 0;
  for (let i = 1; i < 10_000; i++) if (table.isMarked(`k${i}`, 0)) left++;
  t.equal(left, 9499);
  t.notOk(table.isMarked('k1', 0));
  t.ok(table.isMarked('k501', 0));
});
