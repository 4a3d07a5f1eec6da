// The boards as a live grid.

import { farm } from "/page/api.js";
import { h, watts } from "/page/elements.js";

const phases = ["ready", "busy", "starting", "netboot", "booting", "sleeping", "off", "fault", "maintenance", "unclaimed"];
// "pi-2" before "pi-10", as people count.
const order = new Intl.Collator(undefined, { numeric: true }).compare;
const choice = { text: "", phase: "" };

export function show(content) {
  const numbers = h("ul", { class: "numbers", "aria-label": "The farm in numbers" });
  const grid = h("ul", { class: "grid" });
  const search = h("input", { type: "search", value: choice.text, placeholder: "name, label, holder" });
  const phase = h("select", {}, h("option", { value: "" }, "any"), phases.map((name) => h("option", { value: name }, name)));
  phase.value = choice.phase;
  const cards = new Map();
  content.replaceChildren(
    h("h2", {}, "Boards"), numbers,
    h("div", { class: "bar" }, h("label", {}, "Find", search), h("label", {}, "Phase", phase)),
    grid,
  );

  const wanted = (board) => {
    if (choice.phase && board.phase !== choice.phase) return false;
    const labels = Object.entries(board.info?.labels ?? {}).map(([key, value]) => `${key}=${value}`);
    const words = [board.board, board.info?.arch, board.lease?.holder, board.work, board.agent, ...labels].join(" ").toLowerCase();
    return choice.text.toLowerCase().split(/\s+/).every((word) => words.includes(word));
  };

  const draw = (name) => {
    const board = farm.boards.get(name);
    const old = cards.get(name);
    if (!board || !wanted(board)) {
      old?.remove();
      cards.delete(name);
      return;
    }
    grid.querySelector(".empty")?.remove();
    const item = h("li", { class: board.info?.console ? "with-console" : "" }, card(board), board.info?.console && h("a", { class: "to-console", href: `#/console/${name}`, "aria-label": `Console of ${name}` }, "Console"));
    if (old) {
      const focused = [...old.children].indexOf(document.activeElement);
      old.replaceWith(item);
      if (focused >= 0) (item.children[focused] ?? item.firstChild).focus();
    } else {
      const after = [...cards.keys()].filter((other) => order(other, name) > 0).sort(order)[0];
      grid.insertBefore(item, after ? cards.get(after) : null);
    }
    cards.set(name, item);
  };

  const count = () => {
    const counts = new Map();
    let all = 0;
    for (const board of farm.boards.values()) {
      counts.set(board.phase, (counts.get(board.phase) ?? 0) + 1);
      all += board.watts ?? 0;
    }
    numbers.replaceChildren(
      h("li", {}, h("b", {}, String(farm.boards.size)), " boards"),
      ...phases.filter((name) => counts.get(name)).map((name) => h("li", {}, h("b", {}, String(counts.get(name))), ` ${name}`)),
      all ? h("li", {}, h("b", {}, watts(all)), " measured") : "",
    );
  };

  const all = () => {
    for (const item of cards.values()) item.remove();
    cards.clear();
    for (const name of [...farm.boards.keys()].sort(order)) draw(name);
    if (!farm.boards.size) {
      grid.replaceChildren(h("li", { class: "empty" }, "No board has been seen yet. An agent with boards in its settings makes them appear here."));
    }
    count();
  };
  search.addEventListener("input", () => { choice.text = search.value; all(); });
  phase.addEventListener("change", () => { choice.phase = phase.value; all(); });
  all();
  return (changes) => {
    if (changes.some((change) => change.kind === "all")) return all();
    const names = new Set(changes.filter((change) => change.kind === "board").map((change) => change.name));
    for (const name of names) draw(name);
    if (names.size) count();
  };
}

function card(board) {
  const alerts = Object.values(board.alerts ?? {});
  return h("a", { class: `card ${board.phase ?? ""}`, href: `#/board/${board.board}` },
    h("strong", {}, board.board),
    h("span", { class: "row" },
      h("span", { class: `phase ${board.phase ?? ""}` }, board.phase ?? "not heard of"),
      h("span", {}, `power ${board.power}`), watts(board.watts) && h("span", {}, watts(board.watts))),
    board.lease && h("small", {}, `held by ${board.lease.holder}`),
    board.work && h("small", {}, `works on ${board.work}`),
    !board.agent_online && h("small", { class: "alert" }, `its agent ${board.agent ?? ""} is away`),
    board.reason && board.phase !== "busy" && h("small", {}, board.reason),
    alerts.map((alert) => h("small", { class: "alert" }, alert.what)));
}
