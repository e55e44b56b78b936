// Items, review, progress and project: lists to choose from, and forms.

import { ClassKeys, Outbox, Refused, byId, call, keyProblem, onChange, pressed, refresh, state, uuid, warn } from "./core.js";

const main = byId("main");

function told(error) {
  return error instanceof Refused ? error.message : "The server is away: try again when it is back.";
}

// ---- items: a selection, labelled at once, after a look at what would change

function items() {
  const picks = () => [...document.querySelectorAll(".pick")];
  const picked = () => picks().filter((box) => box.checked).map((box) => Number(box.value));
  const say = (text) => { byId("bulk-said").textContent = text; };
  let last = null;

  const count = () => {
    const n = picked().length;
    byId("picked").textContent = n;
    byId("bulk-go").disabled = !n;
    byId("all").checked = n > 0 && n === picks().length;
    byId("all").indeterminate = n > 0 && n < picks().length;
  };
  document.querySelector("table.items").addEventListener("change", (event) => {
    if (event.target === byId("all")) for (const box of picks()) box.checked = byId("all").checked;
    count();
  });
  document.querySelector("table.items").addEventListener("click", (event) => {
    const box = event.target.closest(".pick");
    if (box && event.shiftKey && last) {
      const [from, to] = [picks().indexOf(last), picks().indexOf(box)].sort((a, b) => a - b);
      for (const one of picks().slice(from, to + 1)) one.checked = box.checked;
    }
    if (!box) return;
    last = box;
    count();
  });

  byId("bulk-go").addEventListener("click", async () => {
    try {
      preview(await call("POST", "/api/bulk", asked(true)));
    } catch (error) { warn(told(error)); }
  });
  const asked = (look) => ({ client: uuid(), items: picked(), label: Number(byId("bulk-label").value), preview: look });

  function preview(found) {
    const name = state.classes[Number(byId("bulk-label").value)];
    byId("preview-text").textContent = `“${name}”: ${found.new} without a label, ${found.changed} with another one, ${found.same} that have it already.`;
    byId("preview-rows").replaceChildren(...found.rows.map((row) => {
      const line = document.createElement("li");
      const [tag, text] = [document.createElement("span"), document.createElement("span")];
      Object.assign(tag, { className: "tag", dir: "auto", textContent: row.before === null ? "no label" : state.classes[row.before] });
      Object.assign(text, { className: "excerpt", dir: "auto", textContent: row.text.slice(0, 160) });
      line.append(tag, " ", text);
      return line;
    }));
    byId("preview").showModal();
  }

  const unsent = { client: "" };
  byId("preview").querySelector("form").addEventListener("submit", async (event) => {
    if (event.submitter?.value !== "go") return;
    const body = { ...asked(false), client: unsent.client || uuid() };
    unsent.client = body.client; // the same id if the answer got lost: it happens once
    try {
      const reply = await call("POST", "/api/bulk", body);
      unsent.client = "";
      const done = reply.new + reply.changed;
      await refresh("table.items");
      say(`Labelled ${done} text${done === 1 ? "" : "s"} ${state.classes[body.label]}.`);
      count();
    } catch (error) { warn(told(error)); }
  });
  byId("bulk-label").addEventListener("change", () => { unsent.client = ""; });
  byId("bulk-undo").addEventListener("click", async () => {
    try {
      const reply = await call("POST", "/api/undo", { client: uuid() });
      await refresh("table.items");
      say(reply.item ? `Undone: ${reply.items} text${reply.items === 1 ? "" : "s"}.` : "Nothing left to undo.");
      count();
    } catch (error) { warn(told(error)); }
  });
  count();
}

// ---- review: one marked card; the classes' keys decide on it

