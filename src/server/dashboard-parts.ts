// The page's small parts, as browser JavaScript: numbers in words, elements, bars, tables, sparklines.
// Everything from the snapshot enters as text nodes or text attributes: names and labels are hostile until shown.

export const PARTS_JS = String.raw`
const DASH = '\u2013';

// ---- numbers in words

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });

const count = (n) => (n < 1e6 ? whole : short).format(n);
const rate = (n) => (n === null ? DASH : (n < 100 ? three : whole).format(n));
const percent = (part) => (part === null ? DASH : three.format(Math.floor(part * 1000) / 10) + ' %');
const limit = (n) => (n === null ? 'unlimited' : count(n));
const sum = (numbers) => Object.values(numbers).reduce((a, b) => a + b, 0);

function duration(ms) {
  if (ms < 1000) return (ms < 10 ? three.format(ms) : whole.format(ms)) + ' ms';
  if (ms < 60000) return three.format(ms / 1000) + ' s';
  const minutes = Math.floor(ms / 60000);
  if (minutes < 60) return minutes + ' min ' + Math.floor((ms % 60000) / 1000) + ' s';
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return hours + ' h ' + (minutes % 60) + ' min';
  return Math.floor(hours / 24) + ' d ' + (hours % 24) + ' h';
}

function bytes(n) {
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (n < 1000) return three.format(n) + ' ' + unit;
    n /= 1000;
  }
  return three.format(n) + ' TB';
}

/** A percentile, or a dash where nothing was measured. */
const percentile = (window, key) => (window.count === 0 ? DASH : duration(window[key]));

/** Status 0: the client left before any answer. */
const words = (code) => (code === '0' ? 'none' : code.replaceAll('_', ' '));

// ---- elements

function make(tag, attributes, ...children) {
  const svg = tag === 'svg' || tag === 'path';
  const element = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.append(...children);
  return element;
}

/** Written only when it changed, so that a selection survives. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Of a text alone, or [text, 'warn' or 'alert']; what is well has no level. */
function say(element, said) {
  const [text, level] = Array.isArray(said) ? said : [said, null];
  put(element, text);
  if (level === null) element.removeAttribute('data-level');
  else mark(element, 'data-level', level);
}

function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Keeps one part per key, in the order given; parts whose key is gone leave the page. */
function keyed(parent, create) {
  const parts = new Map();
  return (entries) => {
    const keys = new Set(entries.map(([key]) => key));
    for (const [key, part] of parts) {
      if (keys.has(key)) continue;
      part.root.remove();
      parts.delete(key);
    }
    entries.forEach(([key, value], i) => {
      if (!parts.has(key)) parts.set(key, create(key));
      const part = parts.get(key);
      if (parent.children[i] !== part.root) parent.insertBefore(part.root, parent.children[i] ?? null);
      part.update(value);
    });
  };
}

// ---- facts: a list of names and values; a value that is null leaves no gap

function facts(...names) {
  const root = make('dl', { class: 'facts' });
  const values = names.map((name) => {
    const value = make('dd', {});
    root.append(make('div', {}, make('dt', {}, name), value));
    return value;
  });
  return {
    root,
    update: (...texts) =>
      texts.forEach((text, i) => {
        values[i].parentElement.hidden = text === null;
        say(values[i], text ?? '');
      }),
  };
}

// ---- chips: counts by code

function chips(label) {
  const list = make('ul', { class: 'chips', 'aria-label': label });
  const show = keyed(list, (code) => {
    const number = make('b', {});
    const root = make('li', {}, words(code) + ' ', number);
    return {
      root,
      update: ({ n, kind }) => {
        put(number, count(n));
        mark(root, 'data-kind', kind);
      },
    };
  });
  return {
    root: list,
    update(numbers, kindOf) {
      const entries = Object.entries(numbers).filter(([, n]) => n > 0);
      show(entries.map(([code, n]) => [code, { n, kind: kindOf(code) }]));
      list.hidden = entries.length === 0;
    },
  };
}

// ---- tables

function table(caption, columns) {
  const head = make('tr', {}, ...columns.map((name) => make('th', { scope: 'col' }, name)));
  const body = make('tbody', {});
  const grid = make('table', {}, make('caption', { class: 'unseen' }, caption), make('thead', {}, head), body);
  // A region one can reach and scroll with the keyboard: 64 operations, or a narrow screen.
  const root = make('div', { class: 'scroll', role: 'region', tabindex: '0', 'aria-label': caption }, grid);
  return { root, body };
}

function row(name, shown = name) {
  const root = make('tr', {}, make('th', { scope: 'row', title: name }, shown));
  return {
    root,
    update(texts) {
      while (root.children.length <= texts.length) root.append(make('td', {}));
      texts.forEach((text, i) => {
        say(root.children[i + 1], text);
      });
    },
  };
}

// ---- bars

/** A track with one segment per kind, and at most one tick; said in words for those who do not see it. */
function bar(kinds) {
  const segments = kinds.map((kind) => make('i', { 'data-kind': kind }));
  const tick = make('u', { hidden: '' });
  const root = make('div', { class: 'bar', role: 'img' }, make('span', {}, ...segments), tick);
  return {
    root,
    update(parts, label, tickAt = null) {
      segments.forEach((segment, i) => segment.style.setProperty('width', parts[i] * 100 + '%'));
      tick.hidden = tickAt === null;
      if (tickAt !== null) tick.style.setProperty('left', Math.min(1, tickAt) * 100 + '%');
      mark(root, 'aria-label', label);
    },
  };
}

// ---- sparklines

const SPAN_MS = 300000;
const [WIDE, HIGH] = [300, 56];

/** Five minutes of one number. Pointing at it shows the value there. */
function sparkline(name, format) {
  const area = make('path', { class: 'area' });
  const line = make('path', { class: 'line' });
  const dot = make('path', { class: 'dot' });
  const rule = make('path', { class: 'rule' });
  const chart = make('svg', { viewBox: '0 0 ' + WIDE + ' ' + HIGH, preserveAspectRatio: 'none', role: 'img' });
  chart.append(area, rule, line, dot);
  const value = make('span', { class: 'value' });
  const note = make('span', { class: 'note' });
  const root = make('div', { class: 'spark' }, make('span', { class: 'name' }, name), value, chart, note);
  let points = [];
  let pointed = null;
  let resting = '';

  const left = (at, now) => WIDE - ((now - at) / SPAN_MS) * WIDE;

  function draw(now) {
    const top = points.reduce((most, [, v]) => (v !== null && v > most ? v : most), 0) || 1;
    const y = (v) => HIGH - 3 - (v / top) * (HIGH - 8);
    let stroke = '';
    let fill = '';
    let start = null;
    const close = (x) => {
      if (start !== null) fill += 'L' + x + ' ' + HIGH + 'L' + start + ' ' + HIGH + 'Z';
      start = null;
    };
    let x = 0;
    for (const [at, v] of points) {
      if (v === null) {
        close(x);
        continue;
      }
      x = left(at, now).toFixed(1);
      const step = (start === null ? 'M' : 'L') + x + ' ' + y(v).toFixed(1);
      stroke += step;
      fill += step;
      start ??= x;
    }
    close(x);
    line.setAttribute('d', stroke);
    area.setAttribute('d', fill);
    const shown = pointed ?? points.at(-1);
    const visible = shown && shown[1] !== null;
    // A line of no length with a round end: a dot that the stretched viewBox does not turn into an egg.
    dot.setAttribute('d', visible ? 'M' + left(shown[0], now).toFixed(1) + ' ' + y(shown[1]).toFixed(1) + 'h0' : '');
    rule.setAttribute('d', visible && pointed ? 'M' + left(shown[0], now).toFixed(1) + ' 0V' + HIGH : '');
    put(note, pointed && visible ? format(shown[1]) + ', ' + duration(now - shown[0]) + ' ago' : resting);
  }

  chart.addEventListener('pointermove', (event) => {
    const box = chart.getBoundingClientRect();
    const at = performance.now() - (1 - (event.clientX - box.left) / box.width) * SPAN_MS;
    const near = (best, point) => (point[1] !== null && (!best || Math.abs(point[0] - at) < Math.abs(best[0] - at)) ? point : best);
    pointed = points.reduce(near, null);
    draw(performance.now());
  });
  chart.addEventListener('pointerleave', () => {
    pointed = null;
    draw(performance.now());
  });

  return {
    root,
    update(now, current, history) {
      points = history;
      if (pointed && !points.includes(pointed)) pointed = null;
      const most = points.reduce((a, [, v]) => Math.max(a, v ?? 0), 0);
      const text = current === null ? DASH : format(current);
      resting = points.some(([, v]) => v !== null) ? 'highest ' + format(most) : '';
      put(value, text);
      mark(chart, 'aria-label', name + ', last 5 minutes: now ' + text + (resting && ', ' + resting));
      draw(now);
    },
  };
}
`;
