// Kept traces: found by route, outcome, duration, reason and attribute; each dot in the chart is one of them.

import { html, useEffect, useMemo, useState } from "./vendor/preact-htm.js";
import { ask, useAnswer } from "./api.js";
import { Chart, together } from "./chart.js";
import { count, duration, inUnit, moment } from "./format.js";
import { Field } from "./field.js";
import { href } from "./place.js";

const SECOND = 1e9;
const REASONS = ["", "error", "flagged", "first", "slow", "steady"];
const ASKED = ["name", "outcome", "min_ms", "failed", "reason", "key", "value"];

export function Traces({ here, range, live }) {
  const given = here.parameters;
  const question = { since: range, limit: 200, ...Object.fromEntries(ASKED.map((name) => [name, given[name]])) };
  const answer = useAnswer("traces", question, live ? 5 : 0);
  const [more, setMore] = useState({ traces: [], cursor: null, progress: null });
  const key = JSON.stringify(question);
  useEffect(() => setMore({ traces: [], cursor: null, progress: null }), [key]);
  const found = answer.data;
  const cursor = more.cursor ?? (more.traces.length ? null : found?.cursor);
  const goOn = async () => {
    const next = await ask("traces", { ...question, cursor });
    setMore({ traces: [...more.traces, ...next.traces], cursor: next.cursor, progress: next.progress });
  };
  const traces = useMemo(() => {
    const all = new Map([...(found?.traces ?? []), ...more.traces].map((trace) => [trace.trace_id + trace.start, trace]));
    const by = given.sort === "slowest" ? (one, other) => other.duration - one.duration : (one, other) => other.start - one.start;
    return [...all.values()].sort(by);
  }, [found, more, given.sort]);
  const go = (changed) => (location.hash = href("traces", { ...given, ...changed }));
  return html`
    <${Search} given=${given} range=${range} go=${go} />
    ${answer.error && html`<p class="problem" role="alert">${answer.error}</p>`}
    <${Durations} name=${given.name} range=${range} live=${live} traces=${traces} />
    <section>
      <h2>${inUnit(traces.length, "{trace}")} <span class="muted">${given.sort === "slowest" ? "the slowest first" : "the newest first"}</span>
        <button class="quiet" onClick=${() => go({ sort: given.sort === "slowest" ? "" : "slowest" })}>${given.sort === "slowest" ? "newest first" : "slowest first"}</button></h2>
      ${found && !traces.length && html`<p class="empty">${cursor ? "Nothing so far." : "No kept trace is like that. A trace is kept for an error, for being slow or the first of its kind, when it is flagged, and now and then."}</p>`}
      <${List} traces=${traces} range=${range} />
      ${cursor && html`<p class="progress"><button onClick=${goOn}>look further back</button> ${looked(more.progress ?? found.progress)}</p>`}
    </section>`;
}

const looked = ({ looked: some, blocks }) => `looked through ${count(some)} of ${count(blocks)} blocks`;

function Search({ given, range, go }) {
  const routes = useAnswer("routes", { since: range }).data?.routes ?? [];
  const field = (name, rest = {}) => html`<${Field} name=${name} value=${given[name]} onChange=${(wanted) => go({ [name]: wanted })} ...${rest} />`;
  return html`<form class="search" role="search" onSubmit=${(event) => event.preventDefault()}>
    <label>route ${field("name", { list: "routes", placeholder: "any", size: 28 })}</label>
    <datalist id="routes">${routes.map((route) => html`<option key=${route.name} value=${route.name}></option>`)}</datalist>
    <label>outcome ${field("outcome", { placeholder: "5 for 5xx", size: 9 })}</label>
    <label>longer than ${field("min_ms", { placeholder: "ms", size: 6, inputmode: "decimal" })}</label>
    <label>kept as <select name="reason" value=${given.reason ?? ""} onChange=${(event) => go({ reason: event.target.value })}>${REASONS.map((each) => html`<option key=${each} value=${each}>${each || "any"}</option>`)}</select></label>
    <label><input type="checkbox" name="failed" checked=${given.failed === "true"} onChange=${(event) => go({ failed: event.target.checked ? "true" : "" })} /> with an error</label>
    <label>attribute ${field("key", { placeholder: "user.id", size: 18 })} = ${field("value", { placeholder: "any", size: 16, "aria-label": "value of the attribute" })}</label>
    ${ASKED.some((name) => given[name]) && html`<a class="button quiet" href=${href("traces", { range: given.range })}>clear</a>`}
  </form>`;
}

/** Quantiles of one route over time, and a dot for each kept trace. */
function Durations({ name, range, live, traces }) {
  const { data } = useAnswer(name ? "routes" : "", { since: range, name }, live ? 5 : 0);
  const drawn = useMemo(() => {
    const series = name && data ? data.series : [];
    const line = (label, colour, at) => ({ label, colour, points: series.map((row) => [row[0] / SECOND, row[at]]) });
    const lines = name ? [line("p50", "--quiet", 3), line("p95", "--accent", 4), line("p99", "--warm", 5)] : [];
    const dots = traces.map((trace) => ({ second: trace.start / SECOND, value: trace.duration / SECOND, of: trace.trace_id }));
    const { x, columns, sources } = together(lines, dots);
    const shown = [...lines, { label: "kept traces", colour: "--dot", dots: true }].map((each, number) => ({ ...each, values: columns[number] }));
    return { x, series: shown, sources };
  }, [data, traces, name]);
  if (!traces.length) return null;
  const pick = (index) => index !== null && drawn.sources[index] && (location.hash = href("trace", { range }, drawn.sources[index]));
  return html`<section class="pickable"><h2>durations <span class="muted">a dot is a kept trace: click to open it</span></h2>
    <${Chart} x=${drawn.x} series=${drawn.series} show=${duration} onPick=${pick} label="durations over time" /></section>`;
}

function List({ traces, range }) {
  if (!traces.length) return null;
  const longest = Math.max(...traces.map((trace) => trace.duration), 1);
  return html`<div class="scroll"><table class="traces">
    <thead><tr><th>began</th><th class="name">route</th><th>outcome</th><th class="wide">took</th><th>spans</th><th>kept as</th></tr></thead>
    <tbody>${traces.map((trace) => html`
      <tr key=${trace.trace_id + trace.start} class=${trace.failed ? "failed" : ""}>
        <td><a href=${href("trace", { range }, trace.trace_id)}>${moment(trace.start, true)}</a></td>
        <td class="name"><a href=${href("trace", { range }, trace.trace_id)}>${trace.name}</a></td>
        <td class=${trace.failed ? "bad" : "muted"}>${trace.outcome || "ok"}</td>
        <td class="bar"><span class=${trace.failed ? "fill bad" : "fill"} style=${{ width: `${(100 * trace.duration) / longest}%` }}></span><span>${duration(trace.duration / SECOND)}</span></td>
        <td>${count(trace.spans)}</td>
        <td><span class=${`tag ${trace.reason}`}>${trace.reason}</span></td>
      </tr>`)}
    </tbody></table></div>`;
}
