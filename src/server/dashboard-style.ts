// The page's look: one set of tokens for light, one for dark; everything else speaks in tokens.

export const DASHBOARD_CSS = `
:root {
  --ground: #f4f6f7; --card: #fff; --ink: #16202a; --soft: #55636f; --line: #dfe5e9; --track: #e8edf0;
  --accent: #0f766e; --accent-soft: #8fcdc4; --wash: #0f766e1f;
  --ok: #2f9e62; --other: #7c8b99; --pale: #c3ced6; --warn: #c77700; --bad: #d0393b;
  --ok-ink: #17693d; --warn-ink: #8a5200; --bad-ink: #b02426; --warn-wash: #c777001f; --bad-wash: #d0393b1a; --ok-wash: #2f9e621f;
  --radius: 12px; --gap: 16px;
  color-scheme: light dark;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e1418; --card: #161e24; --ink: #e6edf2; --soft: #9badba; --line: #26323b; --track: #26323b;
    --accent: #3fb8a8; --accent-soft: #1f6b62; --wash: #3fb8a826;
    --ok: #43b878; --other: #7f909e; --pale: #3d4b57; --warn: #e39a35; --bad: #ef6a66;
    --ok-ink: #6fd39b; --warn-ink: #f0b35c; --bad-ink: #ff918c; --warn-wash: #e39a3526; --bad-wash: #ef6a6624; --ok-wash: #43b87822;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--ground); color: var(--ink); }
h1, h2, h3, h4, p, dl, dd, ul { margin: 0; padding: 0; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
a { color: inherit; text-underline-offset: 3px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

.top, main, footer { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
.top { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 12px; padding-top: 22px; padding-bottom: 18px; }
.top img { display: block; }
h1 { font-size: 20px; font-weight: 650; letter-spacing: -0.01em; }
#about { color: var(--soft); white-space: pre-wrap; }
.state { margin-left: auto; padding: 3px 12px 3px 10px; border-radius: 99px; font-size: 13px; font-weight: 600; background: var(--track); color: var(--soft); }
.state::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 7px; border-radius: 50%; background: currentColor; }
.state[data-state="serving"] { background: var(--ok-wash); color: var(--ok-ink); }
.state[data-state="draining"] { background: var(--warn-wash); color: var(--warn-ink); }
.state[data-state="unreachable"] { background: var(--bad-wash); color: var(--bad-ink); }
.alarm { margin-bottom: var(--gap); padding: 12px 16px; border-radius: var(--radius); border: 1px solid var(--bad); background: var(--bad-wash); color: var(--bad-ink); font-weight: 500; }
.troubles { margin-bottom: var(--gap); padding: 10px 16px; border: 1px solid var(--warn); border-radius: var(--radius); background: var(--card); list-style: none; }
.troubles:has([data-level="alert"]) { border-color: var(--bad); }
.troubles li { padding: 2px 0 2px 16px; text-indent: -16px; overflow-wrap: anywhere; color: var(--warn-ink); }
.troubles [data-level="alert"] { color: var(--bad-ink); }
.troubles li::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 8px; border-radius: 3px; background: currentColor; }
.troubles b { margin-right: 8px; font-weight: 600; color: var(--ink); }
.troubles.old, .old > section { opacity: 0.5; }

h2 { margin: 30px 0 12px; font-size: 13px; font-weight: 650; letter-spacing: 0.06em; text-transform: uppercase; color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1px; overflow: hidden; border: 1px solid var(--line); border-radius: var(--radius); background: var(--line); }
.tiles > div { padding: 14px 16px 13px; background: var(--card); }
.tiles dt, .name, .facts dt { font-size: 12.5px; color: var(--soft); }
.tiles b { display: block; font-size: 25px; font-weight: 600; line-height: 1.3; letter-spacing: -0.015em; }
.tiles small { display: block; font-size: 12.5px; color: var(--soft); overflow-wrap: anywhere; }

.tiles:has(> :nth-child(7):not([hidden])) { grid-template-columns: repeat(7, 1fr); }
dd[data-level="warn"], td[data-level="warn"], b[data-level="warn"] { color: var(--warn-ink); }
dd[data-level="alert"], td[data-level="alert"], b[data-level="alert"] { color: var(--bad-ink); }
td[data-level] { font-weight: 600; }

.limiters, .caches, .upstreams { display: grid; gap: var(--gap); }
.card { min-width: 0; padding: 18px 20px 20px; border: 1px solid var(--line); border-radius: var(--radius); background: var(--card); }
.card > header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 12px; }
h3 { font-size: 17px; font-weight: 650; overflow-wrap: anywhere; }
.url { color: var(--soft); font-size: 13.5px; white-space: pre-wrap; overflow-wrap: anywhere; }
.queue { margin-left: auto; font-size: 13.5px; color: var(--soft); white-space: nowrap; }
[data-level="warn"] .queue, [data-level="alert"] .queue { padding: 1px 10px; border-radius: 99px; font-weight: 600; }
[data-level="warn"] .queue { background: var(--warn-wash); color: var(--warn-ink); }
[data-level="alert"] .queue { background: var(--bad-wash); color: var(--bad-ink); }
.now { margin: 0 0 8px; color: var(--soft); }
.now b { margin-right: 7px; font-size: 25px; font-weight: 600; line-height: 1.3; letter-spacing: -0.015em; color: var(--ink); }
.empty { padding: 14px 0 0; color: var(--soft); }

.bar { position: relative; }
.bar span { display: flex; height: 10px; border-radius: 5px; background: var(--track); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); transition: width 0.4s; }
.bar u { position: absolute; top: -3px; width: 2px; height: 16px; margin-left: -2px; border-radius: 1px; background: var(--soft); }
[data-level="warn"] .bar i { background: var(--warn); }
[data-level="alert"] .bar i { background: var(--bad); }
[data-level="warn"] .spark path { --accent: var(--warn); --wash: var(--warn-wash); }
[data-level="alert"] .spark path { --accent: var(--bad); --wash: var(--bad-wash); }
.bar i[data-kind="idle"] { background: var(--accent-soft); }
.bar i[data-kind="connecting"] { background: var(--warn); }
.bar i[data-kind="2xx"] { background: var(--ok); }
.bar i[data-kind="3xx"], .bar i[data-kind="other"] { background: var(--other); }
.bar i[data-kind="4xx"] { background: var(--warn); }
.bar i[data-kind="5xx"] { background: var(--bad); }
.bar i[data-kind="hits"], .chips [data-kind="hits"]::before { background: var(--accent); }
.bar i[data-kind="coalesced"], .chips [data-kind="coalesced"]::before { background: var(--accent-soft); }
.bar i[data-kind="revalidated"], .chips [data-kind="revalidated"]::before { background: var(--ok); }
.bar i[data-kind="stale"], .chips [data-kind="stale"]::before { background: var(--warn); }
.bar i[data-kind="misses"], .chips [data-kind="misses"]::before { background: var(--other); }
.bar i[data-kind="bypassed"], .chips [data-kind="bypassed"]::before { background: var(--pale); }

.facts { display: flex; flex-wrap: wrap; gap: 10px 26px; margin-top: 14px; }
.facts dd { font-weight: 550; white-space: nowrap; }

.chips { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 10px; list-style: none; font-size: 13.5px; color: var(--soft); }
.chips b { font-weight: 600; color: var(--ink); }
.chips li::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 6px; border-radius: 3px; background: var(--other); }
.chips [data-kind="2xx"]::before { background: var(--ok); }
.chips [data-kind="4xx"]::before, .chips [data-kind="connecting"]::before { background: var(--warn); }
.chips [data-kind="5xx"]::before, .chips [data-kind="failure"]::before { background: var(--bad); }
.chips [data-kind="active"]::before { background: var(--accent); }
.chips [data-kind="idle"]::before { background: var(--accent-soft); }
.chips [data-kind="reason"]::before { display: none; }
.failed { margin-top: 12px; font-size: 12.5px; color: var(--soft); }
.failed + .chips { margin-top: 2px; }

.scroll { margin-top: 14px; max-height: 320px; overflow: auto; }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; }
th, td { padding: 5px 0 5px 13px; text-align: right; white-space: nowrap; font-weight: 450; }
th:first-child { padding-left: 0; text-align: left; }
thead th { position: sticky; top: 0; background: var(--card); font-size: 12.5px; font-weight: 450; color: var(--soft); }
tbody th { max-width: 190px; overflow: hidden; text-overflow: ellipsis; }
tbody tr > * { border-top: 1px solid var(--line); }

.charts { display: grid; grid-template-columns: 1fr 1fr max-content; gap: 20px 32px; margin-top: 14px; }
.limiter .charts { grid-template-columns: minmax(150px, 1fr) minmax(150px, 1fr) minmax(0, 716px); }
.charts .scroll { margin-top: -4px; }
.charts .tables { min-width: 0; }
.tables .scroll + .scroll { margin-top: 18px; }
.guards { display: flex; flex-wrap: wrap; gap: 14px 40px; margin-top: 18px; }
.guards section { flex: 1 1 440px; min-width: 0; }
.guards .targets { flex-basis: 100%; }
.guards .scroll, .guards .facts { margin-top: 0; }
.guards tbody th { max-width: 400px; }
.use .name { display: block; }
.spark { display: grid; grid-template: auto auto minmax(56px, 1fr) / 1fr auto; align-items: baseline; min-width: 0; }
.spark .name { grid-column: 1 / -1; }
.spark .value { font-size: 25px; font-weight: 600; line-height: 1.3; letter-spacing: -0.015em; }
.spark .note { grid-row: 2; grid-column: 2; font-size: 12.5px; color: var(--soft); }
.spark svg { grid-column: 1 / -1; display: block; width: 100%; height: 100%; max-height: 90px; margin-top: 4px; align-self: end; border-bottom: 1px solid var(--line); overflow: visible; touch-action: pan-y; }
.spark path { fill: none; stroke: var(--accent); stroke-width: 1.6; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.spark .area { fill: var(--wash); stroke: none; }
.spark .dot { stroke-width: 7; stroke-linecap: round; }
.spark .rule { stroke: var(--soft); stroke-width: 1; }
.cache .charts { grid-template-columns: repeat(3, minmax(150px, 1fr)); }
.cache .halves { grid-template-columns: repeat(3, minmax(150px, 1fr)); column-gap: 32px; }
.cache .halves > :first-child { grid-column: span 2; }
.cache .halves > :has(+ [hidden]) { grid-column: 1 / -1; }
.cached { margin-top: 2px; font-size: 13.5px; color: var(--soft); }
.cached b { font-weight: 600; color: var(--ink); }
.redis { margin-left: 6px; }
.redis, .pill { padding: 1px 9px; border-radius: 99px; font-size: 12.5px; font-weight: 600; background: var(--warn-wash); color: var(--warn-ink); }
.pill[data-level="good"] { background: var(--ok-wash); color: var(--ok-ink); }
.pill[data-level="alert"] { background: var(--bad-wash); }
.redis[data-state="up"] { background: var(--ok-wash); color: var(--ok-ink); }
.redis[data-state="down"] { background: var(--bad-wash); color: var(--bad-ink); }
.halves { display: grid; grid-template-columns: 1fr 1fr; gap: 22px 40px; margin-top: 18px; }
.halves > :only-child, .halves > [hidden] + section { grid-column: 1 / -1; }
h4 { margin-bottom: 8px; font-size: 12.5px; font-weight: 450; color: var(--soft); }
h4 span { font-size: 15px; font-weight: 600; color: var(--ink); margin-left: 4px; }

footer { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 6px 24px; padding-top: 24px; padding-bottom: 36px; font-size: 13px; color: var(--soft); }
footer nav { display: flex; flex-wrap: wrap; gap: 4px 16px; }

@media (max-width: 1100px) {
  .tiles, .tiles:has(> :nth-child(7):not([hidden])) { grid-template-columns: repeat(3, 1fr); }
  .tiles > :nth-child(7) { grid-column: 1 / -1; }
  .charts, .limiter .charts, .cache .charts { grid-template-columns: 1fr 1fr; }
  .cache .spark { grid-column: 1 / -1; }
  .cache .halves { grid-template-columns: 1fr 1fr; }
  .cache .halves > section { grid-column: 1 / -1; }
  .charts > .scroll, .charts .tables { grid-column: 1 / -1; }
  .charts .scroll { margin-top: 0; }
}
@media (max-width: 640px) {
  .top, main, footer { padding-left: 14px; padding-right: 14px; }
  .card { padding: 15px 14px 16px; }
  .tiles, .tiles:has(> :nth-child(7):not([hidden])) { grid-template-columns: 1fr 1fr; }
  .guards section { flex-basis: 100%; }
  .charts, .limiter .charts, .cache .charts, .halves, .cache .halves { grid-template-columns: minmax(0, 1fr); }
  #about { order: 1; width: 100%; font-size: 13.5px; }
  .use, .spark { min-width: 0; }
  .spark { grid-template-rows: auto auto 56px; }
  th, td { padding-left: 10px; }
  tbody th, .guards tbody th { max-width: 120px; }
}
@media (prefers-reduced-motion: reduce) {
  .bar i { transition: none; }
}
`;
