// Any metric over time. A histogram of requests has dots: kept traces, which open.

import { html, useMemo, useState } from "./vendor/preact-htm.js";
import { useAnswer } from "./api.js";
import { Chart, together } from "./chart.js";
import { duration, inUnit } from "./format.js";
import { href } from "./place.js";

const SECOND = 1e9;
const COLOURS = ["--accent", "--warm", "--good", "--dot", "--bad", "--quiet"];
const MOST_LINES = 6;
const REQUESTS = "http.server.request.duration";

export function Metrics({ here, range, live }) {
  const [wanted, want] = useState("");
  const { data, error } = useAnswer("metrics", {}, live ? 10 : 0);
  const all = data?.metrics ?? [];
  const chosen = here.id || (all.some(({ name }) => name === REQUESTS) ? REQUESTS : all[0]?.name);
  const listed = all.filter(({ name, help }) => `${name} ${help}`.toLowerCase().includes(wanted.toLowerCase()));
  if (error) return html`<p class="problem" role="alert">${error}</p>`;
  if (data && !all.length) return html`<p class="empty">Metrics are taken down every ten seconds; there is nothing yet.</p>`;
  return html`<div class="beside catalogue">
    <section class="list"><input type="search" placeholder="find a metric" aria-label="find a metric" value=${wanted} onInput=${(event) => want(event.target.value)} />
      <ul>${listed.map(({ name, help, series }) => html`<li key=${name}><a href=${href("metrics", { range }, name)} aria-current=${name === chosen ? "true" : undefined} title=${help}>${name} <span class="muted">${series}</span></a></li>`)}</ul></section>
    ${chosen && html`<${Metric} key=${chosen} name=${chosen} range=${range} live=${live} />`}
  </div>`;
}

function Metric({ name, range, live }) {
  const { data, error } = useAnswer(`metrics/${encodeURIComponent(name)}`, { since: range }, live ? 10 : 0);
  const traces = useAnswer(name === REQUESTS ? "traces" : "", { since: range, limit: 200 }, live ? 10 : 0).data?.traces;
  const [hidden, hide] = useState(new Set());
  const drawn = useMemo(() => data && lines(data, traces ?? [], hidden), [data, traces, hidden]);
  if (error) return html`<section><p class="problem" role="alert">${error}</p></section>`;
  if (!drawn) return html`<section><p class="empty">…</p></section>`;
  const show = (value) => told(value, data);
  const pick = traces && ((index) => index !== null && drawn.sources[index] && (location.hash = href("trace", { range }, drawn.sources[index])));
  const switched = (key) => hide(new Set(hidden.has(key) ? [...hidden].filter((each) => each !== key) : [...hidden, key]));
  return html`<section class=${pick ? "pickable" : ""}>
    <h2>${name}</h2><p class="muted">${data.help} ${MEANING[data.kind]}${pick ? " A dot is a kept trace: click to open it." : ""}</p>
    ${drawn.x.length ? html`<${Chart} x=${drawn.x} series=${drawn.series} show=${show} height=${300} legend=${false} onPick=${pick} label=${name} />` : html`<p class="empty">Nothing in this time yet: a rate needs two samples, ten seconds apart.</p>`}
    <table class="series"><thead><tr><th class="name">series</th><th>now</th></tr></thead><tbody>${drawn.all.map((each) => html`
      <tr key=${each.key} class=${each.shown ? "" : "muted"}><td class="name"><button class="link" onClick=${() => switched(each.key)}><i class="swatch" style=${{ background: each.shown ? `var(${each.colour})` : "transparent" }}></i>${each.label}</button></td><td>${show(each.last)}</td></tr>`)}</tbody></table>
    ${drawn.all.length > MOST_LINES && html`<p class="muted">The ${MOST_LINES} largest of ${drawn.all.length + data.left_out} series are drawn.</p>`}
  </section>`;
}

const MEANING = { counter: "As a rate a second.", histogram: "As the mean of each interval.", gauge: "", updown: "", "": "" };

const told = (value, { kind, unit }) => {
  if (kind !== "counter") return kind === "histogram" && unit === "s" ? duration(value ?? Number.NaN) : inUnit(value, unit);
  return value === null || value === undefined ? "–" : unit === "s" ? inUnit(value, "1") : `${inUnit(value, unit)}/s`;
};

function lines(data, traces, hidden) {
  const at = data.kind === "histogram" ? 2 : 1;
  // What all series have in common tells none of them apart.
  const common = data.series.length > 1 ? Object.entries(data.series[0].labels).filter(([key, value]) => data.series.every(({ labels }) => labels[key] === value)) : [];
  const same = new Set(common.map(([key]) => key));
  const all = data.series.map(({ labels, points }) => {
    const label = Object.entries(labels).filter(([key]) => !same.has(key)).map(([key, value]) => `${key}=${value}`).join("  ") || "value";
    const shown = points.map((point) => [point[0] / SECOND, point[at]]);
    const last = shown.length ? shown[shown.length - 1][1] : null;
    const size = shown.reduce((sum, [, value]) => sum + (value ?? 0), 0) / Math.max(1, shown.length);
    return { key: label, label, points: shown, last, size };
  });
  all.sort((one, other) => other.size - one.size);
  all.forEach((each, number) => {
    each.colour = COLOURS[number % COLOURS.length];
    each.shown = number < MOST_LINES && !hidden.has(each.key);
  });
  const visible = all.filter((each) => each.shown);
  const dots = traces.map((trace) => ({ second: trace.start / SECOND, value: trace.duration / SECOND, of: trace.trace_id }));
  const { x, columns, sources } = together(visible, dots);
  const series = visible.map((each, number) => ({ ...each, values: columns[number] }));
  if (dots.length) series.push({ label: "kept traces", colour: "--dot", dots: true, values: columns[visible.length] });
  return { x, series, sources, all };
}
