// The gate: what the candidate did to its users, and whether that is too bad.
// It knows no host, so a test needs none. Change it as you like.

/** Adds up the samples of one arm: its requests, and those that failed or were slow. */
export function seen(samples, arm) {
  const total = { requests: 0, bad: 0 };
  for (const sample of samples.filter((s) => s.arm === arm)) {
    const slow = sample.over[0] ?? 0;
    total.requests += sample.requests;
    // A request may be both slow and an error; it is bad only once.
    total.bad += Math.min(sample.requests, sample.errors + slow);
  }
  return total;
}

/** Whether more than `permille` of 1,000 requests were bad. */
export function tooBad({ requests, bad }, permille) {
  return bad * 1000 > requests * permille;
}
