// Who calls whom: the services that share the store, with the databases and hosts behind them.

import { html } from "./vendor/preact-htm.js";
import { useAnswer } from "./api.js";
import { count, duration, percent, rate } from "./format.js";

const BOX = { width: 190, height: 44, across: 150, down: 22 };

export function Services({ range, live, about }) {
  const map = useAnswer("dependencies", { since: range }, live ? 10 : 0);
  const list = useAnswer("services", { since: range }, live ? 10 : 0);
  const error = map.error ?? list.error;
  if (error) return html`<p class="problem" role="alert">${error}</p>`;
  if (!map.data || !list.data) return html`<p class="empty">…</p>`;
  return html`
    <section><h2>who calls whom</h2>
      ${map.data.edges.length ? html`<${Drawing} map=${map.data} services=${list.data.services} own=${about.service} />` : html`<p class="empty">No service of this store has called another one, a database or a queue, in this time. What is called is counted every ten seconds.</p>`}
    </section>
    <section><h2>services</h2><table><thead><tr><th class="name">service</th><th>requests</th><th>rate</th><th>errors</th><th>p50</th><th>p95</th></tr></thead>
      <tbody>${list.data.services.map((each) => html`<tr key=${each.name}><td class="name">${each.name}${each.name === about.service && html` <span class="muted">this one</span>`}</td><td>${count(each.count)}</td><td>${rate(each.rate)}</td><td class=${each.errors ? "bad" : ""}>${each.count ? percent(each.errors / each.count) : "–"}</td><td>${duration(each.count ? each.p50 : Number.NaN)}</td><td>${duration(each.count ? each.p95 : Number.NaN)}</td></tr>`)}</tbody></table>
    </section>
    ${map.data.edges.length > 0 && html`<section><h2>calls</h2><table><thead><tr><th class="name">from</th><th class="name">to</th><th>calls</th><th>rate</th><th>errors</th><th>mean</th></tr></thead>
      <tbody>${map.data.edges.map((each) => html`<tr key=${`${each.from} ${each.to}`}><td class="name">${each.from}</td><td class="name"><i class=${`dot ${COLOURS[each.kind]}`}></i>${each.to}</td><td>${count(each.count)}</td><td>${rate(each.rate)}</td><td class=${each.errors ? "bad" : ""}>${percent(each.errors / each.count)}</td><td>${duration(each.mean || Number.NaN)}</td></tr>`)}</tbody></table>
    </section>`}`;
}

const COLOURS = { service: "server", database: "database", host: "client", queue: "internal" };

/** Place every node in the column behind all that call it; an edge that would close a circle places nobody. */
function placed({ nodes, edges }) {
  const column = new Map(nodes.map(({ name }) => [name, 0]));
  const onward = new Map(nodes.map(({ name }) => [name, []]));
  const reaches = (from, to) => from === to || onward.get(from).some((next) => reaches(next, to));
  const push = (name, least) => {
    if (column.get(name) >= least) return;
    column.set(name, least);
    for (const next of onward.get(name)) push(next, least + 1);
  };
  for (const { from, to } of edges) {
    if (reaches(to, from)) continue;
    onward.get(from).push(to);
    push(to, column.get(from) + 1);
  }
  const rows = new Map();
  const at = new Map();
  for (const { name, kind } of nodes) {
    const here = column.get(name);
    const row = rows.get(here) ?? 0;
    rows.set(here, row + 1);
    at.set(name, { kind, x: here * (BOX.width + BOX.across), y: row * (BOX.height + BOX.down) });
  }
  const width = Math.max(...[...at.values()].map(({ x }) => x)) + BOX.width;
  const height = Math.max(...[...at.values()].map(({ y }) => y)) + BOX.height;
  return { at, width, height };
}

function Drawing({ map, services, own }) {
  const { at, width, height } = placed(map);
  const told = new Map(services.map((each) => [each.name, each]));
  const busiest = Math.max(...map.edges.map((edge) => edge.rate), 1e-9);
  return html`<div class="map"><svg viewBox=${`-4 -14 ${width + 8} ${height + 24}`} width=${width + 8} role="img" aria-label="map of services">
    ${map.edges.filter(({ from, to }) => from !== to).map((edge) => html`<${Edge} key=${`${edge.from} ${edge.to}`} edge=${edge} from=${at.get(edge.from)} to=${at.get(edge.to)} weight=${1 + 3 * Math.sqrt(edge.rate / busiest)} />`)}
    ${[...at].map(([name, { x, y, kind }]) => html`<g key=${name} class=${`node ${COLOURS[kind]} ${name === own ? "own" : ""}`} transform=${`translate(${x} ${y})`}>
      <title>${name}</title><rect width=${BOX.width} height=${BOX.height} rx="8"></rect>
      <text x="12" y="18">${name.length > 26 ? `${name.slice(0, 25)}…` : name}</text>
      <text x="12" y="34" class="small">${told.has(name) ? `${rate(told.get(name).rate)}${told.get(name).errors ? ` · ${percent(told.get(name).errors / told.get(name).count)} failed` : ""}` : kind}</text></g>`)}
  </svg></div>`;
}

function Edge({ edge, from, to, weight }) {
  const back = to.x <= from.x;
  const [x, y] = back ? [from.x + BOX.width / 2, from.y + BOX.height] : [from.x + BOX.width, from.y + BOX.height / 2];
  const [endX, endY] = back ? [to.x + BOX.width / 2, to.y + BOX.height] : [to.x, to.y + BOX.height / 2];
  const middle = (x + endX) / 2;
  const line = back ? `M${x} ${y} C${x} ${y + 40} ${endX} ${endY + 40} ${endX} ${endY}` : `M${x} ${y} C${middle} ${y} ${middle} ${endY} ${endX} ${endY}`;
  return html`<g class=${`edge ${edge.errors ? "failing" : ""}`}><title>${`${edge.from} → ${edge.to}: ${count(edge.count)} calls, ${percent(edge.errors / edge.count)} failed${edge.mean ? `, ${duration(edge.mean)} each` : ""}`}</title>
    <path d=${line} stroke-width=${weight}></path>
    <text x=${endX - 8} y=${endY > y ? endY + 17 : endY - 7} text-anchor="end">${rate(edge.rate)}${edge.mean ? ` · ${duration(edge.mean)}` : ""}</text></g>`;
}
