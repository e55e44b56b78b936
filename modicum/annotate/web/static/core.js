// What every page needs: requests, the outbox of unsent answers, keys, colours, news from the server.

export const state = JSON.parse(document.body.dataset.state);
export const byId = (id) => document.getElementById(id);
const MINE = `modicum:${state.project}:${state.user}`;

export class Refused extends Error {
  constructor(status, { error, hint } = {}) {
    super([error || `The server answered ${status}.`, hint].filter(Boolean).join(" "));
    this.status = status;
  }
}

// crypto.randomUUID exists on loopback and https alone.
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const hex = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

export async function call(method, path, body, { type = "application/json", seconds = 20 } = {}) {
  const headers = body === undefined ? {} : { "content-type": type };
  const sent = body === undefined || type !== "application/json" ? body : JSON.stringify(body);
  const answer = await fetch(path, { method, headers, body: sent, signal: AbortSignal.timeout(1000 * seconds) });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer.json();
}

export function warn(text) {
  const box = document.createElement("p");
  const close = document.createElement("button");
  box.className = "box warn";
  box.textContent = text;
  close.type = "button";
  close.className = "quiet";
  close.textContent = "Dismiss";
  close.addEventListener("click", () => box.remove());
  box.append(" ", close);
  byId("alerts").append(box);
  while (byId("alerts").children.length > 3) byId("alerts").firstChild.remove();
}

// Answers in the order in which they were given: each stays in localStorage until the server acknowledged or refused it.
// One entry, one key, so that two tabs never write over one another's; the server knows an entry by its client id, so
// that sending it twice is harmless.
export class Outbox {
  #entries = [];
  #running = false;
  #wake = () => {};
  #kept = true;
  #trouble = "";
  onanswer = () => {};
  ontaken = () => {}; // another tab has sent what this one was about to send
  onrefusal = (entry, error) => warn(error.message);

