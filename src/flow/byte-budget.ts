// A budget of bytes that many holders share; whoever does not fit is refused, nobody waits.

export class ByteBudget {
  readonly max: number;
  used = 0;
  peak = 0;
  refused = 0;

  constructor(max: number) {
    this.max = max;
  }

  /** Takes `bytes` if they fit. */
  take(bytes: number): boolean {
    if (this.used + bytes > this.max) {
      this.refused++;
      return false;
    }
    this.used += bytes;
    if (this.used > this.peak) this.peak = this.used;
    return true;
  }

  /** For bytes that are here already and cannot be refused; others are, until these are given back. */
  takeAnyway(bytes: number): void {
    this.used += bytes;
    if (this.used > this.peak) this.peak = this.used;
  }

  give(bytes: number): void {
    this.used -= bytes;
  }
}
