// Questions to the server, and a hook that asks again while somebody looks.

import { useEffect, useRef, useState } from "./vendor/preact-htm.js";

/** Ask for one document below /monitoring/; throws an Error that can be shown. */
export async function ask(path, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  const answer = await fetch(query ? `${path}?${query}` : path, { signal, headers: { accept: "application/json" } });
  const document = await answer.json().catch(() => ({ detail: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(document.detail);
  return document;
}

/**
 * Return {data, error, loading} of a question, asked anew every `seconds` while the page is in front (0: once).
 *
 * What was there before stays until the new answer is here, so that nothing flickers.
 */
export function useAnswer(path, parameters = {}, seconds = 0) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const key = path + JSON.stringify(parameters);
  const asked = useRef("");
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    let timer = 0;
    const other = asked.current !== key;
    asked.current = key;
    if (other) setState((before) => ({ ...before, loading: true }));
    const look = async () => {
      if (!document.hidden || other) {
        try {
          setState({ data: await ask(path, parameters, abort.signal), error: null, loading: false });
        } catch (error) {
          if (abort.signal.aborted) return;
          setState((before) => ({ data: before.data, error: error.message, loading: false }));
        }
      }
      if (seconds && !abort.signal.aborted) timer = setTimeout(look, seconds * 1000);
    };
    look();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [key, seconds]);
  return state;
}
