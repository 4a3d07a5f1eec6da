// One board: what it is, what happened to it, and what you may do with it.

import { farm, get, may, post } from "/page/api.js";
import { action, clock, h, notice, watts, when } from "/page/elements.js";
import { handOver } from "/page/leases.js";

const SHOWN = 100;

export function show(content, name) {
  const head = h("h2", {}, name);
  const now = h("dl");
  const warnings = h("div");
  const doing = h("div", { class: "buttons" });
  const facts = h("div", { class: "pane" }, h("h3", {}, "Now"), now, warnings, doing);
  const trust = h("div", { class: "pane" });
  const boots = h("div", { class: "pane" });
  const timeline = h("ol", { class: "timeline" });
  const more = h("button", { type: "button", hidden: true }, "Older");
  content.replaceChildren(head, h("div", { class: "panes" }, facts, trust, boots), h("h3", {}, "Timeline"), timeline, more);

  let oldest = null;
  // What was heard while the timeline was being read may stand in it already.
  const shown = new Set();
  const isNew = (event) => !shown.has(event.seq) && shown.add(event.seq);
  const older = async () => {
    try {
      const found = await get(`/boards/${name}/timeline?limit=${SHOWN}${oldest ? `&before=${oldest}` : ""}`);
      timeline.append(...found.events.filter(isNew).map(line));
      oldest = found.events.at(-1)?.seq ?? oldest;
      more.hidden = !found.more;
      if (!timeline.children.length) timeline.append(h("li", { class: "empty" }, "Nothing has happened yet."));
    } catch (error) {
      notice(error.message, true);
    }
  };
  more.addEventListener("click", older);

  let meaning = "";
  const draw = () => {
    const board = farm.boards.get(name);
    if (!board) {
      warnings.replaceChildren(h("p", {}, "No agent of this farm has this board."));
      now.replaceChildren();
      doing.replaceChildren();
      meaning = "";
      return;
    }
    head.replaceChildren(name, " ", h("span", { class: `phase ${board.phase ?? ""}` }, board.phase ?? ""));
    now.replaceChildren(...table(board));
    warnings.replaceChildren(...alerts(board));
    // A hand on a button must not lose it to a new reading of the watts: buttons are made anew when they mean something else.
    const means = JSON.stringify([board.lease?.holder, board.lease?.kind, board.phase === "maintenance", Boolean(board.info?.console)]);
    if (means === meaning) return;
    meaning = means;
    const focused = doing.contains(document.activeElement) ? document.activeElement.textContent : null;
    doing.replaceChildren(...buttons(board).filter(Boolean));
    if (focused !== null) ([...doing.children].find((made) => made.textContent === focused) ?? doing.firstChild)?.focus();
  };
  draw();
  older();
  netboot(boots, name);
  health(trust, name);
  return (changes) => {
    if (changes.some((change) => change.kind === "all" || (change.kind === "board" && change.name === name))) {
      draw();
    }
    for (const change of changes) {
      if (change.kind === "event" && change.name === name && isNew(change.document)) {
        timeline.querySelector(".empty")?.remove();
        timeline.prepend(line(change.document));
        if (change.document.type === "phase") health(trust, name);
      }
    }
  };
}

function table(board) {
  const rows = [
    ["Power", board.power + (board.target && board.target !== board.power ? ` (asked for: ${board.target})` : "")],
    ["Phase", board.phase],
    ["Since", board.since && when(board.since)],
    ["Reason", board.reason],
    ["Draws", watts(board.watts)],
    ["Held by", board.lease && `${board.lease.holder} until ${when(board.lease.ends ?? board.lease.expires)}${board.lease.since ? `, since ${when(board.lease.since)}` : ""}`],
    ["What for", board.lease?.comment],
    ["Works on", board.work && h("a", { href: `#/job/${board.work}` }, board.work)],
    ["Agent", board.agent && `${board.agent}${board.agent_online ? "" : " (away: its power is not known)"}`],
    ["Kind", [board.info?.arch, ...(board.info?.compatible ?? []).slice(0, 1)].filter(Boolean).join(", ")],
    ["Memory", board.info?.memory_mb && `${board.info.memory_mb} MB`],
    ["Address", board.info?.address],
    ["MAC", (board.info?.macs ?? []).join(", ")],
    ["Feed", (board.info?.feed ?? []).join(", ")],
    ["Console", board.info?.console],
    ["Labels", Object.entries(board.info?.labels ?? {}).map(([key, value]) => `${key}: ${value}`).join(", ")],
  ];
  return rows.filter(([, value]) => value).flatMap(([label, value]) => [h("dt", {}, label), h("dd", {}, value)]);
}

function alerts(board) {
  return Object.values(board.alerts ?? {}).map((alert) => h("p", { class: "alert" }, `${alert.what} (since ${when(alert.since)}). ${alert.do ?? ""}`));
}

