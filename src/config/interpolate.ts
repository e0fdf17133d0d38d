// Fills `${NAME}`, `${NAME:-default}` and `${file:path}` into one text of the config; `$${` is a literal `${`.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

/** Where the values come from. Both throw nothing: `file` returns the text or why it cannot. */
export interface Sources {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly file: (path: string) => { readonly text: string } | { readonly problem: string };
}

export interface Interpolated {
  readonly text: string;
  /** The template is one `${…}` and nothing else, so its value may stand for a number. */
  readonly whole: boolean;
  /** Rules broken; they name variables and files, never their values. */
  readonly problems: readonly string[];
}

// `$${` first: it hides what follows. A `${` without its `}` is matched too, so that it can be named.
const PART = /\$\$\{|\$\{([^}]*)(\}?)/g;
const VARIABLE = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s;

/** null when the text holds nothing to fill in. */
export function interpolate(template: string, sources: Sources): Interpolated | null {
  if (!template.includes('${')) return null;
  const problems: string[] = [];
  let whole = false;
  const text = template.replace(PART, (part: string, body: string | undefined, end: string | undefined) => {
    if (body === undefined) return '${';
    whole = part === template;
    const found = end === '' ? { problem: 'must close its ${ with a }' } : lookUp(body, sources);
    if ('text' in found) return found.text;
    problems.push(found.problem);
    return '';
  });
  return { text, whole, problems };
}

function lookUp(body: string, sources: Sources): { text: string } | { problem: string } {
  if (body.includes('${')) return { problem: 'must not have one ${…} inside another' };
  if (body.startsWith('file:') && body.length > 5 && !body.startsWith('file:-'))
    return readFile(body.slice(5), sources);
  const match = VARIABLE.exec(body);
  if (!match) return { problem: 'must be written ${NAME}, ${NAME:-default} or ${file:path} ($${ is a literal ${)' };
  const [, name, fallback] = match;
  const value = sources.env[name!];
  if (fallback !== undefined) return { text: value || fallback }; // as in a shell, an empty variable takes the default
  return value === undefined
    ? { problem: `needs the environment variable ${name}, which is not set` }
    : { text: value };
}

/** The end of the last line is an editor's doing, not a part of the secret. */
function readFile(path: string, sources: Sources): { text: string } | { problem: string } {
  const read = sources.file(path);
  return 'text' in read
    ? { text: read.text.replace(/\r?\n$/, '') }
    : { problem: `cannot read ${path}: ${read.problem}` };
}
