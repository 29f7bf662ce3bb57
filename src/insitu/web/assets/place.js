// Where the visitor is, in the address behind the #.

/** Return {view, id, parameters} of the address. */
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, id] = path.split("/").map(decodeURIComponent);
  return { view: view || "overview", id: id ?? "", parameters: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

/** Return the address of a view; empty parameters are left out. */
export function href(view, parameters = {}, id = "") {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "" && value !== false);
  const query = new URLSearchParams(given).toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${query ? `?${query}` : ""}`;
}
