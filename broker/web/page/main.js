// The page: which view is shown, who you are, and whether what you see is live.

import { farm, listen, post, readAll, stopListening } from "/page/api.js";
import * as agents from "/page/agents.js";
import * as board from "/page/board.js";
import * as boards from "/page/boards.js";
import * as console_ from "/page/console.js";
import { action, h } from "/page/elements.js";
import * as energy from "/page/energy.js";
import * as jobs from "/page/jobs.js";
import * as leases from "/page/leases.js";

const content = document.getElementById("content");
const line = document.getElementById("line");
const views = {
  boards: boards.show, board: board.show, console: console_.show, jobs: jobs.show, job: jobs.showOne, "new-job": jobs.showNew,
  leases: leases.show, energy: energy.show, agents: agents.show,
};
let current = null;
let live = false;

function route() {
  const [name = "boards", argument] = location.hash.replace(/^#\//, "").split("/").filter(Boolean);
  const view = views[name] ?? boards.show;
  if (current) {
    farm.watchers.delete(current);
    current.end?.();
  }
  current = view(content, argument === undefined ? undefined : decodeURIComponent(argument)) ?? null;
  if (current) farm.watchers.add(current);
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href") === `#/${name}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${argument ?? name} · boardhand`;
}

function say() {
  const away = !live ? "Not connected: what you see may be old" : farm.broker !== "online" ? "The broker is away: jobs wait" : "";
  line.textContent = away || "Live";
  line.className = away ? "line away" : "line";
  const out = action("Log out", async () => { await post("/logout"); login(); });
  document.getElementById("who").replaceChildren(...(farm.me && farm.me !== "anonymous" ? [`${farm.me} (${farm.role}) `, out] : [h("button", { type: "button", onclick: login }, "Log in")]));
}

function login() {
  // Several answers may say at once that a token is needed; what somebody has typed must not go.
  if (content.querySelector(".login")) return;
  stopListening();
  if (current) farm.watchers.delete(current);
  current = null;
  const token = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
  const problem = h("p", { class: "alert", role: "alert" });
  const form = h("form", { class: "login pane" }, h("h2", {}, "Log in"), h("label", { for: "token" }, "Your token"), token,
    h("button", { type: "submit", class: "main" }, "Log in"), problem,
    h("p", { class: "empty" }, "The admin makes one with 'boardhand token add NAME'."));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await post("/login", { token: token.value });
      await begin();
    } catch (error) {
      problem.textContent = error.message;
      token.select();
    }
  });
  content.replaceChildren(form);
  token.focus();
}

async function begin() {
  await readAll();
  listen((up) => { live = up; say(); });
  route();
}

farm.watchers.add(say);
window.addEventListener("hashchange", () => { if (farm.role) { route(); content.focus({ preventScroll: true }); } });
window.addEventListener("boardhand-login", login);
// A page that a browser keeps for its Back button must not keep connections: six are all that it opens to one host.
window.addEventListener("pagehide", () => {
  stopListening();
  if (current) farm.watchers.delete(current);
  current?.end?.();
  current = null;
});
window.addEventListener("pageshow", (event) => { if (event.persisted && farm.role) begin().catch(() => {}); });
begin().catch((error) => { if (error.status !== 401) content.replaceChildren(h("p", { class: "alert" }, error.message)); });
