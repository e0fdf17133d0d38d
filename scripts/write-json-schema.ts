// Writes config/aiproxy.schema.json from the config's zod schema. Run it after each change to src/config/form.ts.

import { writeFileSync } from 'node:fs';
import { jsonSchema } from '../src/config/json-schema.ts';

const file = new URL('../config/aiproxy.schema.json', import.meta.url);
writeFileSync(file, `${JSON.stringify(jsonSchema(), null, 2)}\n`);