function buttons(board) {
  const name = board.board;
  const mine = board.lease?.holder === farm.me;
  const switching = (power, sure = null) =>
    action(power[0].toUpperCase() + power.slice(1), () => post(`/boards/${name}/power`, { power }),
      { sure, done: (result) => `${name}: power is ${result.power}` });
  const made = [board.info?.console && h("a", { class: "button", href: `#/console/${name}` }, "Console")];
  if (may("user")) {
    made.push(switching("on"), switching("off", `Switch ${name} off?`), switching("cycle", `Cycle the power of ${name}?`));
    if (mine) {
      made.push(action("Release", () => post(`/leases/${name}/release`), { done: `${name} is given back` }),
        action("2 hours from now", () => post(`/leases/${name}/extend`, { for_s: 7200 }), { done: (found) => `${name} is yours until ${when(found.expires)}` }),
        action("Hand over", () => handOver(name, name, () => {})));
    } else {
      // Whoever meets a taken board stands in the queue: nothing is refused that a little patience would give.
      made.push(action(board.lease ? "Queue for 2 hours" : "Reserve for 2 hours", () => post("/leases", { board: name, for_s: 7200, wait: Boolean(board.lease) }),
        { kind: "main", done: (found) => found.board ? `${name} is yours` : `You are in the queue: it ${found.waits}` }));
    }
  }
  if (may("operator")) {
    const on = board.phase !== "maintenance";
    made.push(action(on ? "Take out of work" : "Back to work", () => post(`/boards/${name}/maintenance`, { on })));
  }
  if (may("operator") && board.lease?.kind === "person" && !mine) {
    made.push(action("Take it back", () => post(`/leases/${name}/release`), { sure: `${board.lease.holder} holds ${name}. Release it?`, done: `${name} is free` }));
  }
  if (may("admin") && board.lease && !mine) {
    const force = () => post(`/boards/${name}/power`, { power: "cycle", force: true });
    made.push(action("Force a cycle", force, { kind: "danger", sure: `${board.lease.holder} holds ${name}. Cycle it all the same? It is recorded.` }));
  }
  return made;
}

function line(event) {
  return h("li", {}, clock(event.at), h("span", {}, event.type), h("span", {}, words(event)));
}

function words({ type, details }) {
  if (type === "phase") return `${details.was} → ${details.phase}${details.reason ? `: ${details.reason}` : ""}`;
  if (type === "power" && details.was) return `${details.was} → ${details.power}`;
  if (type === "hook") return `${details.at}: ${details.run} ended with ${details.exit_code} ${details.output ?? ""}`;
  return Object.entries(details).map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}

const words_of = {
  training: "is being trained: it must boot several times in a row", due: "its health job is the next that runs on it", checking: "its health job runs",
  trusted: "trusted with work", fault: "failed its health job too often", retired: "taken out for good",
};

// Whether it is trusted with work, and a person's word on that.
async function health(pane, name) {
  let found;
  try {
    found = (await get(`/boards/${name}/health`)).boards?.[0];
  } catch (error) {
    pane.replaceChildren(h("h3", {}, "Health"), h("p", { class: "empty" }, error.message));
    return;
  }
  const told = (what, words, options = {}) => action(what[0].toUpperCase() + what.slice(1), async () => {
    await post(`/boards/${name}/trust/${what}`);
    await health(pane, name);
  }, { done: `${name}: ${words}`, ...options });
  // Boards that no rule fits take work as they are.
  const is = found?.health ?? "no health job is set";
  const rows = [
    ["Health", is && h("span", { class: is === "fault" ? "alert" : is === "trusted" ? "passed" : found ? "queued" : "" }, is), ],
    ["That is", words_of[is]], ["Why", found?.why], ["Since", found?.since && when(found.since)], ["Passed", found?.passed && when(found.passed)],
    ["Failures", found?.failures ? String(found.failures) : ""], ["Job", found?.job && h("a", { href: `#/job/${found.job}` }, found.job)],
    ["Boots took", found?.boots_s?.length ? found.boots_s.map((took) => `${took.toFixed(0)} s`).join(", ") : ""],
  ];
  const evidence = (found?.evidence ?? []).map((failure) => h("li", {}, clock(failure.at), failure.job ? h("a", { href: `#/job/${failure.job}` }, failure.job) : h("span"),
    h("span", {}, [failure.why, failure.diagnosis, failure.log].filter(Boolean).join("\n"))));
  const focused = pane.contains(document.activeElement) ? document.activeElement.textContent : null;
  const made = may("operator") ? [
    found && is !== "trusted" && told("accept", "trusted with work"), found && is !== "retired" && told("check", "its health job runs next"),
    is !== "retired" ? told("retire", "taken out for good", { sure: `Take ${name} out for good? Neither jobs nor leases get it any more.` })
      : told("forget", "forgotten", { sure: `Forget ${name}? No agent may have it any more.` }),
  ] : [];
  pane.replaceChildren(h("h3", {}, "Health"),
    h("dl", {}, rows.filter(([, value]) => value).flatMap(([label, value]) => [h("dt", {}, label), h("dd", {}, value)])),
    evidence.length ? h("ol", { class: "timeline evidence" }, evidence) : "", h("div", { class: "buttons" }, made));
  if (focused !== null) [...pane.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}

async function netboot(pane, name) {
  pane.replaceChildren(h("h3", {}, "Boots"), h("p", { class: "empty" }, "…"));
  try {
    const found = await get(`/boards/${name}/netboot`);
    const boots = found.boots ?? [];
    pane.replaceChildren(h("h3", {}, "Boots"),
      boots.length
        ? h("ol", { class: "timeline" }, boots.map((boot) => h("li", {}, clock(boot.began), h("span", {}, `boot ${boot.number}`),
          h("span", {}, [boot.diagnosis?.what, boot.diagnosis?.check].filter(Boolean).join(". ")))))
        : h("p", { class: "empty" }, "It has not booted from this farm yet."));
  } catch (error) {
    pane.replaceChildren(h("h3", {}, "Boots"), h("p", { class: "empty" }, error.message));
  }
}
