import assert from "node:assert/strict";
import test from "node:test";

import { judge, seen } from "./gate.js";

const LIMITS = { "min-requests": 100, "max-error-rate": 0.02 };

test("one arm is counted", () => {
  const samples = [
    { arm: "canary", requests: 60, errors: 1 },
    { arm: "stable", requests: 900, errors: 900 },
    { arm: "canary", requests: 40, errors: 2 },
  ];
  assert.deepEqual(seen(samples, "canary"), { requests: 100, errors: 3 });
});

test("few requests decide nothing, and the limit itself is allowed", () => {
  assert.equal(judge({ requests: 99, errors: 99 }, LIMITS), "unknown");
  assert.equal(judge({ requests: 100, errors: 2 }, LIMITS), "good");
  assert.equal(judge({ requests: 100, errors: 3 }, LIMITS), "bad");
});
