// What makes the pages quicker to use. Without it every form and link still works.
"use strict";

document.documentElement.classList.add("scripted");

function menu() {
  const button = document.querySelector("button.menu");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
  });
}

// A form whose answer replaces one part of the page while one types.
function live(form) {
  const target = document.getElementById(form.dataset.live);
  let timer = 0;
  let running = null;

  async function search() {
    const filled = [...new FormData(form)].filter(([, value]) => value !== "");
    const address = `${form.action}?${new URLSearchParams(filled)}`;
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    target.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(address, { signal, headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById(target.id);
      if (!fresh) {
        // The session is over, or something is wrong: let the whole page say so.
        location.assign(address);
        return;
      }
      // The status line stays the same element, so that its change is read out.
      const status = target.querySelector("[role=status]");
      const found = fresh.querySelector("[role=status]");
      if (status && found && status.textContent !== found.textContent) {
        status.textContent = found.textContent;
      }
      found?.remove();
      target.replaceChildren(...(status ? [status] : []), ...fresh.childNodes);
      history.replaceState(null, "", address);
      target.removeAttribute("aria-busy");
      target.dispatchEvent(new Event("replaced", { bubbles: true }));
    } catch (error) {
      if (error.name !== "AbortError") form.submit();
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    search();
  });
  form.addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(search, event.target.type === "search" ? 180 : 0);
  });
}

// "/" goes to the search field, Escape closes the menu or an opened action.
function keys() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const field = document.querySelector("[data-slash]");
      if (field) {
        event.preventDefault();
        field.focus();
      }
    }
    if (event.key === "Escape") {
      const opened = event.target.closest?.("details[open]");
      if (opened && opened.querySelector(":scope > summary.button")) {
        opened.open = false;
        opened.querySelector("summary").focus();
      }
      const button = document.querySelector("button.menu[aria-expanded=true]");
      if (button) {
        button.setAttribute("aria-expanded", "false");
        button.focus();
      }
    }
  });
}

// An opened action is about to be filled in: its first field gets the focus.
function actions() {
  // On its way down, as it does not bubble; so also in what a live form has put in.
  document.addEventListener(
    "toggle",
    ({ target }) => {
      if (target.open && target.querySelector(":scope > summary.button")) {
        target.querySelector("textarea, input:not([type=hidden])")?.focus();
      }
    },
    true,
  );
}

// The field that the chosen policy has no use for is out of the way.
function policies() {
  const choice = document.querySelector("select[data-policy]");
  if (!choice) return;
  function show() {
    const age = choice.value === "age";
    for (const field of document.querySelectorAll("[data-for]")) {
      field.hidden = (field.dataset.for === "age") !== age;
    }
  }
  choice.addEventListener("change", show);
  show();
}

// What is done with rows is offered once some are chosen. By the document: lists are put in anew.
function rows() {
  function show() {
    for (const form of document.querySelectorAll("form[data-rows]")) {
      const boxes = [...form.querySelectorAll("tbody .pick input")];
      const chosen = boxes.filter((box) => box.checked).length;
      const bar = form.querySelector(".bulk");
      bar.hidden = chosen === 0;
      bar.classList.toggle("over", chosen > 0);
      bar.querySelector("legend").textContent = `${chosen} chosen`;
      const all = form.querySelector("[data-pick-all]");
      all.checked = chosen > 0 && chosen === boxes.length;
      all.indeterminate = chosen > 0 && chosen < boxes.length;
    }
  }
  document.addEventListener("change", ({ target }) => {
    if (target.matches("[data-pick-all]")) {
      for (const box of target.form.querySelectorAll("tbody .pick input")) box.checked = target.checked;
    }
    if (target.closest(".pick")) show();
  });
  document.addEventListener("replaced", show);
  window.addEventListener("pageshow", show);
  show();
}

// A chosen file is read into the field that is sent.
function files() {
  for (const input of document.querySelectorAll("input[data-into]")) {
    input.closest("[hidden]").hidden = false;
    input.addEventListener("change", async () => {
      const [file] = input.files;
      if (file) document.getElementById(input.dataset.into).value = await file.text();
    });
  }
}

// The playground: both answers as they are written.
function ask() {
  const form = document.querySelector("form[data-ask]");
  if (!form) return;
  const result = document.getElementById("result");

  function side(name, kind) {
    const article = document.createElement("article");
    article.className = `side ${kind}`;
    const title = document.createElement("h2");
    title.textContent = name;
    const said = document.createElement("div");
    said.className = "said";
    article.append(title, said);
    return { article, said };
  }

  function tell(text, problem) {
    const line = document.createElement("p");
    line.className = problem ? "notice problem" : "unseen";
    line.setAttribute("role", problem ? "alert" : "status");
    line.textContent = text;
    return line;
  }

  async function* linesOf(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts.filter(Boolean).map((part) => JSON.parse(part));
    }
  }

  async function send(response) {
    const sides = { with: side("With experience", "with"), without: side("The model alone", "without") };
    const both = document.createElement("div");
    both.className = "versus answers";
    both.setAttribute("aria-busy", "true");
    both.append(sides.with.article, sides.without.article);
    result.replaceChildren(tell("Both answers are being written."), both);
    for await (const line of linesOf(response)) {
      if (line.error) {
        result.prepend(tell(line.error, true));
        return;
      }
      if (line.text) sides[line.side].said.append(line.text);
      if (line.episode) {
        const address = `${form.getAttribute("action")}?episode=${line.episode}`;
        const page = await fetch(address, { headers: { Accept: "text/html" } });
        const fresh = new DOMParser().parseFromString(await page.text(), "text/html");
        result.replaceChildren(tell("Both answers are there."), ...fresh.getElementById("result").childNodes);
        history.replaceState(null, "", address);
        return;
      }
    }
    result.prepend(tell("The connection was cut before both answers were there.", true));
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    try {
      const body = new URLSearchParams(new FormData(form));
      const response = await fetch(`${form.getAttribute("action")}/stream`, { method: "POST", body });
      const told = response.headers.get("Content-Type") ?? "";
      if (response.ok && told.startsWith("application/x-ndjson")) await send(response);
      // What is wrong, or that the session is over, a whole page says.
      else form.submit();
    } catch {
      result.prepend(tell("The service can't be reached.", true));
    } finally {
      button.disabled = false;
    }
  });
}

// A form is sent once.
function once() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
}

menu();
document.querySelectorAll("form[data-live]").forEach(live);
keys();
actions();
policies();
rows();
files();
ask();
once();
