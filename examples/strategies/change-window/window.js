// When traffic may move. Times are Unix milliseconds; the only clock is the
// number that comes in.

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
// A window that does not open in so many days never does.
const HORIZON = 400;

/** The first moment from `now` on at which the window is open; undefined if there is none. */
export function nextOpening(now, window) {
  const offset = window["utc-offset-minutes"] * 60_000;
  const here = now + offset;
  const today = Math.floor(here / DAY) * DAY;
  for (let day = today; day < today + HORIZON * DAY; day += DAY) {
    const closes = day + window["to-hour"] * HOUR;
    if (worksOn(day, window) && here < closes) {
      return Math.max(here, day + window["from-hour"] * HOUR) - offset;
    }
  }
  return undefined;
}

function worksOn(day, { days, freezes }) {
  const date = dateOf(day);
  const frozen = freezes.some(({ from, to }) => from <= date && date <= to);
  return !frozen && days.includes(DAYS[new Date(day).getUTCDay()]);
}

/** Whether a text is a day of the calendar, such as 2027-01-15. */
export function isDate(text) {
  const day = Date.parse(`${text}T00:00:00Z`);
  return !Number.isNaN(day) && dateOf(day) === text;
}

/** As people read it: 2027-01-15 09:00 UTC+01:00. */
export function clock(time, { "utc-offset-minutes": offset }) {
  const here = new Date(time + offset * 60_000).toISOString();
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.abs(offset);
  const zone = `${offset < 0 ? "-" : "+"}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
  return `${here.slice(0, 10)} ${here.slice(11, 16)} UTC${offset === 0 ? "" : zone}`;
}

function dateOf(day) {
  return new Date(day).toISOString().slice(0, 10);
}
