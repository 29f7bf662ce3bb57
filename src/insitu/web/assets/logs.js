// Log records: searched by level, logger and text, and followed as they come.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { ask, useAnswer, useStream } from "./api.js";
import { inUnit, moment, text } from "./format.js";
import { Field } from "./field.js";
import { href } from "./place.js";
import { Fields } from "./trace.js";

const LEVELS = ["", "debug", "info", "warning", "error", "critical"];
const ASKED = ["level", "logger", "text", "trace_id"];

export function Logs({ here, range, live, about }) {
  const given = here.parameters;
  const which = Object.fromEntries(ASKED.map((name) => [name, given[name]]));
  const question = { since: range, limit: 200, ...which };
  const stream = useStream("logs/streams", which, "logs", live && Boolean(about.streams));
  // What the stream may have missed, behind a sleeping page or a late process, comes with the next look.
  const { data, error } = useAnswer("logs", question, live ? (stream.open ? 15 : 2) : 0);
  const [more, setMore] = useState({ logs: [], cursor: null });
  const [open, setOpen] = useState(null);
  const key = JSON.stringify(question);
  useEffect(() => setMore({ logs: [], cursor: null }), [key]);
  const cursor = more.cursor ?? (more.logs.length ? null : data?.cursor);
  const goOn = async () => {
    const next = await ask("logs", { ...question, cursor });
    setMore({ logs: [...more.logs, ...next.logs], cursor: next.cursor });
  };
  const go = (changed) => (location.hash = href("logs", { ...given, ...changed }));
  const known = new Map([...stream.news, ...(data?.logs ?? []), ...more.logs].map((log) => [idOf(log), log]));
  const logs = [...known.values()].sort((one, other) => other.timestamp - one.timestamp);
  const field = (name, rest) => html`<${Field} name=${name} value=${given[name]} onChange=${(wanted) => go({ [name]: wanted })} ...${rest} />`;
  return html`
    <form class="search" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>text ${field("text", { placeholder: "anywhere in the record", size: 32 })}</label>
      <label>level <select name="level" value=${given.level ?? ""} onChange=${(event) => go({ level: event.target.value })}>${LEVELS.map((each) => html`<option key=${each} value=${each}>${each || "any"}</option>`)}</select></label>
      <label>logger ${field("logger", { placeholder: "any", size: 18 })}</label>
      ${given.trace_id && html`<span class="tag">in one trace</span>`}
      ${ASKED.some((name) => given[name]) && html`<a class="button quiet" href=${href("logs", { range: given.range })}>clear</a>`}
    </form>
    ${error && html`<p class="problem" role="alert">${error}</p>`}
    <section>
      <h2>${inUnit(logs.length, "{record}")} <span class="muted">the newest first${live ? ", as they come" : ""}${stream.partial ? ", and more of them than can be shown" : ""}</span></h2>
      ${data && !logs.length && !cursor && html`<p class="empty">No record is like that in this time.</p>`}
      <ol class="records lines">${logs.map((log) => html`
        <li key=${idOf(log)} class=${severity(log)}>
          <button aria-expanded=${open === idOf(log)} onClick=${() => setOpen(open === idOf(log) ? null : idOf(log))}><time>${moment(log.timestamp, true)}</time> <b>${log.level}</b> <span class="muted">${log.logger}</span> <span class="body">${text(log.body)}</span></button>
          ${open === idOf(log) && html`<div class="details"><${Fields} rows=${Object.entries(log.attributes)} />${log.exception && html`<pre>${log.exception}</pre>`}
            ${log.trace_id && html`<a href=${href("trace", { range }, log.trace_id)}>the trace it belongs to</a>`}</div>`}
        </li>`)}</ol>
      ${cursor && html`<p class="progress"><button onClick=${goOn}>look further back</button></p>`}
    </section>`;
}

const idOf = (log) => `${log.timestamp} ${log.span_id ?? ""} ${text(log.body)}`;
const severity = (log) => (log.severity >= 17 ? "error" : log.severity >= 13 ? "warning" : "plain");
