// The chat page: one conversation in memory, settings in localStorage. Model text is only ever set as textContent.
const $ = (id) => document.getElementById(id);
const prompt = $("prompt"), list = $("messages"), scroller = document.querySelector("main");
const SETTINGS_KEY = "quire-settings", THEME_KEY = "quire-theme", FIELDS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];

let conversation = [];
let running = null; // AbortController of the answer in progress
let model = null;

function stored(key) {
  try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; }
}

function store(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* private mode: settings last for this page */ }
}

// --- settings and theme
const form = document.querySelector("#settings form");
function fillSettings(values) {
  for (const name of ["system", ...FIELDS]) form.elements[name].value = values[name] ?? "";
}
function readSettings() {
  return Object.fromEntries(["system", ...FIELDS].map((name) => [name, form.elements[name].value]));
}
form.addEventListener("input", () => store(SETTINGS_KEY, readSettings()));
$("reset-settings").addEventListener("click", () => { fillSettings({}); store(SETTINGS_KEY, {}); });
$("open-settings").addEventListener("click", () => $("settings").showModal());
fillSettings(stored(SETTINGS_KEY));

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}
$("theme").addEventListener("click", () => {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  applyTheme(isDark ? "light" : "dark");
  store(THEME_KEY, { theme: isDark ? "light" : "dark" });
});
applyTheme(stored(THEME_KEY).theme);

// --- the request
function requestBody() {
  const settings = readSettings();
  const messages = settings.system ? [{ role: "system", content: settings.system }, ...conversation] : [...conversation];
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  if (model) body.model = model;
  for (const name of FIELDS) if (settings[name] !== "") body[name] = Number(settings[name]);
  return body;
}

async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.startsWith("data: ") ? event.slice(6) : null; // comments are heartbeats
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

async function* streamAnswer(body, signal) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
  });
  if (!response.ok) {
    const reply = await response.json().catch(() => null);
    throw new Error(reply?.error?.message ?? `The server answered ${response.status}.`);
  }
  for await (const chunk of readEvents(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk;
  }
}

// --- messages on the page
function addMessage(role, text) {
  const item = $("message-template").content.firstElementChild.cloneNode(true);
  item.className = role;
  item.querySelector(".who").textContent = { user: "You", assistant: model ?? "Model", error: "Error" }[role];
  item.querySelector(".text").textContent = text;
  item.querySelector(".copy").addEventListener("click", (event) => copy(event.target, item.querySelector(".text").textContent));
  list.append(item);
  $("welcome").hidden = true;
  scroller.scrollTop = scroller.scrollHeight;
  return item;
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy failed";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

function setBusy(item, isBusy) {
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
  list.setAttribute("aria-busy", String(isBusy));
  item?.classList.toggle("busy", isBusy);
  $("status").textContent = isBusy ? "Answering" : "Answer complete";
}

function figures({ startedMs, firstMs, endMs, numTokens, finishReason }) {
  if (firstMs === null) return "no text";
  const seconds = (endMs - firstMs) / 1000;
  const rate = numTokens > 1 && seconds > 0 ? `${((numTokens - 1) / seconds).toFixed(1)} tokens/s · ` : "";
  const ending = { length: " · cut at the token limit", stopped: " · stopped" }[finishReason] ?? "";
  return `${numTokens} tokens · ${rate}first token after ${Math.round(firstMs - startedMs)} ms${ending}`;
}

async function answer() {
  const controller = running = new AbortController();
  const item = addMessage("assistant", "");
  const text = item.querySelector(".text");
  const times = { startedMs: performance.now(), firstMs: null, endMs: 0, numTokens: 0, finishReason: null };
  let answered = "", painted = 0;
  const paint = () => {
    const isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    text.append(answered.slice(painted));
    painted = answered.length;
    if (isAtEnd) scroller.scrollTop = scroller.scrollHeight;
  };
  let frame = 0;
  setBusy(item, true);
  try {
    for await (const chunk of streamAnswer(requestBody(), controller.signal)) {
      if (chunk.usage) times.numTokens = chunk.usage.completion_tokens;
      const choice = chunk.choices[0];
      if (choice?.finish_reason) times.finishReason = choice.finish_reason;
      if (!choice?.delta.content) continue;
      times.firstMs ??= performance.now();
      times.endMs = performance.now();
      times.numTokens += 1;
      answered += choice.delta.content;
      frame ||= requestAnimationFrame(() => { frame = 0; paint(); });
    }
  } catch (error) {
    if (error.name === "AbortError") times.finishReason = "stopped";
    else addMessage("error", error.message);
  }
  cancelAnimationFrame(frame);
  paint();
  if (answered === "" && times.finishReason === null) item.remove();
  item.querySelector(".figures").textContent = figures(times);
  setBusy(item, false);
  if (running === controller) {
    running = null;
    if (answered) conversation.push({ role: "assistant", content: answered });
  }
  prompt.focus();
}

// --- what the user does
function fitPrompt() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

function newChat() {
  running?.abort();
  running = null;
  conversation = [];
  list.replaceChildren();
  $("welcome").hidden = false;
  prompt.focus();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (!text || running) return;
  prompt.value = "";
  fitPrompt();
  if (conversation.at(-1)?.role === "user") conversation.pop(); // the one before got no answer
  conversation.push({ role: "user", content: text });
  addMessage("user", text);
  answer();
});
prompt.addEventListener("input", fitPrompt);
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !$("settings").open) running.abort();
  if (event.key.toLowerCase() === "o" && event.ctrlKey && event.shiftKey) { event.preventDefault(); newChat(); }
});
$("stop").addEventListener("click", () => running?.abort());
$("new-chat").addEventListener("click", newChat);

// --- which model
async function findModel() {
  try {
    const reply = await (await fetch("/v1/models")).json();
    if (!reply.data) throw new Error(reply.error?.message);
    model = reply.data[0].id;
    $("model").textContent = `${model} · ${reply.data[0].max_model_len} tokens`;
  } catch {
    $("model").textContent = "the model is not ready; trying again…";
    setTimeout(findModel, 2000);
  }
}
findModel();
