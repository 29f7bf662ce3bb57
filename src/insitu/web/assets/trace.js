// One trace: where the time went, the spans as a waterfall, and what was logged meanwhile.

import { html, useMemo, useState } from "./vendor/preact-htm.js";
import { useAnswer } from "./api.js";
import { duration, inUnit, moment, percent, text } from "./format.js";
import { href } from "./place.js";

const SECOND = 1e9;
const SHOWN_PARTS = 6;
const FINGERPRINT = "insitu.fingerprint";

export function Trace({ here, range }) {
  const { data, error } = useAnswer(`traces/${encodeURIComponent(here.id)}`);
  const [chosen, choose] = useState(null);
  const tree = useMemo(() => data && grown(data.spans), [data]);
  if (error) return html`<p class="problem" role="alert">${error}</p>`;
  if (!data) return html`<p class="empty">…</p>`;
  const root = tree.rows[0].span;
  const span = data.spans.find((each) => each.span_id === chosen);
  return html`
    <section class="title">
      <h1>${root.name}</h1>
      <p>${moment(tree.begin, true)} · <strong>${duration(tree.length / SECOND)}</strong> · ${inUnit(data.spans.length, "{span}")} · ${inUnit(data.logs.length, "{log_record}")}
        ${data.reason && html` · <span class=${`tag ${data.reason}`}>${data.reason}</span>`}</p>
      ${root.attributes["insitu.repeated.times"] && html`<p class="bad"><strong>N+1:</strong> ${root.attributes["insitu.repeated.statement"]} ran ${root.attributes["insitu.repeated.times"]} times in this trace, one for each thing of a list; one statement for all of them would do.</p>`}
      <p class="muted"><code>${data.trace_id}</code> · <a href=${href("traces", { name: root.name, range })}>more of ${root.name}</a></p>
    </section>
    <${Parts} spans=${data.spans} tree=${tree} choose=${choose} />
    <div class="beside">
      <section><h2>spans</h2><${Waterfall} tree=${tree} logs=${data.logs} chosen=${chosen} choose=${choose} />${span && html`<${Details} span=${span} begin=${tree.begin} />`}</section>
      <section><h2>logs</h2>${data.logs.length ? html`<${Beside} logs=${data.logs} begin=${tree.begin} chosen=${chosen} choose=${choose} />` : html`<p class="empty">Nothing was logged in this trace.</p>`}</section>
    </div>`;
}

/** Put spans below their parents: {rows: [{span, depth, own}], begin, length}; `own` is the time in none of its children. */
function grown(spans) {
  const known = new Map(spans.map((span) => [span.span_id, span]));
  const below = new Map();
  for (const span of spans) {
    const parent = known.has(span.parent_id) && span.parent_id !== span.span_id ? span.parent_id : null;
    below.set(parent, [...(below.get(parent) ?? []), span]);
  }
  const rows = [];
  const walk = (parent, depth) => {
    for (const span of (below.get(parent) ?? []).sort((one, other) => one.start - other.start)) {
      rows.push({ span, depth, own: ownTime(span, below.get(span.span_id) ?? []) });
      walk(span.span_id, depth + 1);
    }
  };
  walk(null, 0);
  const begin = Math.min(...spans.map((span) => span.start));
  const end = Math.max(...spans.map((span) => span.start + span.duration));
  return { rows: rows.length ? rows : spans.map((span) => ({ span, depth: 0, own: span.duration })), begin, length: Math.max(end - begin, 1) };
}

/** Nanoseconds of a span in which none of its children ran; children may overlap, and outlive it. */
function ownTime(span, children) {
  const end = span.start + span.duration;
  let at = span.start;
  let free = 0;
  for (const child of [...children].sort((one, other) => one.start - other.start)) {
    if (child.start > at) free += Math.min(child.start, end) - at;
    at = Math.max(at, Math.min(child.start + child.duration, end));
    if (at >= end) break;
  }
  return free + Math.max(0, end - at);
}

/** What kind of work a span is, for its colour. */
function sort(span) {
  if (span.status === "error") return "error";
  if ("db.system.name" in span.attributes || "db.system" in span.attributes) return "database";
  return span.kind === "client" ? "client" : span.kind === "server" ? "server" : "internal";
}

