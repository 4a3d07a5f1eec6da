// One board's console: what it says, live, and what you type where you may.

import { farm, get, may } from "/page/api.js";
import { action, h, notice } from "/page/elements.js";

const AGAIN_MS = [1000, 2000, 5000];
// The broker says something at least every 15 seconds.
const SILENT_MS = 40000;
const PASTE_BYTES = 4096;
const SEEN_BYTES = 32 * 1024;
const KEYS = { Esc: "\x1b", Tab: "\t", "Ctrl-C": "\x03", "Ctrl-D": "\x04", "↑": "\x1b[A", "↓": "\x1b[B" };

// xterm.js is 350 kB: it is loaded with the first console.
async function load() {
  if (!document.getElementById("xterm-css")) {
    const sheet = h("link", { id: "xterm-css", rel: "stylesheet", href: "/page/vendor/xterm.css" });
    const there = new Promise((done) => { sheet.addEventListener("load", done); sheet.addEventListener("error", done); });
    document.head.append(sheet);
    await there;
  }
  const [{ Terminal }, { FitAddon }] = await Promise.all([import("/page/vendor/xterm.mjs"), import("/page/vendor/addon-fit.mjs")]);
  return { Terminal, FitAddon };
}

const plain = (text) => String(text).replace(/[\u0000-\u001f\u007f-\u009f]/g, " ");

