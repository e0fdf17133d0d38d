// Tells filler from the first real event. DeepSeek holds a request under load with blank lines or `: keep-alive` comments for minutes
// (api-docs.deepseek.com, Rate Limit); neither is an answer.

const LF = 0x0a;
const CR = 0x0d;
const COLON = 0x3a;

/** Watches body bytes until the first that is neither a blank line nor a comment line. */
export class FillerWatch {
  #inComment = false;

  /** @returns true when this chunk holds a real byte; do not call again after that */
  sees(chunk: Uint8Array): boolean {
    for (let i = 0; i < chunk.length; i++) {
      const c = chunk[i]!;
      if (c === LF || c === CR) this.#inComment = false;
      else if (this.#inComment) continue;
      else if (c === COLON) this.#inComment = true;
      else if (c !== 0x20 && c !== 0x09) return true;
    }
    return false;
  }
}
