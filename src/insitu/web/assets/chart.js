// Lines over time by uPlot, with dots that can be picked.

import { html, useEffect, useRef } from "./vendor/preact-htm.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const path = (series, plot, paths) => (series.bars ? paths.bars({ size: [0.7, 12] }) : series.step ? paths.stepped({ align: 1 }) : paths.linear());

function options(props, width) {
  const { series, show, height, onPick, from, until, legend } = props;
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const lines = series.map((each) => ({
    label: each.label,
    stroke: colour(each.colour),
    width: each.dots ? 0 : 1.6,
    fill: each.fill ? `${colour(each.colour)}22` : undefined,
    // Dots stand alone; lines go on over the moments that only dots have.
    paths: each.dots ? () => null : path(each, null, window.uPlot.paths),
    points: { show: (plot) => Boolean(each.dots) || plot.data[0].length === 1, size: 7, fill: colour(each.colour) },
    spanGaps: !each.dots,
    value: (_, value) => (value === null || value === undefined ? "–" : show(value)),
  }));
  return {
    width,
    height,
    padding: [8, 24, 0, 0],
    legend: { show: legend, live: true },
    cursor: { points: { size: 6 }, drag: { x: false, y: false } },
    scales: { x: { time: true, range: (plot) => span(from ?? plot.data[0][0], until ?? plot.data[0].at(-1)) }, y: { range: (plot, least, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [{ ...axis, values: clocks }, { ...axis, size: 64, values: (_, ticks) => ticks.map(show) }],
    series: [{ label: "time", value: (_, second) => (second ? clock(second, true) : "–") }, ...lines],
    hooks: {
      ready: [
        (plot) => onPick && plot.over.addEventListener("click", () => plot.cursor.idx !== null && onPick(nearest(plot, series))),
      ],
    },
  };
}

/** The times that are drawn: a minute at the least, so that a moment alone stands in the middle. */
function span(least, most) {
  const missing = Math.max(0, 60 - (most - least)) / 2;
  return [least - missing, most + missing];
}

const two = (value) => String(value).padStart(2, "0");

function clock(second, fine) {
  const at = new Date(second * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}${fine ? `:${two(at.getSeconds())}` : ""}`;
}

/** Times of day below the axis; where it shows days, each first one of a day has its date. */
function clocks(plot, seconds) {
  const apart = seconds.length > 1 ? seconds[1] - seconds[0] : 60;
  const days = seconds.length > 1 && seconds[seconds.length - 1] - seconds[0] > 86400;
  return seconds.map((second, number) => {
    const at = new Date(second * 1000);
    const other = number === 0 || new Date(seconds[number - 1] * 1000).getDate() !== at.getDate();
    return days && other ? `${two(at.getMonth() + 1)}-${two(at.getDate())}` : clock(second, apart < 60);
  });
}

/** The index of the moment with a dot that is nearest to the pointer, or null. */
function nearest(plot, series) {
  const { left, top } = plot.cursor;
  let best = null;
  let least = 24;
  series.forEach((each, number) => {
    if (!each.dots) return;
    plot.data[number + 1].forEach((value, index) => {
      if (value === null || value === undefined) return;
      const away = Math.hypot(plot.valToPos(plot.data[0][index], "x") - left, plot.valToPos(value, "y") - top);
      if (away < least) [best, least] = [index, away];
    });
  });
  return best;
}

/**
 * A chart.
 *
 * x: seconds; series: [{label, colour: a CSS variable, values, dots, fill, bars}]; show: a value as text;
 * onPick: gets the index of the dot that was clicked, or null.
 */
export function Chart({ x, series, show, height = 180, onPick, from, until, label, legend = true }) {
  const place = useRef(null);
  const plot = useRef(null);
  const shape = series.map((each) => each.label).join("\u0000");
  const picked = useRef(onPick);
  picked.current = onPick;

  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      const props = { series, show, height, from, until, legend, onPick: onPick && ((index) => picked.current(index)) };
      plot.current = new window.uPlot(options(props, place.current.clientWidth), [x, ...series.map((each) => each.values)], place.current);
    };
    draw();
    const resized = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height }));
    resized.observe(place.current);
    // The colours are read when it is drawn.
    document.addEventListener("themechange", draw);
    return () => {
      resized.disconnect();
      document.removeEventListener("themechange", draw);
      plot.current.destroy();
      plot.current = null;
    };
  }, [shape, height, from, until, x, series]);

  return html`<div class="chart" role="img" aria-label=${label} ref=${place}></div>`;
}

/** Put lines and dots on one axis of moments: returns {x, series}, and where each dot came from. */
export function together(lines, dots) {
  const moments = new Map();
  const row = (second) => moments.get(second) ?? moments.set(second, []).get(second);
  lines.forEach(({ points }, number) => points.forEach(([second, value]) => (row(second)[number] = value)));
  dots.forEach(({ second, value, of }) => {
    const here = row(second);
    here[lines.length] = value;
    here.of = of;
  });
  const ordered = [...moments.entries()].sort(([one], [other]) => one - other);
  const column = (number) => ordered.map(([, values]) => values[number] ?? null);
  return {
    x: ordered.map(([second]) => second),
    columns: [...lines, null].map((_, number) => column(number)),
    sources: ordered.map(([, values]) => values.of),
  };
}