  constructor() {
    try {
      const keys = Object.keys(localStorage).filter((key) => key.startsWith(`${MINE}:out:`));
      this.#entries = keys.sort().map((key) => ({ key, ...JSON.parse(localStorage.getItem(key)) }));
    } catch {
      this.#kept = false;
    }
    addEventListener("online", () => this.#wake());
    addEventListener("focus", () => this.#wake());
    addEventListener("beforeunload", (event) => { if (this.size && !this.#kept) event.preventDefault(); });
    byId("retry").addEventListener("click", () => this.#wake());
  }

  get size() { return this.#entries.length; }

  get unsent() { return this.#entries.map((entry) => entry.body); }

  start() { this.#run(); }

  add(path, body) {
    const client = uuid();
    const order = `${String(Date.now()).padStart(15, "0")}:${String(this.#entries.length).padStart(6, "0")}`;
    const entry = { key: `${MINE}:out:${order}:${client}`, path, body: { client, ...body } };
    this.#entries.push(entry);
    this.#keep(entry);
    this.#show();
    this.#run();
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    let wait = 500;
    while (this.#entries.length) {
      const entry = this.#entries[0];
      this.#show();
      const stored = this.#kept ? localStorage.getItem(entry.key) : "";
      if (stored === null) { // another tab has sent it
        this.#entries.shift();
        this.ontaken(entry);
        continue;
      }
      if (stored) entry.body = JSON.parse(stored).body;
      const [answer, error] = await call("POST", entry.path, entry.body).then((found) => [found], (failed) => [null, failed]);
      const status = error?.status ?? 0;
      if (error && (!status || status >= 500 || [401, 408, 425, 429].includes(status))) {
        this.#trouble = status === 401 ? "signed out: sign in in another tab" : status ? error.message : "server away";
        this.#show();
        await new Promise((done) => { this.#wake = done; setTimeout(done, wait); });
        wait = Math.min(2 * wait, 15000);
        continue;
      }
      wait = 500;
      this.#trouble = "";
      this.#settle(entry, answer);
      if (error) this.onrefusal(entry, error);
      else this.onanswer(entry, answer);
    }
    this.#running = false;
    this.#show();
  }

  // What waits for the same item was written on top of this answer: its version is this receipt's.
  #settle(entry, receipt) {
    this.#entries.shift();
    if (this.#kept) localStorage.removeItem(entry.key);
    if (receipt?.version === undefined || entry.body.item === undefined) return;
    for (const other of this.#entries.filter((one) => one.body.item === entry.body.item)) {
      other.body.version = receipt.version;
      this.#keep(other);
    }
  }

  #keep(entry) {
    try {
      localStorage.setItem(entry.key, JSON.stringify({ path: entry.path, body: entry.body }));
    } catch {
      this.#kept = false;
    }
  }

  #show() {
    const shown = byId("saved");
    const waiting = this.size;
    byId("retry").hidden = !this.#trouble;
    shown.dataset.state = this.#trouble ? "trouble" : waiting ? "saving" : "saved";
    const away = `Not saved: ${waiting} waiting, ${this.#trouble}`;
    const told = this.#trouble ? (this.#kept ? away : `${away}. Keep this page open`) : waiting ? "Saving …" : "Saved";
    if (shown.textContent !== told) shown.textContent = told;
  }
}

// Keys of the classes: the project's, and over them those that this person chose in this browser.
export class ClassKeys {
  #chosen = {};

  constructor(onchange) {
    try { this.#chosen = JSON.parse(localStorage.getItem(`${MINE}:keys`)) ?? {}; } catch { /* the project's then */ }
    this.onchange = onchange;
    this.#apply();
    byId("remap")?.addEventListener("click", () => this.#open());
    byId("keys").addEventListener("close", () => this.onchange?.());
    byId("keys").querySelector("form").addEventListener("submit", (event) => this.#close(event));
    byId("find")?.addEventListener("input", () => this.#narrow());
  }

  get active() { return this.#chosen.off !== true; }

  labelOf(key) { return this.list.indexOf(key); }

  clear() {
    if (byId("find")) byId("find").value = "";
    this.#narrow();
  }

  #narrow() {
    const words = (byId("find")?.value ?? "").toLowerCase();
    for (const button of document.querySelectorAll("#classes .class")) {
      button.hidden = !button.lastElementChild.textContent.toLowerCase().includes(words);
    }
  }

  #apply() {
    this.list = state.classes.map((name, i) => this.#chosen.keys?.[name] ?? state.keys[i]);
    document.querySelectorAll("#classes .class").forEach((button, i) => {
      button.firstElementChild.textContent = this.list[i];
      if (this.list[i] && this.active) button.setAttribute("aria-keyshortcuts", this.list[i]);
      else button.removeAttribute("aria-keyshortcuts");
    });
  }

  #open() {
    const fields = state.classes.map((name, i) => {
      const [label, input, span] = ["label", "input", "span"].map((tag) => document.createElement(tag));
      Object.assign(input, { className: "key", maxLength: 1, size: 1, autocomplete: "off", value: this.list[i] });
      span.textContent = name;
      span.dir = "auto";
      label.append(input, " ", span);
      return label;
    });
    byId("key-fields").replaceChildren(...fields);
    byId("key-problem").textContent = "";
    byId("shortcuts").checked = this.active;
    byId("keys").showModal();
  }

  #close(event) {
    const how = event.submitter?.value;
    if (how === "cancel") return;
    const keys = [...byId("key-fields").querySelectorAll("input")].map((input) => input.value.trim().toLowerCase());
    const problem = how === "save" ? keyProblem(keys) : "";
    byId("key-problem").textContent = problem;
    if (problem) return event.preventDefault();
    const named = Object.fromEntries(state.classes.map((name, i) => [name, keys[i]]));
    this.#chosen = how === "save" ? { keys: named, off: !byId("shortcuts").checked } : {};
    try { localStorage.setItem(`${MINE}:keys`, JSON.stringify(this.#chosen)); } catch { /* for this visit then */ }
    this.#apply();
  }
}

// What is wrong with these keys, or nothing.
export function keyProblem(keys) {
  const used = keys.filter(Boolean);
  const reserved = used.find((key) => state.reserved.includes(key));
  if (reserved) return `${reserved} does something else on this page: choose another key.`;
  const twice = used.find((key, i) => used.indexOf(key) !== i);
  return twice ? `${twice} stands for two classes: choose another for one of them.` : "";
}

// A key that was pressed for the page, or "": the letter or digit, also where the keyboard's layout has others there.
export function pressed(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return "";
  if (document.querySelector("dialog[open]") || event.target.closest("input, textarea, select")) return "";
  const key = event.key.toLowerCase();
  const place = /^(?:Key|Digit|Numpad)(.)$/.exec(event.code);
  const foreign = key.length === 1 && !/[a-z0-9?/]/.test(key) && place && !event.shiftKey;
  return foreign ? place[1].toLowerCase() : key;
}

// The same page as the server has it now: its element takes the place of ours.
export async function refresh(selector) {
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(20000) });
    if (!answer.ok || answer.redirected) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(selector);
    if (fresh) document.querySelector(selector).replaceChildren(...fresh.childNodes);
  } catch { /* the next change tries again */ }
}

// Calls back, at most once in so many seconds, when the server says that something changed. A hidden tab listens to
// nothing: a browser allows a server six connections in all.
export function onChange(seconds, react) {
  let source = null;
  let timer = 0;
  const soon = () => { timer ||= setTimeout(() => { timer = 0; react(); }, 1000 * seconds); };
  const listen = () => {
    source?.close();
    source = document.hidden ? null : new EventSource("/api/events");
    source?.addEventListener("change", soon);
  };
  document.addEventListener("visibilitychange", () => { listen(); if (!document.hidden) soon(); });
  listen();
  return soon;
}

function themes() {
  const words = { "": ["◐ Auto", "as the system has them"], light: ["☀ Light", "light"], dark: ["☾ Dark", "dark"] };
  const root = document.documentElement;
  const show = () => {
    const [word, long] = words[root.dataset.theme ?? ""];
    byId("theme").textContent = word;
    byId("theme").setAttribute("aria-label", `Colours: ${long}`);
  };
  byId("theme").addEventListener("click", () => {
    const next = { "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    document.cookie = `modicum-theme=${next}; path=/; samesite=strict; max-age=${next ? 31536000 : 0}`;
    show();
  });
  show();
}

themes();
