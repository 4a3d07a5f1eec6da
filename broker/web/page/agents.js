// The agents: what each host has, and the door for new boards.

import { farm, get, may, post } from "/page/api.js";
import { action, clock, h, when } from "/page/elements.js";

export function show(content) {
  const panes = h("div", { class: "panes" });
  const strangers = h("div");
  content.replaceChildren(h("h2", {}, "Agents"), panes, h("h3", {}, "Boards that would join"), strangers);
  const draw = () => {
    panes.replaceChildren(...[...farm.agents.values()].sort((left, right) => (left.agent < right.agent ? -1 : 1)).map(pane));
    if (!farm.agents.size) panes.replaceChildren(h("p", { class: "empty" }, "No agent has been seen yet. Start one with 'boardhand agent' or 'boardhand up'."));
  };
  let readings = 0;
  const ask = async () => {
    const mine = ++readings;
    const asked = await get("/strangers").catch(() => []);
    if (mine !== readings) return;
    const empty = h("p", { class: "empty" }, "No unknown board has asked. Let boards join at their agent, and switch them on.");
    strangers.replaceChildren(...(asked.length ? asked.map((one) => joining(one, ask)) : [empty]));
    // An agent may be slow to say whom it heard: the others are not held up by it.
    for (const agent of farm.agents.values()) {
      if (agent.state !== "online") continue;
      get(`/agents/${agent.agent}/strangers`).then((found) => {
        if (mine !== readings || !found.strangers.length) return;
        empty.remove();
        strangers.append(...found.strangers.map((one) => onTheWire(agent.agent, one)));
      }, () => {});
    }
  };
  let behind = false;
  draw();
  ask();
  panes.addEventListener("focusout", (event) => {
    if (behind && !panes.contains(event.relatedTarget)) setTimeout(() => { behind = false; draw(); });
  });
  return (changes) => {
    if (changes.some((change) => change.kind === "all" || change.kind === "agent")) {
      // A hand on a button must not lose it; what has changed is drawn when it goes.
      behind = panes.contains(document.activeElement);
      if (!behind) draw();
      ask();
    } else if (changes.some((change) => change.kind === "stranger")) ask();
  };
}

function pane(agent) {
  const controllers = agent.info?.controllers ?? [];
  const online = agent.state === "online";
  return h("section", { class: "pane" },
    h("h3", {}, agent.agent, " ", h("span", { class: online ? "passed" : "alert" }, agent.state ?? "not heard of")),
    h("dl", {}, h("dt", {}, "Host"), h("dd", {}, agent.info?.host ?? ""), h("dt", {}, "Version"), h("dd", {}, agent.info?.version ?? ""),
      h("dt", {}, "Since"), h("dd", {}, when(agent.since)),
      h("dt", {}, "Boards"), h("dd", {}, (agent.info?.boards ?? []).flatMap((name, n) => [n ? ", " : "", h("a", { href: `#/board/${name}` }, name)]))),
    h("ul", {}, controllers.map((controller) => h("li", {}, `${controller.name}: ${controller.device ?? controller.description ?? controller.driver}`,
      controller.problem && h("span", { class: "alert" }, ` ${controller.problem}`)))),
    may("operator") && online && h("div", { class: "buttons" },
      action("Let boards join for 10 minutes", () => post(`/agents/${agent.agent}/joining`, { open: true, for_s: 600 }), { done: "Unknown boards may join for 10 minutes." }),
      action("Close the door", () => post(`/agents/${agent.agent}/joining`, { open: false }), { done: "No board may join now." })));
}

// What an unknown board said of itself, and what to write so that it is one of the farm's.
function joining({ mac, said, why, agent, last, times }, again) {
  const facts = [["Says that it is", said.board], ["Kind", [said.arch, ...(said.compatible ?? []).slice(0, 1)].filter(Boolean).join(", ")],
    ["Memory", said.memory_mb && `${said.memory_mb} MB`], ["Serial number", said.serial], ["UUID", said.uuid], ["Address", said.address], ["Kernel", said.kernel],
    ["Other MACs", (said.macs ?? []).filter((other) => other !== mac).join(", ")], ["Refused by", agent && `agent ${agent}`], ["Why", why],
    ["Asked", h("span", {}, clock(last), times > 1 ? `, ${times} times` : "")]];
  return h("section", { class: "pane stranger" }, h("h3", {}, mac),
    h("dl", {}, facts.filter(([, value]) => value).flatMap(([label, value]) => [h("dt", {}, label), h("dd", {}, value)])),
    h("p", {}, "To take it in, give it a name in the settings of its agent:"),
    h("pre", { class: "log", tabindex: "0" }, `[boards.NAME]\nmacs = ["${mac}"]\nfeed = ["CONTROLLER:OUTLET"]\n`),
    may("operator") && h("div", { class: "buttons" }, action("Off the list", async () => { await post(`/strangers/${encodeURIComponent(mac)}/forget`); again(); })));
}

function onTheWire(agent, found) {
  return h("p", {}, `${found.mac ?? found.address}: heard on the board network of ${agent}${found.vendor_class ? ` (${found.vendor_class})` : ""}, ${found.times} times, last `, clock(found.last_at),
    found.names?.length ? `; asked for ${found.names.join(", ")}` : "", found.answered ? "; it was answered" : "");
}