function review() {
  const cards = [...document.querySelectorAll(".card")];
  const { decide, kind } = document.querySelector(".cards").dataset;
  const outbox = new Outbox();
  const keys = new ClassKeys(() => mark(at));
  let at = 0;
  let since = performance.now();

  function mark(next) {
    cards[at].removeAttribute("aria-current");
    at = Math.max(0, Math.min(cards.length - 1, next));
    cards[at].setAttribute("aria-current", "true");
    if (document.activeElement !== cards[at]) cards[at].focus();
    since = performance.now();
  }

  function send(card, fields) {
    const [label, confidence] = (card.dataset.shown ?? "").split(" ").map(Number);
    const shown = card.dataset.shown ? { label, confidence } : null;
    const base = { item: Number(card.dataset.item), version: Number(card.dataset.version) };
    if (decide === "adjudicate" && fields.label !== undefined) outbox.add("/api/adjudications", { ...base, ...fields });
    else outbox.add("/api/answers", { ...base, seconds: Math.round((performance.now() - since) / 10) / 100, shown, ...fields });
  }

  function done(card, words) {
    card.classList.add("done");
    card.querySelector(".verdict").textContent = words;
    mark(cards.indexOf(card) + 1);
  }

  function label(index) {
    send(cards[at], { label: index });
    done(cards[at], `→ ${state.classes[index]}`);
  }

  function keep() {
    const flagged = kind === "flagged" && cards[at].dataset.flagged !== undefined;
    if (flagged) send(cards[at], { flag: false });
    done(cards[at], flagged ? "done, flag taken away" : "left as it is");
  }

  const cardOf = (item) => cards.find((card) => Number(card.dataset.item) === item);
  outbox.onanswer = (entry, reply) => {
    if (entry.path !== "/api/undo") {
      const card = cardOf(entry.body.item);
      if (card) card.dataset.version = reply.version;
      return;
    }
    const card = reply.item && cardOf(reply.item.item);
    if (!card) return warn(reply.item ? "Undone: a text that is not on this page." : "Nothing left to undo.");
    card.classList.remove("done");
    card.dataset.version = reply.item.version;
    card.querySelector(".verdict").textContent = "Undone.";
    mark(cards.indexOf(card));
  };
  outbox.onrefusal = (entry, error) => {
    const card = cardOf(entry.body.item);
    if (!card) return warn(error.message);
    card.classList.remove("done");
    card.querySelector(".verdict").textContent = `Not saved: ${error.message}`;
  };

  const acts = {
    u: () => outbox.add("/api/undo", {}),
    j: () => mark(at + 1),
    arrowdown: () => mark(at + 1),
    k: () => mark(at - 1),
    arrowup: () => mark(at - 1),
    enter: keep,
    "/": () => byId("find")?.focus(),
  };
  document.addEventListener("keydown", (event) => {
    const key = pressed(event);
    if (["enter", "arrowdown", "arrowup"].includes(key) && !event.target.closest(".card, body:focus")) return;
    const index = keys.active && key ? keys.labelOf(key) : -1;
    if (index < 0 && !(Object.hasOwn(acts, key) && (keys.active || key.length > 1))) return;
    event.preventDefault();
    if (index < 0) acts[key]();
    else label(index);
  });
  for (const [id, key] of [["undo", "u"], ["keep", "enter"], ["up", "k"], ["down", "j"]]) {
    byId(id).addEventListener("click", acts[key]);
  }
  byId("classes").addEventListener("click", (event) => {
    const button = event.target.closest(".class");
    if (button) label(Number(button.dataset.label));
  });
  byId("find")?.addEventListener("keydown", (event) => {
    if (event.key === "Enter") document.querySelector("#classes .class:not([hidden])")?.click();
  });
  cards.forEach((card, i) => card.addEventListener("focus", () => { if (i !== at) mark(i); }));
  outbox.start();
  mark(0);
}

// ---- project: forms that say beside their button what came of it

function form(id, act) {
  const element = byId(id);
  element?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = element.querySelector(".said");
    said.textContent = "…";
    try {
      said.textContent = await act(element, new FormData(element));
    } catch (error) { said.textContent = told(error); }
  });
}

function progress() {
  onChange(3, () => refresh("#numbers"));
  form("password", async (element, data) => {
    await call("POST", "/api/password", { old: data.get("old"), new: data.get("new") });
    element.reset();
    return "Changed.";
  });
}

function project() {
  form("settings", async (element, data) => {
    const keys = [...element.querySelectorAll(".key")].map((input) => [input.dataset.class, input.value.trim().toLowerCase()]);
    const problem = keyProblem(keys.map(([, key]) => key));
    if (problem) return problem;
    const changed = { keys: Object.fromEntries(keys.filter(([, key]) => key)) };
    for (const [name, value] of data) {
      const input = element.elements.namedItem(name);
      if (input.type !== "checkbox") changed[name] = input.type === "number" ? Number(value) : value;
    }
    const blind = element.elements.namedItem("blind");
    if (blind) changed.blind = blind.checked;
    await call("PATCH", "/api/settings", { client: uuid(), ...changed });
    return "Saved.";
  });
  form("import", async (element, data) => {
    const file = data.get("file");
    element.querySelector(".problems").replaceChildren();
    if (file.size > 50 * 2 ** 20) return "The file has more than 50 MB: split it.";
    const path = `/api/import?name=${encodeURIComponent(file.name)}`;
    const found = await call("POST", path, await file.arrayBuffer(), { type: "application/octet-stream", seconds: 300 });
    element.querySelector(".problems").replaceChildren(...(found.problems ?? []).map((text) => {
      const line = document.createElement("li");
      line.textContent = text;
      return line;
    }));
    return `${found.imported} labels imported, ${found.same} were there already, ${found.unknown} for no item of this project.`;
  });
  form("person", async (element, data) => {
    const fields = Object.fromEntries([...data].filter(([, value]) => value));
    const found = await call("POST", "/api/users", fields);
    element.reset();
    await refresh("table.people");
    return found.link ? `Added. Their link, good for one visit: ${found.link}` : "Added.";
  });
  form("token", async () => `${(await call("POST", "/api/tokens", {})).token} (shown once)`);
  byId("people")?.parentElement.addEventListener("click", async (event) => {
    const button = event.target.closest(".close, .link");
    if (!button) return;
    const { name, closed } = button.dataset;
    try {
      const wish = button.matches(".link") ? { link: true } : { closed: closed !== "true" };
      const found = await call("PATCH", "/api/users", { name, ...wish });
      byId("link-said").textContent = found.link ? `For ${name}, good for one visit: ${found.link}` : "";
      await refresh("table.people");
    } catch (error) { warn(told(error)); }
  });
}

if (byId("bulk")) items();
if (document.querySelector(".cards")) review();
if (document.body.classList.contains("progress")) progress();
if (byId("settings")) project();
