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
once();
