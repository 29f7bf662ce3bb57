// How it goes: rate, errors and durations; what runs full; what was lost; what insitu costs.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";
import { useAnswer } from "./api.js";
import { Chart } from "./chart.js";
import { count, duration, inUnit, percent, rate } from "./format.js";
import { href } from "./place.js";

const SECOND = 1e9;
const COLUMNS = [["name", "route"], ["rate", "rate"], ["errors", "errors"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"], ["longest", "longest"]];

export function Overview({ range, live, about }) {
  const { data, error, loading } = useAnswer("routes", { since: range }, live ? 5 : 0);
  if (error) return html`<p class="problem" role="alert">${error}</p>`;
  if (!data) return loading && html`<p class="empty">…</p>`;
  const requests = data.routes.reduce((sum, route) => sum + route.count, 0);
  const errors = data.routes.reduce((sum, route) => sum + route.errors, 0);
  const seconds = Math.max(1, (data.until - data.first) / SECOND);
  const slowest = data.routes.reduce((worst, route) => (!worst || route.p99 > worst.p99 ? route : worst), null);
  return html`
    <section class="cards">
      <${Card} name="requests" value=${rate(requests / seconds)} more=${`${count(requests)} in all`} />
      <${Card} name="errors" value=${percent(requests ? errors / requests : 0)} more=${`${count(errors)} failed`} bad=${errors > 0} to=${errors ? href("traces", { failed: "true", range }) : undefined} />
      <${Card} name="slowest route, p99" value=${slowest ? duration(slowest.p99) : "–"} more=${slowest?.name ?? ""} to=${slowest && href("traces", { name: slowest.name, sort: "slowest", range })} />
      <${Cost} about=${about} />
      <${Drops} live=${about.live} />
    </section>
    ${requests === 0 && html`<p class="empty">No request in this time. As soon as one is answered, it shows here within ten seconds.</p>`}
    <${Traffic} data=${data} />
    <${Routes} routes=${data.routes} range=${range} />
    ${about.live && html`<${Saturation} live=${about.live} range=${range} /><${Kept} kept=${about.live.kept} />`}
  `;
}

function Card({ name, value, more, bad, to, title }) {
  const inside = html`<span class="name">${name}</span><span class=${bad ? "value bad" : "value"}>${value}</span><span class="more" title=${title ?? more}>${more}</span>`;
  return to ? html`<a class="card" href=${to}>${inside}</a>` : html`<div class="card">${inside}</div>`;
}

/** What insitu costs: of the time between two looks, and at the first look since the process began. */
function Cost({ about }) {
  const before = useRef(null);
  const [shown, show] = useState(null);
  useEffect(() => {
    if (!about.live) return;
    const cpu = Object.values(about.live.cost).reduce((sum, part) => sum + part, 0);
    const now = { at: about.now / SECOND, cpu, requests: about.live.requests };
    const then = before.current ?? { at: now.at - about.live.uptime, cpu: 0, requests: 0 };
    if (now.at - then.at < 1) return;
    before.current = now;
    show({ share: (cpu - then.cpu) / (now.at - then.at), each: (cpu - then.cpu) / Math.max(1, now.requests - then.requests), some: now.requests > then.requests });
  }, [about.now]);
  if (!about.live) return null;
  const budget = about.live.budget;
  if (budget) {
    const more = `of ${percent(budget.limit)} allowed: ${budget.step ? budget.detail : "everything is recorded"}`;
    return html`<${Card} name="insitu costs" value=${percent(budget.used)} more=${more} bad=${budget.step > 0} to=${href("metrics", {}, "insitu.budget.step")} />`;
  }
  const parts = Object.entries(about.live.cost).map(([part, seconds]) => `${part} ${duration(seconds)}`).join(" · ");
  return html`<${Card} name="insitu costs" value=${shown ? percent(shown.share) : "–"} more=${shown?.some ? `of a core, ${duration(shown.each)} a request` : "of a core"} title=${`CPU since the start: ${parts}`} />`;
}

function Drops({ live }) {
  if (!live) return null;
  const all = live.dropped.reduce((sum, each) => sum + each.count, 0);
  const why = live.dropped.map(({ count: lost, signal, reason }) => `${count(lost)} ${signal}: ${reason}`).join(", ");
  return html`<${Card} name="lost" value=${count(all)} more=${why || "spans, records and points"} bad=${all > 0} />`;
}

function Traffic({ data }) {
  const drawn = useMemo(() => {
    const seconds = data.interval / SECOND;
    // The first and the last interval are not whole, and would look like a fall.
    const whole = data.series.filter(([start]) => start >= data.since && start + data.interval <= data.until);
    return {
      x: whole.map(([start]) => start / SECOND),
      series: [
        { label: "requests", colour: "--accent", values: whole.map(([, all]) => all / seconds), fill: true },
        { label: "errors", colour: "--bad", values: whole.map(([, , failed]) => failed / seconds), fill: true },
      ],
    };
  }, [data]);
  return html`<section><h2>traffic</h2><${Chart} ...${drawn} show=${rate} from=${data.first / SECOND} until=${data.until / SECOND} label="requests and errors a second" /></section>`;
}

function Routes({ routes, range }) {
  const [by, sortBy] = useState("count");
  const sorted = [...routes].sort((one, other) => (by === "name" ? one.name.localeCompare(other.name) : by === "errors" ? other.errors / other.count - one.errors / one.count : other[by === "rate" ? "count" : by] - one[by === "rate" ? "count" : by]));
  const longest = Math.max(...routes.map((route) => route.p99), 1e-9);
  return html`<section><h2>routes</h2><div class="scroll"><table class="routes">
    <thead><tr>${COLUMNS.map(([key, name]) => html`<th key=${key} class=${key} aria-sort=${by === key ? "descending" : undefined}><button onClick=${() => sortBy(key)}>${name}</button></th>`)}</tr></thead>
    <tbody>${sorted.map((route) => html`
      <tr key=${route.name}>
        <td class="name"><a href=${href("traces", { name: route.name, sort: "slowest", range })}>${route.name}</a>${route.name.includes(" ") ? "" : html` <span class="muted">no such route</span>`}</td>
        <td title=${`${count(route.count)} requests`}>${rate(route.rate)}</td>
        <td class=${route.errors ? "bad" : "muted"}>${percent(route.errors / route.count)}</td>
        <td>${duration(route.p50)}</td>
        <td>${duration(route.p95)}</td>
        <td class="bar"><span class="fill" style=${{ width: `${(100 * route.p99) / longest}%` }}></span><span>${duration(route.p99)}</span></td>
        <td>${duration(route.longest)}</td>
      </tr>`)}
    </tbody></table></div></section>`;
}

function Saturation({ live, range }) {
  return html`<section><h2>saturation</h2><div class="levels">${live.saturation.map(({ title, name, unit, value }) => html`
    <a class="level" key=${title} href=${href("metrics", { range }, name)} title=${name}>
      <span class="name">${title}</span>
      ${unit === "1" ? html`<meter min="0" max="1" high="0.9" value=${value}></meter>` : html`<span></span>`}
      <span class="value">${inUnit(value, unit)}</span>
    </a>`)}</div></section>`;
}

function Kept({ kept }) {
  if (!kept.length) return null;
  return html`<section><h2>traces kept</h2><p class="muted">Every request is counted; of their traces those are kept that tell something.</p><div class="cards small">
    ${kept.filter(({ seen }) => seen).map(({ reason, seen, kept: some }) => html`<${Card} key=${reason} name=${reason} value=${count(some)} more=${`of ${count(seen)} seen`} to=${href("traces", { reason })} />`)}</div></section>`;
}
