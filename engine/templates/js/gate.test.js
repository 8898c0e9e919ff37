import assert from "node:assert/strict";
import test from "node:test";

import { seen, tooBad } from "./gate.js";

function look(requests, errors, over) {
  const samples = [
    { arm: "canary", requests, errors, over },
    { arm: "stable", requests: 900, errors: 900, over: [] },
  ];
  return seen(samples, "canary");
}

test("errors and slow requests are bad", () => {
  assert.deepEqual(look(100, 2, [3]), { requests: 100, bad: 5 });
  assert.deepEqual(look(100, 60, [70]), { requests: 100, bad: 100 });
  assert.deepEqual(look(100, 2, []), { requests: 100, bad: 2 });
  assert.deepEqual(seen([], "canary"), { requests: 0, bad: 0 });
});

test("the limit itself is allowed", () => {
  assert.equal(tooBad({ requests: 100, bad: 2 }, 20), false);
  assert.equal(tooBad({ requests: 100, bad: 3 }, 20), true);
  assert.equal(tooBad({ requests: 0, bad: 0 }, 0), false);
});
