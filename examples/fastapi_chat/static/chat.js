// A chat: each request has the whole conversation, and its response is server-sent events. No library.

const main = document.querySelector("main");
const form = document.getElementById("form");
const prompt = document.getElementById("prompt");
const list = document.getElementById("messages");
const status = document.getElementById("status");
const stopButton = document.getElementById("stop");
const sendButton = document.getElementById("send");

const MOST_TURNS = 99; // of a request: an odd number, so that the first is the user's, as the last
const STORED = "chat"; // of this tab: a reload keeps the conversation
let turns = JSON.parse(sessionStorage.getItem(STORED) ?? "[]"); // { role, content, tokens, stopped }
let controller = null; // of the request that runs

// ---------------------------------------------------------------------------------------------------------- one reply

/** Generate the reply to the conversation, whose last turn is the user's. */
async function reply() {
  const item = show({ role: "assistant", content: "" });
  const text = item.querySelector(".text");
  controller = new AbortController();
  busy(item, true);
  follow();
  const turn = { role: "assistant", content: "" };
  let failure = null;
  try {
    for await (const event of events(controller.signal)) {
      if (event.kind === "message") {
        turn.content += event.data.text;
        text.firstChild.appendData(event.data.text); // as text: what a model writes is never markup
        follow();
      } else if (event.kind === "complete") {
        turn.tokens = event.data.tokens_used;
        turn.complete = true;
      } else if (event.kind === "failed") {
        failure = { detail: turn.content ? "The rest of the text could not be generated." : event.data.detail };
      }
    }
    if (!turn.complete && !failure) failure = { detail: "The connection was lost." };
    else if (!turn.content.trim()) failure ??= { detail: "The reply is empty." };
  } catch (error) {
    if (controller.signal.aborted) turn.stopped = true;
    else failure = error instanceof Refusal ? error : { detail: "The server cannot be reached." };
  }
  controller = null;
  busy(item, false);
  finish(item, turn, failure);
}

/** The reply ended: keep it if it has text, and say how it ended. */
function finish(item, turn, failure) {
  if (!item.isConnected) return; // of a chat that was replaced by a new one
  if (failure) {
    item.append(failureOf(failure));
    status.textContent = `The reply failed. ${failure.detail}`;
  } else if (turn.stopped && !turn.content) {
    note(item, turn);
    item.append(againButton("Ask again"));
    status.textContent = "Stopped.";
  } else {
    turns.push(turn);
    note(item, turn);
    save();
    status.textContent = turn.stopped ? "Stopped." : "The reply is complete.";
  }
  follow();
  prompt.focus();
}

class Refusal extends Error {
  constructor(detail, seconds) {
    super(detail);
    this.detail = detail;
    this.seconds = seconds;
  }
}

/** Send the conversation, and yield the server-sent events of the response. Throws a Refusal for an error status. */
async function* events(signal) {
  const messages = turns.slice(-MOST_TURNS).map(({ role, content }) => ({ role, content }));
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
  const response = await fetch("/chat", { method: "POST", headers, body: JSON.stringify({ messages }), signal });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    const detail = typeof problem.detail === "string" ? problem.detail : "The message cannot be sent.";
    throw new Refusal(detail, Number(response.headers.get("Retry-After")) || 0);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n"); // the server ends lines with \n
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
      if (fields.data) yield { kind: fields.event ?? "message", data: JSON.parse(fields.data) };
    }
  }
}

// ------------------------------------------------------------------------------------------------------ what is shown

function show(turn) {
  const item = document.createElement("li");
  const mine = turn.role === "user";
  item.className = mine ? "mine" : "reply";
  const speaker = element("span", mine ? "You: " : "Reply: ");
  speaker.className = "visually-hidden";
  const text = element("div");
  text.className = "text";
  text.append(document.createTextNode(turn.content)); // one node, which grows
  item.append(speaker, text);
  list.append(item);
  document.getElementById("empty").hidden = true;
  note(item, turn);
  return item;
}

/** Add the cost, and whether it was stopped. */
function note(item, { tokens, stopped }) {
  const words = [];
  if (stopped) words.push("Stopped");
  if (tokens !== undefined && tokens !== null) words.push(`${tokens.toLocaleString()} tokens`);
  if (!words.length) return;
  const paragraph = element("p", words.join(" · "));
  paragraph.className = "note";
  item.append(paragraph);
}

function failureOf({ detail, seconds }) {
  const box = element("div");
  box.className = "failure";
  const text = element("p", detail);
  const again = againButton("Try again");
  box.append(text, again);
  if (seconds) {
    // The API said when: before that, another request would only fail again.
    again.disabled = true;
    const until = Date.now() + seconds * 1000;
    const timer = setInterval(() => tick(), 500);
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      again.disabled = left > 0;
      again.textContent = left > 0 ? `Try again in ${duration(left)}` : "Try again";
      if (left <= 0 || !again.isConnected) clearInterval(timer);
    };
    queueMicrotask(tick);
  }
  return box;
}

function againButton(label) {
  const button = element("button", label);
  button.type = "button";
  button.addEventListener("click", () => {
    if (controller) return;
    const item = button.closest("li");
    (item.className === "reply" ? item : button).remove();
    reply();
  });
  return button;
}

function duration(seconds) {
  return seconds < 90 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`;
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function busy(item, is) {
  item.setAttribute("aria-busy", String(is)); // a screen reader waits for the whole reply
  stopButton.hidden = !is;
  sendButton.hidden = is;
  if (is) status.textContent = "The reply is being written.";
}

/** Keep the end in view, unless the reader has scrolled up. */
function follow() {
  if (atEnd) main.scrollTop = main.scrollHeight;
}

let atEnd = true;
main.addEventListener("scroll", () => {
  atEnd = main.scrollHeight - main.scrollTop - main.clientHeight < 40;
});
new ResizeObserver(follow).observe(main); // the keyboard of a phone opens

function save() {
  sessionStorage.setItem(STORED, JSON.stringify(turns));
  const total = turns.reduce((sum, { tokens }) => sum + (tokens ?? 0), 0);
  document.getElementById("total").textContent = total ? `${total.toLocaleString()} tokens` : "";
}

// ------------------------------------------------------------------------------------------------------- what is done

function send() {
  const content = prompt.value.trim();
  if (!content || controller) return;
  // A turn without a reply is not part of the conversation: the new message replaces it.
  if (turns.at(-1)?.role === "user") turns.pop();
  turns.push({ role: "user", content });
  list.querySelectorAll(".failure button, .reply > button").forEach((button) => button.remove());
  save();
  show({ role: "user", content });
  prompt.value = "";
  atEnd = true;
  reply();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener("keydown", (event) => {
  // While an input method composes a character, Enter belongs to it.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") controller?.abort();
});
stopButton.addEventListener("click", () => controller?.abort());
// A browser may keep a page that is left, for "Back", and its requests with it: the generation would go on.
addEventListener("pagehide", () => controller?.abort());
document.getElementById("clear").addEventListener("click", () => {
  controller?.abort();
  turns = [];
  list.replaceChildren();
  document.getElementById("empty").hidden = false;
  status.textContent = "New chat.";
  save();
  prompt.focus();
});

turns.forEach(show);
if (turns.at(-1)?.role === "user") {
  list.lastElementChild.append(againButton("Ask again")); // the page was reloaded before the reply was complete
}
save();
follow();
