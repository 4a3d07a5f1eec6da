// Jobs: the list, one with its log as it runs, and a new one.

import { farm, get, may, post } from "/page/api.js";
import { action, clock, h, notice } from "/page/elements.js";

const EXAMPLE = 'name: hello\nlabels: {}\nsteps:\n  - name: who am I\n    run: uname -a\n';
const LINES_KEPT = 20000;
const ENDED = ["passed", "failed", "error", "cancelled"];

export function show(content) {
  const state = h("select", {}, h("option", { value: "" }, "all"),
    ["queued", "waking", "offered", "running", "passed", "failed", "error", "cancelled"].map((name) => h("option", { value: name }, name)));
  const body = h("tbody");
  const more = h("button", { type: "button", hidden: true }, "Older");
  const jobs = new Map();
  // What was heard while the list was being read is newer than what is read.
  let heard = [];
  let oldest = null;
  content.replaceChildren(
    h("h2", {}, "Jobs"),
    h("div", { class: "bar" }, h("label", {}, "State", state), may("user") && h("a", { href: "#/new-job" }, "Hand in a job")),
    h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Job", "Name", "State", "Board", "Handed in", "Why"].map((title) => h("th", { scope: "col" }, title)))), body)),
    more,
  );
  const none = () => {
    if (!jobs.size) body.replaceChildren(h("tr", {}, h("td", { colspan: 6, class: "empty" }, "No jobs.")));
  };
  const put = (job, first = false) => {
    if (state.value && job.state !== state.value) {
      jobs.get(job.job)?.remove();
      jobs.delete(job.job);
      none();
      return;
    }
    body.querySelector(".empty")?.closest("tr").remove();
    const row = h("tr", {},
      h("td", {}, h("a", { href: `#/job/${job.job}` }, job.job)), h("td", {}, job.name), h("td", { class: job.state }, job.state),
      h("td", {}, job.board ? h("a", { href: `#/board/${job.board}` }, job.board) : ""), h("td", {}, clock(job.submitted)), h("td", {}, job.reason ?? ""));
    if (jobs.has(job.job)) jobs.get(job.job).replaceWith(row);
    else if (first) body.prepend(row);
    else body.append(row);
    jobs.set(job.job, row);
  };
  let readings = 0;
  const load = async (before) => {
    const mine = ++readings;
    heard = [];
    try {
      const found = await get(`/jobs?limit=50${state.value ? `&state=${state.value}` : ""}${before ? `&before=${before}` : ""}`);
      // Another reading has begun meanwhile, of another state perhaps.
      if (mine !== readings) return;
      if (!before) {
        body.replaceChildren();
        jobs.clear();
      }
      for (const job of found.jobs) put(job);
      oldest = found.jobs.at(-1)?.job ?? oldest;
      for (const job of heard) put(job, true);
      more.hidden = !found.more;
      none();
    } catch (error) {
      notice(error.message, true);
    }
  };
  state.addEventListener("change", () => load());
  more.addEventListener("click", () => load(oldest));
  load();
  return (changes) => {
    for (const change of changes) {
      if (change.kind !== "job") continue;
      heard.push(change.document);
      if (heard.length > 5000) heard.shift();
      put(change.document, true);
    }
    if (changes.some((change) => change.kind === "all")) load();
  };
}

export function showNew(content) {
  const text = h("textarea", { id: "yaml", spellcheck: "false", "aria-describedby": "yaml-help" });
  text.value = EXAMPLE;
  const submit = action("Hand in", async () => {
    const { job } = await post("/jobs", { yaml: text.value });
    location.hash = `#/job/${job}`;
  }, { kind: "main" });
  content.replaceChildren(h("h2", {}, "A new job"), h("label", { for: "yaml" }, "YAML"), text,
    h("p", { id: "yaml-help", class: "empty" }, "Keys are described in docs/jobs.md. What is wrong is told with its line."), h("div", { class: "buttons" }, submit));
  text.focus();
}

export function showOne(content, name) {
  const head = h("h2", {}, name);
  const facts = h("div", { class: "pane" });
  const steps = h("tbody");
  const log = h("pre", { class: "log", tabindex: "0", "aria-label": "Log", role: "log" });
  content.replaceChildren(head, facts,
    h("h3", {}, "Steps"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Step", "Exit code", "Took"].map((title) => h("th", { scope: "col" }, title)))), steps)),
    h("h3", {}, "Log"), log);

  let over = false;
  const draw = (job) => {
    // Two connections tell of it: what an ended job was before is old, whichever comes first.
    if (over && !ENDED.includes(job.state)) return;
    over = ENDED.includes(job.state);
    head.replaceChildren(`${job.job}: ${job.name} `, h("span", { class: job.state }, job.state));
    const rows = [
      ["Board", job.board && h("a", { href: `#/board/${job.board}` }, job.board)],
      ["Why", job.reason], ["Handed in", clock(job.submitted)], ["Began", job.started && clock(job.started)], ["Ended", job.ended && clock(job.ended)],
      ["Attempt", job.attempt ? String(job.attempt) : ""],
    ];
    const open = !job.ended && may("user");
    facts.replaceChildren(
      h("dl", {}, rows.filter(([, value]) => value).flatMap(([label, value]) => [h("dt", {}, label), h("dd", {}, value)])),
      open ? h("div", { class: "buttons" }, action("Cancel", () => post(`/jobs/${name}/cancel`), { kind: "danger", sure: `Cancel ${name}?` })) : "");
    // What is told of a change may have no steps in it; what was read has.
    if (!job.steps?.length) return;
    steps.replaceChildren(...job.steps.map((step) => h("tr", {}, h("td", {}, step.name),
      h("td", { class: step.exit_code === 0 ? "passed" : "failed" }, String(step.exit_code ?? "")),
      h("td", {}, step.took_s === undefined || step.took_s === null ? "" : `${step.took_s.toFixed(1)} s`))));
  };
  // What was heard while the job was being read is newer than what is read.
  let heard = false;
  const hear = (job) => { heard = true; draw(job); };
  get(`/jobs/${name}`).then((job) => heard || draw(job), (error) => notice(error.message, true));

  const source = new EventSource(`/api/v1/jobs/${name}/log/live`);
  source.addEventListener("log", (event) => {
    const piece = JSON.parse(event.data);
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 40;
    log.append(piece.text);
    while (log.childNodes.length > LINES_KEPT) log.firstChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("end", (event) => { source.close(); hear(JSON.parse(event.data)); });
  source.addEventListener("problem", (event) => { source.close(); notice(JSON.parse(event.data).message, true); });
  // The stream begins anew after a broken connection, so what is shown does, too.
  source.addEventListener("error", () => log.replaceChildren());
  const watch = (changes) => {
    for (const change of changes) if (change.kind === "job" && change.name === name) hear(change.document);
  };
  watch.end = () => source.close();
  return watch;
}

export { farm };
