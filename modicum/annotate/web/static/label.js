// The labelling page: one text after another, one key each.

import { ClassKeys, Outbox, byId, call, onChange, pressed, refresh, state } from "./core.js";

const AHEAD = 12;
const outbox = new Outbox();
const answered = new Set(); // items that the server may still offer, because it had not heard the answer when it was asked
const told = new Map(); // item -> the suggestion that this person saw after answering
let current = null;
let ahead = [];
let fetching = false;
let undoing = false;
const afterwards = new Map(); // item -> what is said about the suggestion once the answer is saved
let later = []; // what was pressed while an undo was on its way: it means the text that the undo brings back
let seconds = 0;
let since = 0;

const keys = new ClassKeys(() => byId("text").focus());
const say = (text) => { byId("last").textContent = text; };
const percent = (share) => `${Math.round(100 * share)} %`;

// ---- what is shown

function show(item) {
  current = item;
  const text = byId("text");
  byId("first").textContent = item?.text ?? "";
  byId("second").textContent = item?.pair ?? "";
  byId("second").parentElement.hidden = item?.pair == null;
  byId("first").previousElementSibling.hidden = item?.pair == null;
  text.classList.toggle("long", (item?.text.length ?? 0) + (item?.pair?.length ?? 0) > 600);
  text.hidden = true; // ends a scroll that is still under way, which setting scrollTop does not
  text.getBoundingClientRect();
  text.hidden = false;
  text.scrollTop = 0;
  byId("place").textContent = item ? `${item.id} · ${why(item)}` : "";
  for (const button of document.querySelectorAll("#classes button, #skip, #flag, #note")) button.disabled = !item;
  showMarks();
  showSuggestion();
  keys.clear();
  seconds = 0;
  since = document.hidden ? 0 : performance.now();
  if (!document.querySelector("dialog[open]")) text.focus({ preventScroll: true });
}

function why(item) {
  if (item.model) return `asked for by model ${item.model} (${item.strategy})`;
  const words = { random: "drawn at random", audit: "drawn at random", again: "begun before", search: "found by search" };
  return words[item.strategy] ?? `before the first model (${item.strategy})`;
}

function showMarks() {
  byId("flag").setAttribute("aria-pressed", String(Boolean(current?.flag)));
  byId("marks").textContent = [current?.flag && "⚑ flagged", current?.note && `note: ${current.note}`].filter(Boolean).join(" · ");
}

function visible() {
  return current?.suggestion && (state.suggest === "shown" || told.has(current.item)) ? current.suggestion : null;
}

function tellAfterwards(item) {
  if (state.suggest !== "after" || !item.suggestion) return "";
  told.set(item.item, item.suggestion);
  return ` The model had ${state.classes[item.suggestion.label]}, ${percent(item.suggestion.confidence)}.`;
}

function showSuggestion() {
  const suggestion = visible();
  const line = byId("suggestion");
  line.hidden = state.suggest !== "shown" && !suggestion;
  line.textContent = suggestion ? `The model says ${state.classes[suggestion.label]}, ${percent(suggestion.confidence)}` : " ";
  document.querySelectorAll("#classes .class").forEach((button, i) => {
    button.classList.toggle("suggested", suggestion?.label === i);
  });
}

function nothing(reason) {
  show(null);
  byId("first").textContent = reason;
}

function recent(item, word) {
  const line = document.createElement("li");
  const [tag, text] = [document.createElement("span"), document.createElement("span")];
  Object.assign(tag, { className: "tag", textContent: word, dir: "auto" });
  Object.assign(text, { className: "excerpt", textContent: item.text.slice(0, 120), dir: "auto" });
  line.dataset.item = item.item;
  line.append(tag, text);
  byId("recent").prepend(line);
  while (byId("recent").children.length > 8) byId("recent").lastChild.remove();
}

function bump(id, by) {
  const place = byId(id);
  if (place) place.textContent = Math.max(0, Number(place.textContent.replace(/\D/g, "")) + by).toLocaleString("en");
}

// ---- what is done

function elapsed() {
  return Math.round(100 * (seconds + (since ? (performance.now() - since) / 1000 : 0))) / 100;
}

function send(item, fields) {
  outbox.add("/api/answers", { item: item.item, version: item.version, seconds: elapsed(), shown: visible(), ...fields });
}

function answer(fields, word) {
  if (!current) return;
  const item = current;
  send(item, fields);
  answered.add(item.item);
  recent(item, word);
  if (fields.label !== undefined) {
    afterwards.set(item.item, tellAfterwards(item));
    for (const id of ["done", "today"]) bump(id, 1);
  }
  bump("left", -1);
  advance();
}

function label(index) {
  if (index >= 0 && index < state.classes.length) answer({ label: index }, state.classes[index]);
}

function mark(fields) {
  send(current, fields);
  Object.assign(current, fields);
  showMarks();
}

function undo() {
  undoing = true;
  outbox.add("/api/undo", {});
}

function undone(reply) {
  undoing = false;
  const item = reply.item;
  if (!item) {
    say("Nothing left to undo.");
  } else {
    answered.delete(item.item);
    if (["labelled", "skipped"].includes(reply.undone)) bump("left", 1);
    byId("recent").querySelector(`[data-item="${Number(item.item)}"]`)?.remove();
    if (current && current.item !== item.item) ahead.unshift(current);
    ahead = ahead.filter((one) => one.item !== item.item);
    show(item);
    say(reply.items > 1 ? `Undone: ${reply.items} texts labelled together.` : "Undone. This is the text again.");
    soon();
  }
  const waiting = later;
  later = [];
  for (const act of waiting) whenSettled(act);
}

