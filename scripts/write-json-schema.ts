// Writes config/aiproxy.schema.json from the config's zod schema. Run it after each change to src/config/form.ts.

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jsonSchema } from '../src/config/json-schema.ts';

const file = fileURLToPath(new URL('../config/aiproxy.schema.json', import.meta.url));
const biome = fileURLToPath(new URL('../node_modules/.bin/biome', import.meta.url));
writeFileSync(file, `${JSON.stringify(jsonSchema(), null, 2)}\n`);
// In the form that `npm run lint` asks for.
const { status } = spawnSync(biome, ['format', '--write', file], { stdio: 'inherit' });
process.exitCode = status ?? 1;
