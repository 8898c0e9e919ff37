// Doubles the new version's share while few of its requests are bad.

import control from "rollout:control/control@0.1.0";
import metrics from "rollout:metrics/metrics@0.1.0";
import traffic from "rollout:traffic/traffic@0.1.0";

import { seen, tooBad } from "./gate.js";

// Looks at one share before a person must decide.
const LOOKS = 10;

const PARAMETERS = {
  "first-share": {
    type: "integer",
    minimum: 1,
    maximum: 100,
    default: 5,
    description: "Percent of the traffic at the first step.",
  },
  "bake-seconds": {
    type: "integer",
    minimum: 1,
    maximum: 86_400,
    default: 300,
    description: "Seconds between two looks at the metrics.",
  },
  "slow-ms": {
    type: "integer",
    minimum: 1,
    maximum: 600_000,
    default: 500,
    description: "Requests that take longer than so many milliseconds are bad.",
  },
  "max-bad-permille": {
    type: "integer",
    minimum: 0,
    maximum: 1_000,
    default: 20,
    description: "How many of 1,000 requests may be bad.",
  },
  "min-requests": {
    type: "integer",
    minimum: 1,
    maximum: 1_000_000,
    default: 100,
    description: "Requests of the new version that a decision needs.",
  },
};

export const strategyApi = {
  describe() {
    return {
      name: "{{name}}",
      version: "0.1.0",
      summary: "Doubles the new version's share while few of its requests are bad.",
      parametersSchema: JSON.stringify({
        $schema: "https://json-schema.org/draft/2020-12/schema",
        type: "object",
        additionalProperties: false,
        properties: PARAMETERS,
      }),
    };
  },

  // What is thrown is the `err` of the contract.
  validate(parameters) {
    const given = JSON.parse(parameters);
    const issues = problems(given);
    if (issues.length > 0) throw issues;
    const p = withDefaults(given);
    const step = (share) => ({ share, seconds: p["bake-seconds"], needsApproval: false });
    return { steps: shares(p["first-share"]).map(step) };
  },

  run(context, parameters) {
    try {
      return run(context, withDefaults(JSON.parse(parameters)));
    } catch (error) {
      // An exception of JavaScript's own would end as a bare trap, without its text.
      throw error instanceof Error ? `${error}\n${error.stack}` : error;
    }
  },
};

function problems(given) {
  return Object.entries(given).flatMap(([name, value]) => {
    if (!Object.hasOwn(PARAMETERS, name)) {
      return [{ path: `/${name}`, message: "there is no such parameter" }];
    }
    const { minimum, maximum } = PARAMETERS[name];
    if (Number.isInteger(value) && value >= minimum && value <= maximum) return [];
    return [{ path: `/${name}`, message: `must be an integer from ${minimum} to ${maximum}` }];
  });
}

function withDefaults(given) {
  const all = Object.entries(PARAMETERS);
  return Object.fromEntries(all.map(([name, p]) => [name, given[name] ?? p.default]));
}

/** The first share and its doubles, up to 100. */
function shares(first) {
  return first < 100 ? [first, ...shares(Math.min(2 * first, 100))] : [100];
}

function run(context, p) {
  let found = "";
  for (const share of shares(p["first-share"])) {
    control.progress(share, `${share} % of the traffic`);
    reach(context, share);
    const now = watch(context, p);
    if (now.requests < p["min-requests"]) {
      const reason = `only ${now.requests} requests in ${LOOKS} looks at ${share} %`;
      return { verdict: "inconclusive", reason };
    }
    found = `${now.bad} of ${now.requests} requests were bad at ${share} %`;
    if (tooBad(now, p["max-bad-permille"])) {
      return { verdict: "rolled-back", reason: found };
    }
    control.log("info", found);
  }
  return { verdict: "promoted", reason: found };
}

/** Moves the traffic; a refusal that may pass is tried again at every sample. */
function reach(context, share) {
  const weights = context.arms.map(({ name, role }) => ({
    arm: name,
    weight: role === "candidate" ? share : 100 - share,
  }));
  const samplePeriod = Math.ceil(context.samplePeriodMs / 1000);
  const moved = () => {
    traffic.setWeights(weights);
    return true;
  };
  while (!attempt(moved)) control.wait(samplePeriod, []);
}

/** Looks until there are requests enough, at most so often as is allowed. */
function watch(context, p) {
  const candidate = context.arms.find((arm) => arm.role === "candidate").name;
  const query = { since: control.now(), overMs: [p["slow-ms"]], byZone: false };
  let total;
  for (let look = 0; look < LOOKS; look++) {
    control.wait(p["bake-seconds"], []);
    // Without data there is no judgement; the next look may have some.
    total = seen(attempt(() => metrics.getMetrics(query)) ?? [], candidate);
    if (total.requests >= p["min-requests"]) break;
  }
  return total;
}

/** What a call returns, or nothing if it may succeed later. */
function attempt(call) {
  try {
    return call();
  } catch (error) {
    // What the host answered, if it was the host.
    const refusal = error.payload;
    if (refusal?.retryable) return undefined;
    throw refusal ? `${refusal.message} (${refusal.code})` : error;
  }
}
