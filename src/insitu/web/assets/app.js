// The page: its frame, and which view stands in it. The address says everything: #/traces?name=...&range=1h

import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { useAnswer } from "./api.js";
import { duration } from "./format.js";
import { Logs } from "./logs.js";
import { Metrics } from "./metrics.js";
import { Overview } from "./overview.js";
import { href, place } from "./place.js";
import { Services } from "./services.js";
import { Trace } from "./trace.js";
import { Traces } from "./traces.js";

const RANGES = { "15m": "15 minutes", "1h": "hour", "6h": "6 hours", "24h": "24 hours", "7d": "7 days" };
const VIEWS = { overview: Overview, traces: Traces, trace: Trace, logs: Logs, metrics: Metrics, services: Services };
const TABS = ["overview", "traces", "logs", "metrics", "services"];
const THEMES = ["auto", "light", "dark"];

function useTheme() {
  const [theme, choose] = useState(localStorage.getItem("insitu.theme") ?? "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("insitu.theme", theme);
    document.dispatchEvent(new Event("themechange"));
  }, [theme]);
  useEffect(() => {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => document.dispatchEvent(new Event("themechange"));
    system.addEventListener("change", changed);
    return () => system.removeEventListener("change", changed);
  }, []);
  return [theme, () => choose(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])];
}

function usePlace() {
  const [here, move] = useState(place());
  useEffect(() => {
    const moved = () => move(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return here;
}

function App() {
  const here = usePlace();
  const [theme, nextTheme] = useTheme();
  const [live, setLive] = useState(true);
  const range = here.parameters.range ?? "15m";
  const overview = useAnswer("overview", {}, live ? 5 : 0);
  const about = overview.data ?? {};
  const View = VIEWS[here.view] ?? Overview;
  const tab = here.view === "trace" ? "traces" : here.view;
  useEffect(() => {
    document.title = about.service ? `${about.service} · insitu` : "insitu";
  }, [about.service]);
  return html`
    <header>
      <a class="brand" href=${href("overview", { range })}><img src="assets/icon.svg" alt="" width="22" height="22" /><strong>${about.service ?? "insitu"}</strong></a>
      <span class="about">${[about.version, about.environment].filter(Boolean).join(" · ")}</span>
      <nav>${TABS.map((name) => html`<a key=${name} href=${href(name, { range })} aria-current=${name === tab ? "page" : undefined}>${name}</a>`)}</nav>
      <span class="space"></span>
      <label class="quiet">last <select value=${range} onChange=${(event) => (location.hash = href(here.view, { ...here.parameters, range: event.target.value }))}>
        ${Object.entries(RANGES).map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
      </select></label>
      <button class=${live ? "live on" : "live"} aria-pressed=${live} title="look again every few seconds" onClick=${() => setLive(!live)}>${live ? "live" : "paused"}</button>
      <button class="quiet" title="light, dark, or as the system has it" onClick=${nextTheme}>${theme}</button>
    </header>
    ${overview.error && html`<p class="problem" role="alert">The application does not answer: ${overview.error}</p>`}
    <main><${View} key=${here.view} here=${here} range=${range} live=${live} about=${about} /></main>
    <footer>
      ${about.live ? html`up ${duration(about.live.uptime)} · pid ${about.pid} on ${about.host} · Python ${about.python} · ` : about.service && "no application is running: this is what it left · "}
      <a href="openapi.json">API</a>
    </footer>
  `;
}

render(html`<${App} />`, document.getElementById("app"));
