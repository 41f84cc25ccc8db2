// What is live on the farm's pages. Without this script they show the same, as it was when they were loaded.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// A link's form sends itself.
all("form[data-submit]").forEach((form) => form.requestSubmit());

// A key that goes to a field, such as `/` to the search.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const field = all("[data-key]").find((one) => one.dataset.key === event.key);
  if (field) {
    event.preventDefault();
    field.focus();
    field.select?.();
  }
});

// A choice in a filter applies at once.
all(".filters select").forEach((select) => select.addEventListener("change", () => select.form.requestSubmit()));

// Times in words, as in words.rs.
const ago = (ms) => {
  const seconds = Math.max(ms, 0) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.floor(Math.max(seconds + 30, 60) / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return seconds < 172800 ? "yesterday" : `${Math.floor(seconds / 86400)} days ago`;
};
const two = (number) => String(Math.floor(number)).padStart(2, "0");
const duration = (ms) => {
  const seconds = Math.floor(ms / 1000);
  if (ms < 1000) return `${Math.max(Math.floor(ms), 0)} ms`;
  if (seconds < 10) return `${(ms / 1000).toFixed(1)} s`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${two((seconds / 60) % 60)} m`;
  return `${Math.floor(seconds / 86400)} d ${two((seconds / 3600) % 24)} h`;
};

// The server's clock, not this machine's: the difference is learned from what the server sends.
let ahead = 0;
const now = () => Date.now() + ahead;
const tick = () => {
  all("time[datetime]").forEach((time) => (time.textContent = ago(now() - Date.parse(time.dateTime))));
  all("[data-since]").forEach((one) => (one.textContent = duration(now() - Number(one.dataset.since))));
};
setInterval(tick, 1000);

// What changes: the server sends elements in place of those with their ids.
const kept = (element) => all("details[id]", element).map((one) => [one.id, one.open]);
const replace = (id, html) => {
  const old = document.getElementById(id);
  if (!old || old.dataset.html === html) return;
  const focused = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
  const open = kept(old);
  const template = document.createElement("template");
  template.innerHTML = html;
  old.replaceWith(template.content);
  open.forEach(([key, is]) => document.getElementById(key) && (document.getElementById(key).open = is));
  if (focused) document.getElementById(id)?.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
};
const apply = { replace: ({ id, html }) => replace(id, html) };

const page = document.querySelector("main[data-live]");
let source = null;
const follow = () => {
  if (!page || source || document.hidden) return;
  source = new EventSource(page.dataset.live);
  source.onopen = () => document.body.classList.remove("stale");
  source.onmessage = (event) => {
    const message = JSON.parse(event.data);
    ahead = message.now - Date.now();
    message.patches.forEach((patch) => apply[patch.kind]?.(patch));
    tick();
  };
  // The browser connects again by itself, unless the answer was a refusal.
  source.onerror = () => {
    document.body.classList.add("stale");
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(follow, 5000);
    }
  };
};
// A page in the background needs no connection.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else follow();
});
follow();
