// What the boards used, and what sleep saved. Measured and estimated are never added up.

import { get } from "/page/api.js";
import { h, notice, s } from "/page/elements.js";

const WIDTH = 800, HEIGHT = 260, LEFT = 52, BELOW = 28;
const spans = { "24 hours": [86400, "hour"], "7 days": [7 * 86400, "day"], "30 days": [30 * 86400, "day"] };

export function show(content) {
  const span = h("select", {}, Object.keys(spans).map((name) => h("option", { value: name }, name)));
  const chart = h("div");
  const list = h("div", { class: "scroll" });
  content.replaceChildren(h("h2", {}, "Energy"), h("div", { class: "bar" }, h("label", {}, "The last", span)), chart, h("h3", {}, "Boards"), list);
  let readings = 0;
  const load = async () => {
    const mine = ++readings;
    const [seconds, by] = spans[span.value];
    try {
      const found = await get(`/energy?since_s=${seconds}&by=${by}`);
      if (mine === readings) draw(found, by);
    } catch (error) {
      notice(error.message, true);
    }
  };
  const draw = ({ agents, problems }, by) => {
    const boards = Object.values(agents).flatMap((report) => report.boards ?? []);
    const periods = new Map();
    for (const board of boards) {
      for (const period of board.periods ?? []) {
        const sum = periods.get(period.start) ?? { measured: 0, estimated: 0, saved: 0 };
        sum.measured += period.measured_wh ?? 0;
        sum.estimated += period.estimated_wh ?? 0;
        sum.saved += Math.max(0, period.saved_wh ?? 0);
        periods.set(period.start, sum);
      }
    }
    const rows = [...periods.entries()].sort(([left], [right]) => (left < right ? -1 : 1));
    chart.replaceChildren(...(rows.length ? [bars(rows, by), key()] : [h("p", { class: "empty" }, "Nothing has been counted in this time.")]),
      ...Object.entries(problems).map(([agent, why]) => h("p", { class: "empty" }, `agent ${agent}: ${why}`)));
    list.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ["Board", "Measured", "Estimated", "Saved by sleep", "Asleep"].map((title, n) => h("th", { scope: "col", class: n ? "number" : "" }, title)))),
      h("tbody", {}, boards.sort((left, right) => (left.board < right.board ? -1 : 1)).map((board) => {
        const total = board.total ?? board;
        return h("tr", {}, h("td", {}, h("a", { href: `#/board/${board.board}` }, board.board)), ...[hours(total.measured_wh), hours(total.estimated_wh), hours(total.saved_wh), share(total)].map((text) => h("td", { class: "number" }, text)));
      }))));
  };
  span.addEventListener("change", load);
  load();
  return () => {};
}

const hours = (wh) => (wh === null || wh === undefined ? "" : wh >= 1000 ? `${(wh / 1000).toFixed(2)} kWh` : `${wh.toFixed(1)} Wh`);
const share = (total) => (total.total_s ? `${Math.round((100 * total.sleeping_s) / total.total_s)} %` : "");

function key() {
  return h("p", { class: "key" }, h("span", { class: "measured" }, "measured"), h("span", { class: "estimated" }, "estimated"), h("span", { class: "saved" }, "saved by sleep"));
}

function bars(rows, by) {
  const top = Math.max(1e-9, ...rows.map(([, row]) => row.measured + row.estimated + row.saved));
  const step = (WIDTH - LEFT) / rows.length;
  const high = (value) => (value / top) * (HEIGHT - BELOW - 10);
  const picture = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Watt hours by ${by}; the figures are in the table below` });
  for (const part of [0, 0.5, 1]) {
    const y = HEIGHT - BELOW - high(top * part);
    picture.append(s("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y }), s("text", { x: 4, y: y + 4 }, hours(top * part)));
  }
  rows.forEach(([begin, row], n) => {
    const x = LEFT + n * step + step * 0.1;
    let y = HEIGHT - BELOW;
    for (const kind of ["measured", "estimated", "saved"]) {
      const height = high(row[kind]);
      if (height <= 0) continue;
      y -= height;
      picture.append(s("rect", { x, y, width: step * 0.8, height, class: kind }, s("title", {}, `${new Date(begin).toLocaleString()}: ${kind} ${hours(row[kind])}`)));
    }
    if (n % Math.ceil(rows.length / 8) === 0) {
      const time = new Date(begin);
      picture.append(s("text", { x, y: HEIGHT - 8 }, by === "hour" ? `${time.getHours()}:00` : time.toLocaleDateString(undefined, { day: "numeric", month: "short" })));
    }
  });
  return picture;
}
