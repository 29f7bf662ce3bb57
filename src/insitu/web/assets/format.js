// Numbers and moments for people.

const SMALL = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];

const digits = (value) => {
  const size = Math.abs(value);
  return size >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toPrecision(size < 1 ? 2 : 3);
};

/** A count. */
export const count = (value) => Math.round(value).toLocaleString("en");

/** Seconds, in the unit that fits. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds >= 120) {
    const minutes = Math.floor(seconds / 60);
    const hours = Math.floor(minutes / 60);
    if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
    return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min ${Math.round(seconds % 60)} s`;
  }
  const [unit, name] = SMALL.find(([least]) => Math.abs(seconds) >= least) ?? SMALL[seconds ? 3 : 0];
  return `${digits(seconds / unit)} ${name}`;
}

/** A number a second. */
export const rate = (value) => (Number.isFinite(value) ? `${digits(value)}/s` : "–");

/** A share of one. */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  return share > 0 && share < 0.001 ? "<0.1 %" : `${digits(Math.round(share * 1000) / 10)} %`;
}

export function bytes(value) {
  let at = 0;
  while (Math.abs(value) >= 1024 && at < BYTES.length - 1) [value, at] = [value / 1024, at + 1];
  return `${digits(value)} ${BYTES[at]}`;
}

/** A value in a metric's unit (UCUM). */
export function inUnit(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "s") return duration(value);
  if (unit === "By") return bytes(value);
  if (unit === "1") return percent(value);
  const name = unit && unit.startsWith("{") ? ` ${unit.slice(1, -1).replaceAll("_", " ")}${Math.abs(value) === 1 ? "" : "s"}` : unit ? ` ${unit}` : "";
  return digits(value) + name;
}

const two = (value) => String(value).padStart(2, "0");

/** The time of day of a moment in nanoseconds, and its day where that is not today. */
export function moment(nanoseconds, withMilliseconds = false) {
  const at = new Date(nanoseconds / 1e6);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const fine = withMilliseconds ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "";
  const today = at.toDateString() === new Date().toDateString();
  return `${today ? "" : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `}${time}${fine}`;
}

/** A value of an attribute as text. */
export const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