/** Where did the time go: each name's own time, as shares of one bar. */
function Parts({ tree, choose }) {
  const parts = new Map();
  for (const { span, own } of tree.rows) {
    const part = parts.get(span.name) ?? { name: span.name, own: 0, times: 0, sort: sort(span), longest: span };
    part.own += own;
    part.times += 1;
    if (span.duration > part.longest.duration) part.longest = span;
    parts.set(span.name, part);
  }
  const sorted = [...parts.values()].sort((one, other) => other.own - one.own);
  const all = sorted.reduce((sum, part) => sum + part.own, 0) || 1;
  const shown = sorted.slice(0, SHOWN_PARTS);
  const rest = sorted.slice(SHOWN_PARTS).reduce((sum, part) => sum + part.own, 0);
  const told = ({ name, own, times }) => `${percent(own / all)} ${name}${times > 1 ? ` (${times}×)` : ""}`;
  return html`<section class="parts"><h2>where did the time go</h2>
    <div class="stack">${shown.map((part) => html`<button key=${part.name} class=${part.sort} style=${{ flexGrow: part.own / all }} title=${`${told(part)}: ${duration(part.own / SECOND)}`} aria-label=${told(part)} onClick=${() => choose(part.longest.span_id)}></button>`)}
      ${rest > 0 && html`<span class="rest" style=${{ flexGrow: rest / all }}></span>`}</div>
    <p>${shown.map((part, number) => html`<span key=${part.name}>${number ? " · " : ""}<button class=${`link ${number ? "" : "most"}`} onClick=${() => choose(part.longest.span_id)}><i class=${`dot ${part.sort}`}></i>${told(part)}</button></span>`)}${rest > 0 && html`<span class="muted"> · ${percent(rest / all)} the rest</span>`}</p>
  </section>`;
}

function Waterfall({ tree, logs, chosen, choose }) {
  const service = tree.rows[0].span.service;
  const at = (nanoseconds) => `${(100 * (nanoseconds - tree.begin)) / tree.length}%`;
  const said = new Map();
  for (const log of logs) said.set(log.span_id, [...(said.get(log.span_id) ?? []), log]);
  return html`<ol class="waterfall">${tree.rows.map(({ span, depth }) => html`
    <li key=${span.span_id} class=${span.span_id === chosen ? "chosen" : ""}>
      <button onClick=${() => choose(span.span_id === chosen ? null : span.span_id)}>
        <span class="name" style=${{ paddingLeft: `${Math.min(depth, 12) * 14}px` }} title=${span.name}>${span.status === "error" && html`<b class="bad">! </b>`}${span.service !== service && html`<b class="muted">${span.service} </b>`}${span.name}</span>
        <span class="track">
          <span class=${`span ${sort(span)}`} style=${{ left: at(span.start), width: `${(100 * span.duration) / tree.length}%` }}></span>
          ${(said.get(span.span_id) ?? []).map((log) => html`<i key=${log.timestamp} class=${`tick ${level(log)}`} style=${{ left: at(log.timestamp) }} title=${text(log.body)}></i>`)}
        </span>
        <span class="took">${duration(span.duration / SECOND)}</span>
      </button>
    </li>`)}</ol>`;
}

function Details({ span, begin }) {
  const rows = Object.entries(span.attributes).sort(([one], [other]) => one.localeCompare(other));
  return html`<div class="details"><h3>${span.name}</h3>
    <p class="muted">${span.kind} · by ${span.scope} · began ${duration((span.start - begin) / SECOND)} in · ${duration(span.duration / SECOND)}${span.status_text && html` · <span class="bad">${span.status_text}</span>`}</p>
    <${Fields} rows=${rows} />
    ${span.events.map((event) => html`<div class="event" key=${event.timestamp}><strong>${event.name}</strong> <span class="muted">${duration((event.timestamp - begin) / SECOND)} in</span>${event.attributes[FINGERPRINT] && html` · <a href=${href("traces", { key: FINGERPRINT, value: event.attributes[FINGERPRINT] })}>all traces with this error</a>`}
      ${event.attributes["exception.stacktrace"] ? html`<pre>${event.attributes["exception.stacktrace"]}</pre>` : html`<${Fields} rows=${Object.entries(event.attributes)} />`}</div>`)}
    ${span.links.map((link) => html`<p key=${link.span_id}>linked to <a href=${href("trace", {}, link.trace_id)}><code>${link.trace_id}</code></a></p>`)}
  </div>`;
}

/** Names and values in two columns. */
export function Fields({ rows }) {
  return html`<dl class="fields">${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${text(value)}</dd></div>`)}</dl>`;
}

const level = (log) => (log.severity >= 17 ? "error" : log.severity >= 13 ? "warning" : "plain");

function Beside({ logs, begin, chosen, choose }) {
  return html`<ol class="records">${logs.map((log) => html`
    <li key=${`${log.timestamp}${text(log.body)}`} class=${`${level(log)} ${log.span_id && log.span_id === chosen ? "chosen" : ""}`}>
      <button onClick=${() => choose(log.span_id)}><span class="muted">+${duration((log.timestamp - begin) / SECOND)}</span> <b>${log.level}</b> <span class="muted">${log.logger}</span><br />${text(log.body)}
      ${Object.keys(log.attributes).length > 0 && html`<br /><span class="muted">${Object.entries(log.attributes).filter(([name]) => !name.startsWith("code.")).map(([name, value]) => `${name}=${text(value)}`).join("  ")}</span>`}
      ${log.exception && html`<pre>${log.exception}</pre>`}</button>
    </li>`)}</ol>`;
}
