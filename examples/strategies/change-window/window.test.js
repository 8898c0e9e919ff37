import assert from "node:assert/strict";
import test from "node:test";

import { clock, isDate, nextOpening } from "./window.js";

const OFFICE = {
  "utc-offset-minutes": 0,
  days: ["mon", "tue", "wed", "thu", "fri"],
  "from-hour": 9,
  "to-hour": 17,
  freezes: [],
};

function opening(now, window) {
  const time = nextOpening(Date.parse(now), { ...OFFICE, ...window });
  return time === undefined ? undefined : new Date(time).toISOString().slice(0, 16);
}

// 2027-01-15 is a Friday.
test("in business hours it is open", () => {
  assert.equal(opening("2027-01-15T09:00Z"), "2027-01-15T09:00");
  assert.equal(opening("2027-01-15T16:59Z"), "2027-01-15T16:59");
});

test("it opens in the morning, and after the weekend", () => {
  assert.equal(opening("2027-01-15T08:00Z"), "2027-01-15T09:00");
  assert.equal(opening("2027-01-15T17:00Z"), "2027-01-18T09:00");
});

test("the office has its own time", () => {
  assert.equal(opening("2027-01-15T08:00Z", { "utc-offset-minutes": 60 }), "2027-01-15T08:00");
  assert.equal(opening("2027-01-15T23:00Z", { "utc-offset-minutes": -480 }), "2027-01-15T23:00");
  // Sunday evening in London is Monday morning in Auckland.
  assert.equal(opening("2027-01-17T20:30Z", { "utc-offset-minutes": 780 }), "2027-01-17T20:30");
});

test("a freeze lasts to the end of its last day", () => {
  const freezes = [{ from: "2027-01-15", to: "2027-01-19" }];
  assert.equal(opening("2027-01-15T10:00Z", { freezes }), "2027-01-20T09:00");
});

test("a window may never open", () => {
  const freezes = [{ from: "2027-01-01", to: "2099-12-31" }];
  assert.equal(opening("2027-01-15T10:00Z", { freezes }), undefined);
});

test("dates are those of the calendar", () => {
  assert.equal(isDate("2028-02-29"), true);
  assert.equal(isDate("2027-02-29"), false);
  assert.equal(isDate("soon"), false);
});

test("people read the time of the office", () => {
  const time = Date.parse("2027-01-15T08:05Z");
  assert.equal(clock(time, { "utc-offset-minutes": 0 }), "2027-01-15 08:05 UTC");
  assert.equal(clock(time, { "utc-offset-minutes": -210 }), "2027-01-15 04:35 UTC-03:30");
});
