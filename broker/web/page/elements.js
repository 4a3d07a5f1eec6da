// Building the page. Text from the farm goes in as text, never as markup: a board may be called anything.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function notice(text, bad = false) {
  const box = h("p", { class: bad ? "notice bad" : "notice", role: bad ? "alert" : "status" }, text);
  document.getElementById("notices").append(box);
  setTimeout(() => box.remove(), bad ? 12000 : 5000);
}

export function when(iso) {
  if (!iso) return "";
  const time = new Date(iso);
  const today = time.toDateString() === new Date().toDateString();
  return today ? time.toLocaleTimeString() : time.toLocaleString();
}

export function clock(iso) {
  return h("time", { datetime: iso, title: iso }, when(iso));
}

export function watts(value) {
  return value === null || value === undefined ? "" : `${value.toFixed(1)} W`;
}

// A button that works once at a time, and says what went wrong.
export function action(label, work, { kind = "", sure = null, done = null } = {}) {
  const button = h("button", { type: "button", class: kind }, label);
  button.addEventListener("click", async () => {
    if (sure && !window.confirm(sure)) return;
    button.disabled = true;
    try {
      const result = await work();
      if (done) notice(typeof done === "function" ? done(result) : done);
    } catch (error) {
      notice(error.message, true);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}
