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
  // The time of the build goes on, and with it the bars of what runs.
  const clock = document.getElementById("clock");
  if (clock) {
    const begin = Number(clock.dataset.begin);
    const total = Math.max((clock.dataset.end ? Number(clock.dataset.end) : now()) - begin, 1);
    all("svg.bar[viewBox]").forEach((bar) => bar.setAttribute("viewBox", `0 0 ${Math.ceil(total)} 10`));
    if (!clock.dataset.end) all("svg.bar rect[data-from]").forEach((part) => part.setAttribute("width", Math.max(total - Number(part.dataset.from), 1)));
  }
};
setInterval(tick, 1000);

// What changes: the server sends elements in place of those with their ids.
const kept = (element) => all("details[id]", element).map((one) => [one.id, one.open]);
const replace = (id, html) => {
  const old = document.getElementById(id);
  if (!old) return;
  const template = document.createElement("template");
  template.innerHTML = html;
  // What is the same stays: somebody may be about to click on it.
  if (template.content.firstElementChild?.isEqualNode(old)) return;
  const focused = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
  const open = kept(old);
  old.replaceWith(template.content);
  open.forEach(([key, is]) => document.getElementById(key) && (document.getElementById(key).open = is));
  if (focused) document.getElementById(id)?.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
};
const apply = {
  replace: ({ id, html }) => replace(id, html),
  append: ({ into, id, html }) => {
    if (!document.getElementById(id)) document.getElementById(into)?.insertAdjacentHTML("beforeend", html);
  },
  class: ({ id, class: names }) => document.getElementById(id)?.setAttribute("class", names),
  lines: ({ id, from, html }) => {
    const list = document.getElementById(id);
    if (!list) return;
    const next = Number(list.dataset.next);
    const fresh = html.slice(Math.max(next - from, 0));
    // What is missing between is sent again when the page connects again.
    if (from > next || fresh.length === 0) return;
    const box = list.closest(".log");
    const atEnd = box && box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    list.insertAdjacentHTML("beforeend", fresh.join(""));
    list.dataset.next = String(next + fresh.length);
    while (list.children.length > MOST_LINES) list.firstElementChild.remove();
    if (atEnd) box.scrollTop = box.scrollHeight;
  },
  end: () => {
    ended = true;
    source?.close();
    source = null;
    document.body.classList.remove("stale");
  },
};

// Lines of one log in the page; a log of any length does not fill the browser.
const MOST_LINES = 20000;
const page = document.querySelector("main[data-live]");
let source = null;
let ended = false;
// The logs that the page shows and that still grow, as STEP:NEXT.
const logs = () => all("ol.lines[data-step]").filter((list) => !list.closest("details:not([open])")).map((list) => `${list.dataset.step}:${list.dataset.next}`);
const address = () => {
  const growing = logs();
  return page.dataset.live + (growing.length ? `&logs=${growing.join(",")}` : "");
};
const follow = () => {
  if (!page || source || ended || document.hidden) return;
  source = new EventSource(address());
  source.onopen = () => document.body.classList.remove("stale");
  source.onmessage = (event) => {
    const message = JSON.parse(event.data);
    ahead = message.now - Date.now();
    message.patches.forEach((patch) => apply[patch.kind]?.(patch));
    tick();
  };
  source.onerror = () => {
    document.body.classList.add("stale");
    // Connect again from where the page is now, and not from where it was loaded.
    restart(3000);
  };
};
let restarting = null;
const restart = (delay) => {
  source?.close();
  source = null;
  clearTimeout(restarting);
  restarting = setTimeout(follow, delay);
};
// A page in the background needs no connection.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else follow();
});
follow();

// A step's log is loaded when it is opened, and more of it when its end comes into view.
const load = async (url, into) => {
  const answer = await fetch(url, { headers: { accept: "text/html" } });
  if (!answer.ok) throw new Error(String(answer.status));
  into.innerHTML = await answer.text();
  watch(into);
};
document.addEventListener(
  "toggle",
  async (event) => {
    const details = event.target;
    if (!details.dataset?.log || !details.open || details.dataset.loaded) return;
    details.dataset.loaded = "yes";
    const box = details.querySelector(".log");
    try {
      await load(`${details.dataset.log}?part=true`, box);
      if (box.querySelector("ol[data-step]")) restart(0);
    } catch {
      // The link to the log is still there.
      delete details.dataset.loaded;
    }
  },
  true,
);
const more = async (link) => {
  if (link.dataset.loading) return;
  link.dataset.loading = "yes";
  const place = link.closest(".more-lines");
  const list = place.previousElementSibling;
  if (list.children.length >= MOST_LINES) return;
  const answer = await fetch(link.dataset.more);
  if (!answer.ok) return;
  const template = document.createElement("template");
  template.innerHTML = await answer.text();
  const fresh = template.content.querySelector("ol.lines");
  list.append(...fresh.children);
  list.dataset.next = fresh.dataset.next;
  const next = template.content.querySelector(".more-lines");
  if (next) {
    place.replaceWith(next);
    watch(list.parentElement);
  } else place.remove();
};
const seen = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => more(entry.target)));
const watch = (within) => all("a[data-more]", within).forEach((link) => seen.observe(link));
watch(document);
