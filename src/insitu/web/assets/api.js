// Questions to the server, and a hook that asks again while somebody looks.

import { useEffect, useRef, useState } from "./vendor/preact-htm.js";

const MOST_NEWS = 500;

/** Ask for one document below /monitoring/; throws an Error that can be shown. */
export async function ask(path, parameters = {}, signal = undefined) {
  const answer = await fetch(addressOf(path, parameters), { signal, headers: { accept: "application/json" } });
  if (answer.ok) return answer.json();
  const { detail } = await answer.json().catch(() => ({}));
  throw new Error(detail ?? `the server answered ${answer.status}`);
}

function addressOf(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return query ? `${path}?${query}` : path;
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

/**
 * Return {news, partial, open} of a stream: what the server told since the question was put, the newest first.
 *
 * It is listened to while the page is in front. Where no stream can be had, `open` stays false: then ask again and again.
 */
export function useStream(path, parameters, name, wanted) {
  const nothing = { news: [], partial: false, open: false };
  const [state, setState] = useState(nothing);
  const key = path + JSON.stringify(parameters);
  useEffect(() => {
    setState(nothing);
    if (!wanted) return undefined;
    let source = null;
    const listen = () => {
      source?.close();
      source = document.hidden ? null : new EventSource(addressOf(path, parameters));
      if (!source) return;
      source.onopen = () => setState((before) => ({ ...before, open: true }));
      // A stream that ended begins again by itself; one that was refused does not.
      source.onerror = () => source.readyState === EventSource.CLOSED && setState((before) => ({ ...before, open: false }));
      source.onmessage = (event) => {
        const told = JSON.parse(event.data);
        setState((before) => ({ news: [...told[name], ...before.news].slice(0, MOST_NEWS), partial: told.partial, open: true }));
      };
    };
    listen();
    document.addEventListener("visibilitychange", listen);
    return () => {
      source?.close();
      document.removeEventListener("visibilitychange", listen);
    };
  }, [key, wanted]);
  return state;
}
