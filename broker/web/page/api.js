// Everything that the page asks of the API, and the farm as it was last heard.

export class ApiError extends Error {
  constructor(message, status, kind) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

export async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, {
      method,
      headers: { "x-boardhand": "1", ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError("the broker cannot be reached from this browser", 0, "unreachable");
  }
  const text = await answer.text();
  const found = text && answer.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
  if (answer.ok) return found;
  if (answer.status === 401 && path !== "/login") window.dispatchEvent(new Event("boardhand-login"));
  throw new ApiError(found?.error?.message ?? `the answer was ${answer.status}`, answer.status, found?.error?.kind);
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

const order = ["reader", "user", "operator", "admin"];

export const farm = { boards: new Map(), jobs: new Map(), agents: new Map(), me: null, role: null, version: "", watchers: new Set() };

export function may(role) {
  return order.indexOf(farm.role) >= order.indexOf(role);
}

let waiting = new Set();

// Changes are shown once per frame: a farm that reconnects says a thousand things at once.
function changed(kind, name, document) {
  if (!waiting.size) requestAnimationFrame(tell);
  waiting.add({ kind, name, document });
}

function tell() {
  const changes = [...waiting];
  waiting = new Set();
  for (const watcher of [...farm.watchers]) watcher(changes);
}

// What was heard while everything was being read is newer than what is read.
let heard = [];
let readings = 0;

export async function readAll() {
  const mine = ++readings;
  heard = [];
  const [numbers, boards, agents] = await Promise.all([get("/farm"), get("/boards"), get("/agents")]);
  // Another reading has begun meanwhile, and knows more.
  if (mine !== readings) return;
  farm.me = numbers.you;
  farm.role = numbers.role;
  farm.version = numbers.version;
  farm.broker = numbers.broker;
  farm.boards = new Map(boards.map((board) => [board.board, board]));
  farm.agents = new Map(agents.map((agent) => [agent.agent, agent]));
  for (const take of heard) take();
  changed("all", "", null);
}

function hear(take) {
  take();
  heard.push(take);
  if (heard.length > 5000) heard.shift();
}

let source = null;

export function listen(said) {
  source?.close();
  source = new EventSource("/api/v1/live");
  source.onopen = () => said(true);
  source.onerror = () => said(false);
  const on = (kind, take) => source.addEventListener(kind, (event) => take(JSON.parse(event.data)));
  on("reload", () => readAll().catch(() => said(false)));
  on("board", (board) => {
    hear(() => (board.gone ? farm.boards.delete(board.board) : farm.boards.set(board.board, board)));
    changed("board", board.board, board);
  });
  on("agent", (agent) => {
    hear(() => farm.agents.set(agent.agent, agent));
    changed("agent", agent.agent, agent);
  });
  on("broker", (broker) => {
    hear(() => { farm.broker = broker.state ?? null; });
    changed("broker", "", broker);
  });
  on("job", (job) => {
    farm.jobs.set(job.job, job);
    changed("job", job.job, job);
  });
  on("stranger", (stranger) => changed("stranger", stranger.mac, stranger));
  on("event", (event) => changed("event", event.board, event));
}

export function stopListening() {
  source?.close();
  source = null;
}
