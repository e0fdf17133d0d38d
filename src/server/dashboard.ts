// The page of the stats port, as strings: they survive the compile to dist, which asset files would not.
// No inline script or style (the CSP forbids both); addresses are relative, so a prefix in front of the port does no harm.
import { CACHE_JS } from './dashboard-cache.ts';
import { CARDS_JS } from './dashboard-cards.ts';
import { PAGE_JS } from './dashboard-page.ts';
import { PARTS_JS } from './dashboard-parts.ts';
import { RESILIENCE_JS } from './dashboard-resilience.ts';

/** One ES module: the five files share its scope. */
export const DASHBOARD_JS = PARTS_JS + CACHE_JS + RESILIENCE_JS + CARDS_JS + PAGE_JS;

/** Many thin lines become one ordered one. */
export const DASHBOARD_ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="8" fill="#0f766e"/>
<g fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round">
<path d="M6 9c6 0 5 7 10 7"/><path d="M6 16h20"/><path d="M6 23c6 0 5-7 10-7"/></g>
<circle cx="25" cy="16" r="2.6" fill="#fff"/></svg>
`;

export const DASHBOARD_HTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>aiproxy</title>
<link rel="icon" type="image/svg+xml" href="dashboard.svg">
<link rel="stylesheet" href="dashboard.css">
<script type="module" src="dashboard.js"></script>
</head>
<body>
<header class="top">
  <img src="dashboard.svg" alt="" width="28" height="28">
  <h1>aiproxy</h1>
  <span id="about"></span>
  <span id="state" class="state" data-state="waiting">waiting</span>
</header>
<main aria-live="off">
  <p id="alarm" class="alarm" role="alert" hidden></p>
  <ul id="troubles" class="troubles" aria-label="What is wrong now" hidden></ul>
  <noscript><p class="alarm">This page needs JavaScript. The same numbers are at <a href="stats">/stats</a> and
    <a href="metrics">/metrics</a>.</p></noscript>
  <div id="numbers" hidden>
    <section aria-labelledby="process-title">
      <h2 id="process-title" class="unseen">Process</h2>
      <dl id="tiles" class="tiles"></dl>
    </section>
    <section aria-labelledby="limiters-title">
      <h2 id="limiters-title">Limiters</h2>
      <div id="limiters" class="limiters"></div>
    </section>
    <section aria-labelledby="redis-title" hidden>
      <h2 id="redis-title">Shared with other sidecars</h2>
      <div id="redis"></div>
    </section>
    <section aria-labelledby="cache-title" hidden>
      <h2 id="cache-title">Cache</h2>
      <div id="cache" class="caches"></div>
    </section>
    <section aria-labelledby="upstreams-title">
      <h2 id="upstreams-title">Upstreams</h2>
      <div id="upstreams" class="upstreams"></div>
    </section>
  </div>
</main>
<footer>
  <nav aria-label="Other pages of this port">
    <a href="stats">/stats</a> <a href="metrics">/metrics</a> <a href="config">/config</a>
    <a href="healthz">/healthz</a> <a href="readyz">/readyz</a>
  </nav>
  <p>Read every 2 s. Curves show the last 5 min, percentiles cover the last 60 s, counts run since start.</p>
</footer>
</body>
</html>
`;
