# syntax=docker/dockerfile:1
# docker build -t aiproxy .
# docker run --rm -p 8080:8080 -p 9090:9090 aiproxy --config /etc/aiproxy/aiproxy.yaml --listen 0.0.0.0:8080 --stats 0.0.0.0:9090
# docker run --rm -v ./aiproxy.yaml:/etc/aiproxy/aiproxy.yaml:ro --network container:backend aiproxy     (as a sidecar)
#
# Debian, not Alpine: node:26 dropped bookworm, trixie is its default. The -slim image brings all that Node needs.
ARG NODE_IMAGE=node:26-trixie-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The image is the right Node already: no scripts, so nothing is linked. Optional packages stay: TypeScript's compiler is one.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/pack.mjs scripts/
COPY src src
RUN node scripts/pack.mjs compile

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Without optional packages: they are other Nodes.
RUN npm ci --ignore-scripts --omit=dev --omit=optional --no-audit --no-fund

FROM ${NODE_IMAGE}
ENV NODE_ENV=production
WORKDIR /app
COPY package.json LICENSE ./
COPY bin bin
COPY config config
COPY config/aiproxy.yaml config/aiproxy.schema.json /etc/aiproxy/
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
# The image's user `node`, by number: Kubernetes' runAsNonRoot cannot judge a name. All files are root's and read only for it.
USER 1000:1000
EXPOSE 8080 9090
# Another stats port in the config: -e AIPROXY_HEALTH_URL=http://127.0.0.1:9191/healthz; one on a unix socket: --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
  CMD ["node", "--input-type=commonjs", "-e", "require('node:http').get(process.env.AIPROXY_HEALTH_URL ?? 'http://127.0.0.1:9090/healthz', (response) => process.exit(response.statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]
# No tini: as process 1 aiproxy gets SIGTERM itself and has a handler for it, and it starts no processes whose ends would have to
# be collected. (`docker run --init` does no harm.) The flag here, because it saves bin/aiproxy.js starting Node a second time.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "--max-semi-space-size=4", "/app/bin/aiproxy.js"]
CMD ["--config", "/etc/aiproxy/aiproxy.yaml"]
