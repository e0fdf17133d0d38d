// What stands in deploy/ and the Dockerfile: it parses, aiproxy takes its config, and it agrees with itself and with the code.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { parseAllDocuments } from 'yaml';
import { parseConfig } from '../../src/config/load.ts';
import { FakeStats } from '../support/fake-stats.ts';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const FLAG = '--max-semi-space-size=4';

// biome-ignore lint/suspicious/noExplicitAny: documents of other programs, read here and there
type Document = any;

function documents(file: string): Document[] {
  return parseAllDocuments(readFileSync(join(ROOT, file), 'utf8')).map((document) => {
    if (document.errors.length + document.warnings.length > 0) throw document.errors[0] ?? document.warnings[0];
    return document.toJS();
  });
}

const KUBERNETES = 'deploy/kubernetes/aiproxy.yaml';
const ofKind = (kind: string): Document => documents(KUBERNETES).find((document) => document.kind === kind);
const pod = (): Document => ofKind('Deployment').spec.template.spec;
const sidecar = (): Document => pod().initContainers.find((container: Document) => container.name === 'aiproxy');
const podConfig = () => parseConfig(ofKind('ConfigMap').data['aiproxy.yaml'], 'aiproxy.yaml', {}).config;

t.test('every YAML file in deploy parses and has documents', async (t) => {
  const files = readdirSync(join(ROOT, 'deploy'), { recursive: true, encoding: 'utf8' }).filter((it) =>
    /\.ya?ml$/.test(it),
  );
  t.ok(files.length >= 3, files.join(', '));
  for (const file of files) {
    const found = documents(join('deploy', file));
    t.ok(found.length > 0 && found.every((document) => document !== null && typeof document === 'object'), file);
  }
});

t.test('the ConfigMap holds a config that aiproxy takes: API on loopback, stats on the pod’s address', async (t) => {
  const config = podConfig();
  t.same(
    config.listen.map(({ address: { host, port } }) => `${host}:${port}`),
    ['127.0.0.1:8080'],
  );
  t.match(config.stats, { host: '0.0.0.0', port: 9090 });
});

t.test('the sidecar is native: an init container that restarts always, probed on the stats port', async (t) => {
  const { restartPolicy, startupProbe, readinessProbe, livenessProbe, ports, args } = sidecar();
  t.equal(restartPolicy, 'Always');
  const port = { name: 'aiproxy-stats', containerPort: podConfig().stats.port };
  t.match(ports, [port]);
  t.same(startupProbe.httpGet, { path: '/healthz', port: port.name });
  t.same(livenessProbe.httpGet, { path: '/healthz', port: port.name });
  t.same(readinessProbe.httpGet, { path: '/readyz', port: port.name });
  const mount = sidecar().volumeMounts.find((it: Document) => args[1].startsWith(`${it.mountPath}/`));
  const volume = pod().volumes.find((it: Document) => it.name === mount.name);
  t.equal(volume.configMap.name, ofKind('ConfigMap').metadata.name);
  t.ok(args[1].slice(mount.mountPath.length + 1) in ofKind('ConfigMap').data, 'the file named is in the ConfigMap');
});

t.test('every container is locked down', async (t) => {
  t.equal(pod().securityContext.runAsNonRoot, true);
  for (const { name, securityContext, resources } of [...pod().initContainers, ...pod().containers]) {
    t.match(
      securityContext,
      { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
      name,
    );
    t.ok(securityContext.runAsUser > 0, `${name} has a numeric user`);
    t.ok(resources.requests.memory && resources.requests.cpu && resources.limits.memory, `${name} has its resources`);
  }
});

t.test('the pod’s grace period holds the drain', async (t) => {
  const { drain } = podConfig();
  t.ok(pod().terminationGracePeriodSeconds * 1000 > drain.acceptForMs + drain.timeoutMs);
});

t.test('the backend’s base URLs lead to upstreams of the config, and its keys come from the Secret', async (t) => {
  const [backend] = pod().containers;
  const [listen] = podConfig().listen;
  const names = podConfig().upstreams.map((upstream) => upstream.name);
  const urls: string[] = backend.env
    .filter((it: Document) => it.name.endsWith('_BASE_URL'))
    .map((it: Document) => it.value);
  t.ok(urls.includes('http://127.0.0.1:8080/openai/v1'));
  for (const url of urls) {
    t.equal(new URL(url).host, listen?.address.text);
    t.ok(names.includes(new URL(url).pathname.split('/')[1]!), url);
  }
  t.equal(backend.envFrom[0].secretRef.name, ofKind('Secret').metadata.name);
});

t.test('the alert rules use only metrics and labels that aiproxy has', async (t) => {
  const page = new FakeStats().metrics();
  const known = new Map<string, Set<string>>();
  for (const [, name = '', labels = ''] of page.matchAll(/^([a-z_0-9]+)(?:\{(.*)\})? /gm)) {
    const set = known.get(name) ?? new Set(['job', 'instance']);
    for (const [, label = ''] of labels.matchAll(/([a-z_]+)="/g)) set.add(label);
    known.set(name, set);
  }
  const rules: Document[] = documents('deploy/prometheus/aiproxy-alerts.yaml')[0].groups.flatMap(
    (group: Document) => group.rules,
  );
  t.ok(rules.length >= 5);
  for (const { alert, expr, annotations } of rules) {
    const metrics: string[] = expr.match(/\b(?:aiproxy|process)_[a-z_0-9]+/g) ?? [];
    const selected: string[] = [...expr.matchAll(/([a-z_]+)(?:!=|=~|=)"/g)].map(([, label]) => label);
    const grouped: string[] = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels]) => labels.split(/,\s*/));
    const told: string[] = [...JSON.stringify(annotations).matchAll(/\$labels\.([a-z_]+)/g)].map(([, label]) => label!);
    for (const metric of metrics) {
      const labels = known.get(metric);
      t.ok(labels, `${alert}: ${metric} exists`);
      for (const label of [...grouped, ...told]) t.ok(labels?.has(label), `${alert}: ${metric} has ${label}`);
    }
    for (const label of selected)
      t.ok(
        metrics.some((metric) => known.get(metric)?.has(label)) || (expr.startsWith('up{') && label === 'job'),
        `${alert}: ${label}`,
      );
  }
});

t.test('Prometheus scrapes the port the pod names, and reads the rules that are there', async (t) => {
  const [prometheus] = documents('deploy/prometheus/prometheus.yaml');
  t.same(prometheus.rule_files, ['aiproxy-alerts.yaml']);
  const [{ relabel_configs }] = prometheus.scrape_configs;
  t.equal(relabel_configs[0].regex, sidecar().ports[0].name);
});

t.test('every way to start it passes the V8 flag', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  for (const name of ['start', 'demo']) t.match(scripts[name], `node ${FLAG} bin/aiproxy.js`, `npm run ${name}`);
  const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8');
  t.match(dockerfile, `ENTRYPOINT ["node", "${FLAG}", "/app/bin/aiproxy.js"]`);
});