function whenSettled(act) {
  if (undoing) later.push(act);
  else act();
}

function advance() {
  const next = ahead.shift() ?? null;
  if (next) show(next);
  else nothing("Fetching the next texts …");
  refill();
}

// ---- the next texts

async function refill() {
  if (fetching || ahead.length > AHEAD / 2) return;
  fetching = true;
  try {
    const found = await call("GET", `/api/next?count=${AHEAD}`);
    byId("left").textContent = Math.max(0, found.left - outbox.size).toLocaleString("en");
    const have = new Set([current, ...ahead].filter(Boolean).map((item) => item.item));
    ahead.push(...found.items.filter((item) => !answered.has(item.item) && !have.has(item.item)));
    if (!current && ahead.length) show(ahead.shift());
    else if (!current && !outbox.size) {
      nothing(found.left ? "Others have the texts that are left. New ones come as they finish." : "Every text is done. Have a look at Review, or at Progress.");
      setTimeout(refill, found.left ? 3000 : 15000);
    }
  } catch (error) {
    if (!current && error.status === 401) return location.assign("/login");
    if (!current) nothing(error.status ? error.message : "The server is away. What you labelled is kept in this browser.");
    setTimeout(refill, 2000);
  } finally {
    fetching = false;
  }
}

outbox.onanswer = (entry, reply) => {
  if (entry.path === "/api/undo") return undone(reply);
  const { item, label: index, skip, flag, note } = entry.body;
  if (current?.item === item) current.version = reply.version;
  if (index !== undefined) say(`Saved: ${state.classes[index]}.${afterwards.get(item) ?? ""}`);
  else if (skip !== undefined) say(`Skipped: ${skip}.`);
  else if (flag !== undefined) say(flag ? "Flagged." : "Flag taken away.");
  else if (note !== undefined) say("Note saved.");
  if (!current) refill();
  soon();
};

outbox.ontaken = (entry) => {
  if (entry.path === "/api/undo") undone({ item: null });
  else if (!current) refill();
};

outbox.onrefusal = (entry, error) => {
  if (entry.path === "/api/undo") undone({ item: null });
  const item = entry.body.item;
  const which = entry.body.item === undefined ? "" : ` (text ${item + 1})`;
  answered.delete(item);
  say(`Not saved${which}: ${error.message}`);
  byId("last").classList.add("problem");
  setTimeout(() => byId("last").classList.remove("problem"), 6000);
  byId("recent").querySelector(`[data-item="${Number(item)}"]`)?.remove();
  if (current?.item === item) advance();
  else if (!current) refill();
  soon();
};

// ---- keys and buttons

function openSkip() {
  if (!current) return;
  byId("reason").value = "";
  byId("skip-box").showModal();
}

function skipWith(reason) {
  byId("skip-box").close();
  answer({ skip: reason }, "skipped");
}

function openNote() {
  if (!current) return;
  byId("note-text").value = current.note ?? "";
  byId("note-box").showModal();
}

const acts = {
  u: () => undo(),
  s: openSkip,
  f: () => current && mark({ flag: !current.flag }),
  n: openNote,
  g: () => { byId("guide").open = !byId("guide").open; },
  "?": () => byId("help").showModal(),
  "/": () => byId("find")?.focus(),
};

document.addEventListener("keydown", (event) => {
  const key = keys.active || event.key === "?" ? pressed(event) : "";
  const index = key ? keys.labelOf(key) : -1;
  if (index < 0 && !Object.hasOwn(acts, key)) return;
  event.preventDefault();
  whenSettled(index < 0 ? acts[key] : () => label(index));
});

for (const [id, key] of [["undo", "u"], ["skip", "s"], ["flag", "f"], ["note", "n"], ["help-button", "?"]]) {
  byId(id).addEventListener("click", () => whenSettled(acts[key]));
}
byId("classes").addEventListener("click", (event) => {
  const button = event.target.closest(".class");
  if (button) whenSettled(() => label(Number(button.dataset.label)));
});
byId("find")?.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { keys.clear(); byId("text").focus(); }
  if (event.key === "Enter") document.querySelector("#classes .class:not([hidden])")?.click();
});

byId("skip-box").addEventListener("keydown", (event) => {
  const reason = event.target.closest("input") ? null : byId("skip-box").querySelectorAll("[data-reason]")[Number(event.key) - 1];
  if (!reason) return;
  event.preventDefault();
  skipWith(reason.dataset.reason);
});
for (const button of document.querySelectorAll("[data-reason]")) {
  button.addEventListener("click", () => skipWith(button.dataset.reason));
}
byId("skip-box").querySelector("form").addEventListener("submit", () => skipWith(byId("reason").value.trim()));
byId("skip-cancel").addEventListener("click", () => byId("skip-box").close());

byId("note-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("note-box").querySelector("[value=save]").click();
});
byId("note-box").querySelector("form").addEventListener("submit", (event) => {
  const note = byId("note-text").value.trim();
  if (event.submitter?.value === "save" && current && note !== (current.note ?? "")) mark({ note });
});
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", () => byId("text").focus());

// ---- time that the page was looked at, and time that texts are kept for this person

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    seconds += since ? (performance.now() - since) / 1000 : 0;
    since = 0;
  } else {
    since = performance.now();
    if (ahead.length && ahead[0].lease_until * 1000 < Date.now()) ahead = [];
    refill();
  }
});

const soon = onChange(5, () => refresh("#numbers"));
for (const body of outbox.unsent) if (body.label !== undefined || body.skip !== undefined) answered.add(body.item);
undoing = outbox.unsent.some((body) => body.item === undefined);
outbox.start();
refill();
