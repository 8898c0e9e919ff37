// The gate: does the new version fail too often? Numbers in, judgement out.

/** Requests and errors of one arm. */
export function seen(samples, arm) {
  const total = { requests: 0, errors: 0 };
  for (const sample of samples.filter((s) => s.arm === arm)) {
    total.requests += sample.requests;
    total.errors += sample.errors;
  }
  return total;
}

/** `unknown` as long as there are too few requests, then `good` or `bad`. */
export function judge({ requests, errors }, limits) {
  if (requests < limits["min-requests"]) return "unknown";
  return errors > requests * limits["max-error-rate"] ? "bad" : "good";
}