export function show(content, name) {
  let state = null;
  let terminal = null;
  let socket = null;
  let over = false;
  let tries = 0;
  let again = null;
  let quiet = null;
  const how = h("p", { class: "how", role: "status" });
  const take = h("button", { type: "button", class: "main" }, "Type here");
  const stop = action("Stop typing", () => ask({ give: true }));
  const pause = action("Send break", () => { ask({ break: true }); terminal?.focus(); });
  const aloud = h("input", { type: "checkbox", id: "aloud" });
  const keys = h("div", { class: "buttons keys", role: "group", "aria-label": "Keys that a phone lacks" },
    Object.entries(KEYS).map(([label, data]) => h("button", { type: "button", onclick: () => { send(data); terminal?.focus(); } }, label)));
  const screen = h("div", { class: "terminal", tabindex: "0", role: "group", "aria-label": `Console of ${name}`, "aria-describedby": "console-help" });
  content.replaceChildren(h("div", { class: "console" },
    h("h2", {}, h("a", { href: `#/board/${name}` }, name), " console"), how,
    h("div", { class: "buttons" }, may("user") && take, stop, pause, h("label", { class: "empty" }, aloud, " for a screen reader")),
    screen, keys,
    h("p", { id: "console-help", class: "empty" }, "While you type, every key goes to the board, but Ctrl-]: it leaves the console. Otherwise Page Up and Page Down turn pages.")));

  const typing = () => state?.you === true;

  const draw = () => {
    const board = farm.boards.get(name);
    const holder = board?.lease && !state?.refused ? ` ${board.lease.holder === farm.me ? "You hold" : `${board.lease.holder} holds`} the board.` : "";
    const text = !socket || socket.readyState !== WebSocket.OPEN ? (over ? "It is over." : "Not connected to the broker; it is tried again.")
      : !state ? "Connecting …"
      : !state.connected ? `No connection to the console: ${state.why ?? "it is being opened"}.`
      : !state.open ? `The board's port is not open: ${state.why ?? "no reason was given"}.`
      : typing() ? "You type."
      : `${state.writer ? `${state.writer} types.` : "Nobody types."}${state.refused ? ` You may not: ${state.refused}.` : ""}`;
    if (how.textContent !== text + holder) how.textContent = text + holder;
    take.hidden = typing();
    stop.hidden = pause.hidden = keys.hidden = !typing();
    screen.classList.toggle("typing", typing());
    if (terminal) terminal.options.disableStdin = !typing();
  };

  const ask = (message) => { if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message)); };
  const send = (text) => {
    if (!typing() || socket?.readyState !== WebSocket.OPEN) return;
    const data = new TextEncoder().encode(text);
    for (let at = 0; at < data.length; at += PASTE_BYTES) socket.send(data.subarray(at, at + PASTE_BYTES));
  };
  const say = (text) => terminal.write(`\r\n\x1b[0;7m ${plain(text)} \x1b[0m\r\n`);

  take.addEventListener("click", () => {
    if (state?.writer && !state.refused && !window.confirm(`${state.writer} is typing. Take the keyboard?`)) return;
    ask({ take: true });
  });
  aloud.addEventListener("change", () => { if (terminal) terminal.options.screenReaderMode = aloud.checked; });

  const heard = (message) => {
    if (message.state) {
      const was = typing();
      const here = [screen, stop, pause, keys].some((part) => part.contains(document.activeElement));
      state = message.state;
      draw();
      if (typing() && !was) terminal.focus();
      if (was && !typing() && here) take.focus();
    }
    if (message.note) say(message.note);
    if (message.refused) {
      notice(message.refused, true);
      if (message.over) { over = true; say(message.refused); draw(); }
    }
  };

  const connect = (recorded) => {
    let shown = 0, told = 0, timer = null, opened = false;
    const mine = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/boards/${encodeURIComponent(name)}/console?recorded=${recorded}`);
    socket = mine;
    mine.binaryType = "arraybuffer";
    const wake = () => { clearTimeout(quiet); quiet = setTimeout(() => mine.close(), SILENT_MS); };
    const tell = () => { timer = null; if (shown !== told && mine.readyState === WebSocket.OPEN) mine.send(JSON.stringify({ seen: told = shown })); };
    wake();
    mine.onopen = () => { opened = true; tries = 0; mine.send('{"seen":0}'); draw(); };
    mine.onmessage = ({ data }) => {
      wake();
      if (typeof data === "string") return heard(JSON.parse(data));
      // The broker sends no more than this page has shown: a flood fills no memory.
      terminal.write(new Uint8Array(data), () => {
        shown += data.byteLength;
        if (shown - told >= SEEN_BYTES) tell();
        else timer ??= setTimeout(tell, 250);
      });
    };
    mine.onclose = async () => {
      clearTimeout(timer);
      if (socket !== mine) return;
      clearTimeout(quiet);
      if (state) state = { ...state, you: false };
      draw();
      if (over) return;
      // Why a connection was refused a browser tells no page; the same question by the API does.
      if (!opened) await get(`/boards/${name}`).catch((error) => { if (error.status && error.status !== 401) { over = true; say(error.message); draw(); } });
      if (!over && socket === mine) again = setTimeout(() => connect(false), AGAIN_MS[Math.min(tries++, AGAIN_MS.length - 1)]);
    };
  };

  let fit = null;
  const resize = new ResizeObserver(() => { if (screen.clientWidth) fit?.fit(); });
  const begin = ({ Terminal, FitAddon }) => {
    if (over) return;
    terminal = new Terminal({
      convertEol: false, disableStdin: true, scrollback: 5000, fontSize: window.innerWidth < 640 ? 11 : 14, cursorBlink: false,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", monospace', theme: { background: "#0d1311", foreground: "#d7e2dd", cursor: "#6fd0b2" },
      // A board's words must not open pages.
      linkHandler: { activate: () => {} },
    });
    fit = new FitAddon();
    terminal.loadAddon(fit);
    terminal.open(screen);
    fit.fit();
    resize.observe(screen);
    terminal.onData(send);
    terminal.onBinary((text) => { if (typing()) socket.send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))); });
    terminal.attachCustomKeyEventHandler((event) => {
      if (event.type !== "keydown") return typing();
      if (typing() && event.ctrlKey && (event.key === "]" || event.code === "BracketRight")) { event.preventDefault(); stop.focus(); return false; }
      if (!typing() && (event.key === "PageUp" || event.key === "PageDown")) { event.preventDefault(); terminal.scrollPages(event.key === "PageUp" ? -1 : 1); return false; }
      return typing();
    });
    // Without typing the console is one stop of the Tab key; keys scroll it.
    screen.addEventListener("keydown", (event) => {
      if (event.target === screen && (event.key === "PageUp" || event.key === "PageDown")) { event.preventDefault(); terminal.scrollPages(event.key === "PageUp" ? -1 : 1); }
    });
    window.boardhandConsole = terminal;
    connect(true);
  };
  draw();
  load().then(begin, (error) => notice(`the terminal could not be loaded: ${error.message}`, true));

  const watch = (changes) => {
    if (changes.some((change) => change.kind === "all" || (change.kind === "board" && change.name === name))) draw();
  };
  watch.end = () => {
    over = true;
    clearTimeout(again);
    clearTimeout(quiet);
    resize.disconnect();
    socket?.close();
    terminal?.dispose();
  };
  return watch;
}
