// A text field of a search. What is being typed stays, however often the page around it is drawn anew.

import { html, useEffect, useState } from "./vendor/preact-htm.js";

/** value: what is searched for; onChange: gets what the visitor wants instead, once the field is left or Enter pressed. */
export function Field({ value = "", onChange, ...rest }) {
  const [draft, write] = useState(value);
  useEffect(() => write(value), [value]);
  return html`<input value=${draft} onInput=${(event) => write(event.target.value)} onChange=${(event) => onChange(event.target.value.trim())} ...${rest} />`;
}
