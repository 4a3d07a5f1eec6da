// Who holds what, who waits, and a board for yourself.

import { farm, get, may, post } from "/page/api.js";
import { action, clock, h, notice, when } from "/page/elements.js";

export function show(content) {
  const body = h("tbody");
  const board = h("input", { id: "board", list: "names", placeholder: "any" });
  const labels = h("input", { id: "labels", placeholder: "arch=arm64" });
  const hours = h("input", { id: "hours", type: "number", min: "0.1", max: "720", step: "0.5", value: "2" });
  const comment = h("input", { id: "comment", maxlength: "256" });
  const wait = h("input", { id: "wait", type: "checkbox" });
  const wake = h("input", { id: "wake", type: "checkbox", checked: true });
  const reserve = action("Reserve", async () => {
    const found = await post("/leases", {
      ...(board.value ? { board: board.value } : {}), labels: wanted(labels.value), for_s: Number(hours.value) * 3600,
      comment: comment.value, wait: wait.checked, wake: wake.checked,
    });
    notice(found.board ? `${found.board} is yours until ${when(found.expires)}` : `You are in the queue: it ${found.waits}`);
    load();
  }, { kind: "main" });
  content.replaceChildren(
    h("h2", {}, "Leases"),
    may("user") && h("div", { class: "bar" },
      h("label", {}, "Board", board, h("datalist", { id: "names" }, [...farm.boards.keys()].sort().map((name) => h("option", { value: name })))),
      h("label", {}, "Labels", labels), h("label", {}, "Hours", hours), h("label", {}, "What for", comment), h("label", {}, "Wake it", wake), h("label", {}, "Queue if taken", wait), reserve),
    h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Board", "Holder", "Since", "Until", "What for", ""].map((title) => h("th", { scope: "col" }, title)))), body)));

  let readings = 0;
  let last = 0;
  let soon = null;
  const load = async () => {
    const mine = ++readings;
    last = performance.now();
    try {
      const { leases = [] } = await get("/leases");
      if (mine !== readings) return;
      body.replaceChildren(...leases.map(row));
      if (!leases.length) body.replaceChildren(h("tr", {}, h("td", { colspan: 6, class: "empty" }, "Nobody holds a board.")));
    } catch (error) {
      body.replaceChildren(h("tr", {}, h("td", { colspan: 6, class: "empty" }, error.message)));
    }
  };
  const row = (lease) => {
    const person = lease.kind === "person";
    const mine = person && (lease.holder === farm.me || may("operator"));
    return h("tr", {},
      h("td", {}, lease.board ? h("a", { href: `#/board/${lease.board}` }, lease.board) : "waits"),
      h("td", {}, person ? lease.holder : h("a", { href: `#/job/${lease.lease}` }, lease.lease)),
      h("td", {}, clock(lease.since ?? lease.asked)), h("td", {}, lease.expires ? clock(lease.expires) : ""), h("td", {}, [lease.comment, lease.waits, lease.reason].filter(Boolean).join("; ")),
      h("td", {}, mine ? [
        lease.board && action("2 hours from now", async () => { await post(`/leases/${lease.lease}/extend`, { for_s: 7200 }); load(); }), " ",
        lease.board && action("Hand over", () => handOver(lease.lease, lease.board, load)), " ",
        action(lease.board ? "Release" : "Leave the queue", async () => { await post(`/leases/${lease.lease}/release`); load(); }),
      ] : ""));
  };
  load();
  // A farm that wakes says a hundred things in a second; the list of leases is read anew once in it.
  const watch = (changes) => {
    if (soon !== null || !changes.some((change) => change.kind === "all" || change.kind === "board")) return;
    soon = setTimeout(() => { soon = null; load(); }, Math.max(0, last + 1000 - performance.now()));
  };
  watch.end = () => clearTimeout(soon);
  return watch;
}

// "arch=arm64 memory_mb>=2048" as the API wants it.
function wanted(text) {
  const found = {};
  for (const part of text.split(/[\s,]+/).filter(Boolean)) {
    const match = /^([^<>=!]+)(>=|<=|==|!=|=|>|<)(.+)$/.exec(part);
    if (!match) throw new Error(`${part}: write labels as arch=arm64 or memory_mb>=2048`);
    found[match[1]] = match[2] === "=" || match[2] === "==" ? match[3] : `${match[2]} ${match[3]}`;
  }
  return found;
}

export async function handOver(lease, board, done) {
  const to = window.prompt(`Whose is ${board} from now on?`);
  if (!to) return;
  await post(`/leases/${lease}/hand-over`, { to: to.trim() });
  notice(`${board} is ${to.trim()}'s`);
  done();
}
