// The agents: what each host has, and the door for new boards.

import { farm, may, post } from "/page/api.js";
import { action, h, when } from "/page/elements.js";

export function show(content) {
  const panes = h("div", { class: "panes" });
  content.replaceChildren(h("h2", {}, "Agents"), panes);
  const draw = () => {
    panes.replaceChildren(...[...farm.agents.values()].sort((left, right) => (left.agent < right.agent ? -1 : 1)).map(pane));
    if (!farm.agents.size) panes.replaceChildren(h("p", { class: "empty" }, "No agent has been seen yet. Start one with 'boardhand agent' or 'boardhand up'."));
  };
  draw();
  return (changes) => {
    if (changes.some((change) => change.kind === "all" || change.kind === "agent") && !panes.contains(document.activeElement)) draw();
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
