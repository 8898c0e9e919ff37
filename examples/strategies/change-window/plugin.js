// Moves traffic only when somebody is there to watch it.

import control from "rollout:control/control@0.1.0";
import metrics from "rollout:metrics/metrics@0.1.0";
import traffic from "rollout:traffic/traffic@0.1.0";

import { judge, seen } from "./gate.js";
import { clock, isDate, nextOpening } from "./window.js";

// Looks at one share before a person must decide.
const LOOKS = 10;
const APPROVAL_SECONDS = 24 * 3_600;

const integer = (preset, minimum, maximum, description) => ({
  type: "integer",
  minimum,
  maximum,
  default: preset,
  description,
});
const date = { type: "string", pattern: "^\\d{4}-\\d{2}-\\d{2}$" };

const PARAMETERS = {
  steps: {
    type: "array",
    items: { type: "integer", minimum: 1, maximum: 100 },
    minItems: 1,
    default: [10, 50, 100],
    description: "Rising shares of the traffic, in percent.",
  },
  "bake-seconds": integer(600, 1, 86_400, "Time between two looks at the errors."),
  "min-requests": integer(100, 1, 1_000_000, "Requests that a look needs."),
  "max-error-rate": {
    type: "number",
    minimum: 0,
    maximum: 1,
    default: 0.02,
    description: "Share of errors that is allowed, 0-1.",
  },
  "utc-offset-minutes": integer(0, -720, 840, "What the clocks of the office are ahead of UTC."),
  days: {
    type: "array",
    items: { enum: ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] },
    minItems: 1,
    default: ["mon", "tue", "wed", "thu", "fri"],
    description: "Days on which traffic may move.",
  },
  "from-hour": integer(9, 0, 23, "The window opens at this hour."),
  "to-hour": integer(17, 1, 24, "The window closes at this hour."),
  freezes: {
    type: "array",
    items: {
      type: "object",
      additionalProperties: false,
      required: ["from", "to"],
      properties: { from: date, to: date },
    },
    default: [],
    description: "Days on which nothing moves: the first and the last, such as 2027-12-20.",
  },
  "approve-first": {
    type: "boolean",
    default: true,
    description: "Whether the first step needs an approval.",
  },
};

export const strategyApi = {
  describe() {
    return {
      name: "change-window",
      version: "0.1.0",
      summary: "Moves traffic only when somebody is there to watch it.",
      parametersSchema: JSON.stringify({
        $schema: "https://json-schema.org/draft/2020-12/schema",
        type: "object",
        additionalProperties: false,
        properties: PARAMETERS,
      }),
    };
  },

  // The host has checked the schema; this is what a schema cannot say.
  validate(parameters) {
    const p = withDefaults(parameters);
    const issues = [];
    const must = (holds, path, message) => holds || issues.push({ path, message });
    const rise = p.steps.every((share, i) => i === 0 || share > p.steps[i - 1]);
    must(rise, "/steps", "must rise from step to step");
    must(p["from-hour"] < p["to-hour"], "/to-hour", "must be after from-hour");
    p.freezes.forEach(({ from, to }, i) => {
      must(isDate(from) && isDate(to), `/freezes/${i}`, "must have dates of the calendar");
      must(from <= to, `/freezes/${i}`, "must not end before it begins");
    });
    if (issues.length > 0) throw issues;
    const steps = p.steps.map((share, i) => ({
      share,
      seconds: null,
      needsApproval: i === 0 && p["approve-first"],
    }));
    return { steps };
  },

  run(context, parameters) {
    try {
      return run(context, withDefaults(parameters));
    } catch (error) {
      // An exception of JavaScript's own would end as a bare trap, without its text.
      throw error instanceof Error ? `${error}\n${error.stack}` : error;
    }
  },
};

function withDefaults(parameters) {
  const given = JSON.parse(parameters);
  const all = Object.entries(PARAMETERS);
  return Object.fromEntries(all.map(([name, p]) => [name, given[name] ?? p.default]));
}

function run(context, p) {
  if (p["approve-first"]) {
    control.progress(0, "waits for an approval of the first step");
    const wake = control.wait(APPROVAL_SECONDS, ["approve"]);
    if (wake.tag === "timer") return { verdict: "inconclusive", reason: "nobody approved it" };
  }
  let step = begin(0);
  for (const share of p.steps) {
    if (!untilOpen(context, p, step)) return worse(step);
    control.progress(share, `${share} % of the traffic`);
    reach(context, share);
    step = begin(share);
    const judgement = bake(context, p, step);
    if (judgement === "bad") return worse(step);
    if (judgement === "unknown") {
      return { verdict: "inconclusive", reason: `too few requests: ${counted(step)}` };
    }
    control.log("info", counted(step));
  }
  // A promotion moves traffic too.
  if (!untilOpen(context, p, step)) return worse(step);
  return { verdict: "promoted", reason: counted(step) };
}

const begin = (share) => ({ share, since: control.now(), total: { requests: 0, errors: 0 } });

const worse = (step) => ({ verdict: "rolled-back", reason: counted(step) });

function counted({ share, total }) {
  return `${total.errors} of ${total.requests} requests failed at ${share} %`;
}

/**
 * Holds until the window is open, or a person lifts it. The share that
 * the new version has is judged meanwhile: false if it is bad.
 */
function untilOpen(context, p, step) {
  let told = "";
  for (;;) {
    const now = control.now();
    const opens = nextOpening(now, p);
    if (opens === now) return true;
    if (opens === undefined) throw "the change window does not open within a year";
    const note = `holds ${step.share} % outside the change window, until ${clock(opens, p)}`;
    if (note !== told) {
      control.log("info", note);
      control.progress(step.share, note);
      told = note;
    }
    const left = Math.ceil((opens - now) / 1000);
    // Without traffic there is nothing to look at meanwhile.
    const pause = step.share > 0 ? Math.min(left, p["bake-seconds"]) : left;
    const wake = control.wait(pause, ["approve"]);
    if (wake.tag === "signal") {
      control.log("warn", `${wake.val.actor} lifts the change window for this step`);
      return true;
    }
    if (step.share > 0 && look(context, p, step) === "bad") return false;
  }
}

/** Looks until there are requests enough, at most as often as is allowed. */
function bake(context, p, step) {
  let judgement;
  for (let i = 0; i < LOOKS; i++) {
    control.wait(p["bake-seconds"], []);
    judgement = look(context, p, step);
    if (judgement !== "unknown") break;
  }
  return judgement;
}

/** Judges what the new version did since the step began. */
function look(context, p, step) {
  const query = { since: step.since, overMs: [], byZone: false };
  const samples = attempt(() => metrics.getMetrics(query));
  // Without data there is no judgement; the next look may have some.
  if (samples === undefined) return "unknown";
  step.total = seen(samples, context.arms.find((arm) => arm.role === "candidate").name);
  return judge(step.total, p);
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
