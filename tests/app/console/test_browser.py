"""The console in a real Chromium: what people do with it, and an accessibility check of each page.

Skipped where no Chromium is found; with REQUIRE_BROWSER=1 that is a failure.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.app.console.world import CLINIC, EVIL, SHOP, World
from tests.gateway import ADMIN_KEY, Gateway
from tests.required import lacking

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 900), (390, 844)
RULE = "Count the days of both ends when a span of dates is given."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        lacking("REQUIRE_BROWSER", "there is no Chromium (make browser)")
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def cookies(browser: Browser, site: Gateway) -> list[dict[str, object]]:
    """Of one log-in, as a person does it."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/console/rules")
    page.get_by_label("Your name").fill("grace")
    page.get_by_label("Admin key").fill(ADMIN_KEY)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Rules", exact=True)).to_be_visible()
    found = [dict(cookie) for cookie in context.cookies()]
    context.close()
    return found


@pytest.fixture
def context(
    browser: Browser,
    site: Gateway,
    cookies: list[dict[str, object]],
    request: pytest.FixtureRequest,
) -> Iterator[BrowserContext]:
    width, height = getattr(request, "param", DESKTOP)
    fresh = browser.new_context(
        base_url=f"{site.url}/console/", viewport={"width": width, "height": height}
    )
    fresh.set_default_timeout(15_000)
    fresh.add_cookies(cookies)  # type: ignore[arg-type]
    yield fresh
    fresh.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Fails the test where the page's script or its security policy complained."""
    complaints: list[str] = []
    one = context.new_page()
    one.on("pageerror", lambda error: complaints.append(str(error)))
    one.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "409" not in message.text
            else None
        ),
    )
    yield one
    assert complaints == []


def act(summary: Locator, reason: str) -> None:
    """Opens an action, says why, and sends it with the keyboard."""
    summary.click()
    page = summary.page
    expect(page.locator("details[open]").get_by_label("Reason")).to_be_focused()
    page.keyboard.type(reason)
    page.keyboard.press("Enter")


# -- what people do -----------------------------------------------------------------------------


def test_the_wrong_key_is_told_and_the_right_one_opens(browser: Browser, site: Gateway) -> None:
    context = browser.new_context(extra_http_headers={"X-Forwarded-For": "203.0.113.200"})
    page = context.new_page()
    page.goto(f"{site.url}/console/jobs")
    page.get_by_label("Admin key").fill("guess")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not the admin key")
    page.get_by_label("Admin key").fill(ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert page.evaluate("document.cookie") == ""  # for the server only
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Admin key")).to_be_visible()
    page.goto(f"{site.url}/console/jobs")
    expect(page.get_by_label("Admin key")).to_be_visible()
    context.close()


def test_search_answers_while_one_types(page: Page, world: World) -> None:
    page.goto("rules")
    page.keyboard.press("/")
    search = page.get_by_label("Search")
    expect(search).to_be_focused()
    page.keyboard.type("clock times")
    expect(page.get_by_role("status")).to_have_text("1 rule")
    expect(page.locator("#results .item")).to_have_count(1)
    expect(page.locator("#results")).to_contain_text("Avoid adding clock times")
    assert page.url.endswith("q=clock+times&sort=newest")
    expect(search).to_be_focused()
    search.fill("")
    page.get_by_label("State").select_option("retired")
    expect(page.locator("#results .item")).to_have_count(1)
    page.reload()
    expect(page.locator("#results .item")).to_have_count(1)


def test_a_rule_is_edited_retired_and_restored(site: Gateway, page: Page, namespace: str) -> None:
    rule = site.add_rule(namespace, RULE, "spans of dates")
    page.goto(f"rules/{rule['id']}")
    page.locator("summary", has_text="Edit").click()
    text = page.get_by_role("textbox", name="Text", exact=True)
    expect(text).to_be_focused()
    text.fill(f"{RULE} Say which days they are.")
    page.locator("details[open]").get_by_label("Reason").fill("clearer")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_have_text("Saved as version 2.")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{RULE} Say which days they are.")
    expect(page.locator(".history mark.plus").first).to_contain_text("Say which days")

    act(page.locator("summary", has_text="Retire"), "not needed")
    expect(page.get_by_role("status")).to_contain_text("Retired")

    act(page.locator("section.actions summary", has_text="Restore"), "needed after all")
    expect(page.get_by_role("status")).to_have_text("Restored as version 4.")

    act(page.locator("summary", has_text="Restore version 1"), "was shorter")
    expect(page.get_by_role("heading", level=1)).to_have_text(RULE)
    history = site.admin("GET", f"/rules/{rule['id']}").json()["history"]
    assert [(e["kind"], e["actor"], e["reason"]) for e in history[1:]] == [
        ("rule.patched", "grace", "clearer"),
        ("rule.retired", "grace", "not needed"),
        ("rule.restored", "grace", "needed after all"),
        ("rule.restored", "grace", "was shorter"),
    ]


def test_of_two_editors_the_second_is_told(site: Gateway, page: Page, namespace: str) -> None:
    rule = site.add_rule(namespace, RULE, "")
    page.goto(f"rules/{rule['id']}")
    page.locator("summary", has_text="Edit").click()
    site.admin("PATCH", f"/rules/{rule['id']}", json={"text": "Theirs.", "actor": "bob"})
    page.get_by_role("textbox", name="Text", exact=True).fill("Mine.")
    page.locator("details[open]").get_by_label("Reason").fill("r")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("version 2")
    expect(page.get_by_role("heading", level=1)).to_have_text("Theirs.")
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value("Mine.")


def test_pruning_shows_what_goes_before_it_goes(site: Gateway, page: Page, namespace: str) -> None:
    for number in range(4):
        site.add_rule(namespace, f"Rule number {number}.", "")
    page.goto("prune")
    page.get_by_label("Namespace").select_option(namespace)
    page.get_by_label("Policy").select_option("age")
    expect(page.get_by_label("How many stay active")).to_be_hidden()
    page.get_by_label("Policy").select_option("fifo")
    page.get_by_label("How many stay active").fill("1")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("status")).to_have_text("3 of 4 active rules go, 1 stays.")
    listed = page.locator(".going .text").all_inner_texts()
    assert listed == [f"Rule number {number}." for number in range(3)]
    assert all(rule["state"] == "active" for rule in site.rules(namespace))
    page.get_by_label("Reason").fill("too many")
    page.get_by_role("button", name="Retire 3 rules").click()
    expect(page.get_by_role("status")).to_have_text("3 rules were retired.")
    gone = [rule["text"] for rule in site.rules(namespace) if rule["state"] == "retired"]
    assert sorted(gone) == listed


def test_a_rule_is_released_from_quarantine(site: Gateway, page: Page, namespace: str) -> None:
    body = {"namespace": namespace, "polarity": "positive", "text": RULE, "state": "quarantined"}
    rule = site.admin("POST", "/rules", json=body).json()
    page.goto("quarantine")
    page.get_by_label("Namespace").select_option(namespace)
    expect(page.locator("#results .item")).to_have_count(1)
    page.locator("summary", has_text="Release").click()
    page.locator("details[open]").get_by_label("Reason").fill("harmless")
    page.locator("details[open]").get_by_role("button", name="Release").click()
    expect(page.get_by_role("status").first).to_contain_text("Released")
    assert site.admin("GET", f"/rules/{rule['id']}").json()["state"] == "active"


def test_of_contradicting_examples_one_is_kept(site: Gateway, page: Page, namespace: str) -> None:
    ids = []
    for answer in ("refund", "charged_twice"):
        body = {"namespace": namespace, "question": "Charged twice?", "answer": answer}
        made = site.admin("POST", "/examples", json={**body, "label": answer}).json()
        ids.append(made["id"])
    page.goto("conflicts")
    page.get_by_label("Namespace").select_option(namespace)
    expect(page.get_by_role("status")).to_have_text("1 conflict")
    act(page.locator("summary", has_text="charged_twice"), "the handbook says so")
    expect(page.get_by_role("status").first).to_contain_text("Settled")
    states = [site.admin("GET", f"/examples/{id}").json()["state"] for id in ids]
    assert states == ["retired", "active"]


def test_an_example_is_added_and_found(site: Gateway, page: Page, namespace: str) -> None:
    site.admin("POST", "/namespaces", json={"name": namespace})
    page.goto(f"examples?namespace={namespace}")
    page.locator("summary", has_text="Add an example").click()
    form = page.locator("details[open]")
    form.get_by_label("Question").fill("Where is my card?\nIt was sent in May.")
    form.get_by_label("Answer").fill("card_arrival")
    form.get_by_label("Reason").fill("from the handbook")
    form.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_have_text("It is recalled from now on.")
    expect(page.get_by_role("group", name="Question")).to_have_text(
        "Where is my card?\nIt was sent in May."
    )
    page.goto("examples")
    page.keyboard.press("/")
    page.keyboard.type("sent in may")
    expect(page.get_by_role("status")).to_have_text("1 example")


def test_rows_are_chosen_and_retired_together(site: Gateway, page: Page, namespace: str) -> None:
    for number in range(3):
        site.add_rule(namespace, f"Rule number {number}.", "")
    page.goto(f"rules?namespace={namespace}")
    bar = page.get_by_role("group", name="chosen")
    expect(bar).to_be_hidden()
    page.get_by_label("Choose “Rule number 1.”").focus()
    page.keyboard.press("Space")
    expect(bar).to_contain_text("1 chosen")
    page.get_by_label("Choose all rows").check()
    expect(bar).to_contain_text("3 chosen")
    page.get_by_label("Choose “Rule number 0.”").uncheck()
    bar.get_by_label("Reason").fill("not needed")
    bar.get_by_role("button", name="Retire").click()
    expect(page.get_by_role("status").first).to_have_text("2 rules were retired.")
    states = {rule["text"]: rule["state"] for rule in site.rules(namespace)}
    assert [states[f"Rule number {number}."] for number in range(3)] == [
        "active",
        "retired",
        "retired",
    ]


def test_both_answers_come_without_leaving_the_page_and_one_is_taught(
    site: Gateway, page: Page, world: World, namespace: str
) -> None:
    site.add_rule(namespace, "Name the capital before its country.", "")
    page.goto(f"playground?namespace={namespace}")
    page.get_by_label("Question").fill("Name the capital of France before its country.")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Ask twice").press("Enter")
    expect(page.get_by_role("article", name="With experience")).to_contain_text("answer")
    expect(page.get_by_role("article", name="The model alone")).to_contain_text("answer")
    expect(page.get_by_role("heading", name="What it was given")).to_be_visible()
    expect(page.locator("#result .list")).to_contain_text("Name the capital before its country.")
    assert "episode=ep_" in page.url
    page.locator("summary", has_text="What the model was sent").click()
    expect(page.locator("#result mark.plus").first).to_contain_text("Name the capital")
    assert serious(page) == []
    page.locator("summary", has_text="Teach it the right answer").click()
    page.get_by_label("In short").fill("Paris")
    page.get_by_role("button", name="Teach", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("kept as an example")
    (made,) = site.admin("GET", "/examples", params={"namespace": namespace}).json()["data"]
    assert made["label"] == "Paris"


def test_a_rules_text_never_becomes_code(page: Page, world: World) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"rules/{world.script}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(EVIL)
    page.goto("rules")
    page.get_by_label("Search").fill("dose in mg")  # the answer is put in by our script
    expect(page.locator("#results .item")).to_have_count(1)
    expect(page.locator("#results")).to_contain_text(EVIL)
    assert page.locator("#results script, #results img").count() == 0
    assert (page.title(), dialogs) == ("Rules \N{MIDDLE DOT} ttcl", [])


def test_it_works_without_script(
    browser: Browser, site: Gateway, cookies: list[dict[str, object]], world: World
) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=f"{site.url}/console/")
    context.add_cookies(cookies)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto("rules")
    page.get_by_label("Search").fill("clock times")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#results .item")).to_have_count(1)
    page.goto(f"rules/{world.learned}")
    page.locator("summary", has_text="Edit").click()
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_be_visible()
    context.close()


@pytest.mark.parametrize("context", [PHONE], indirect=True)
def test_a_phone_gets_a_menu_and_no_sideways_scrolling(page: Page, world: World) -> None:
    page.goto("")
    nav = page.get_by_role("link", name="Episodes", exact=True)
    expect(nav).to_be_hidden()
    menu = page.get_by_role("button", name="Menu")
    menu.click()
    expect(menu).to_have_attribute("aria-expanded", "true")
    expect(nav).to_be_visible()
    page.keyboard.press("Escape")
    expect(nav).to_be_hidden()
    for path in paths(world):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], path


def test_the_keyboard_alone_is_enough(page: Page, world: World) -> None:
    page.goto("rules")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search")).to_be_focused()
    page.goto(f"rules/{world.learned}")
    page.locator("summary", has_text="Retire").focus()
    page.keyboard.press("Enter")
    expect(page.locator("details[open]").get_by_label("Reason")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("summary", has_text="Retire")).to_be_focused()
    expect(page.locator("section.actions details[open]")).to_have_count(0)


# -- accessibility ------------------------------------------------------------------------------


def paths(world: World) -> list[str]:
    return [
        "",
        "rules",
        f"rules/{world.learned}",
        f"rules/{world.edited}",
        f"rules/{world.held}",
        f"rules/{world.retired}",
        "examples",
        f"examples/{world.example}",
        "conflicts",
        "quarantine",
        "episodes",
        f"episodes/{world.episode}",
        "namespaces",
        f"namespaces/{SHOP}",
        f"namespaces/{SHOP}/rollback?event=2",
        "jobs",
        f"prune?namespace={SHOP}&policy=utility&keep=2",
        f"prune?namespace={CLINIC}&kind=examples&policy=utility&keep=1",
        "explain",
        "effect",
        f"effect/{SHOP}",
        "playground",
        "keys",
        "events",
        "settings",
        f"namespaces/{SHOP}/settings",
        "transfer",
    ]


def serious(page: Page) -> list[str]:
    """Violations that axe calls serious or critical, with the elements."""
    response = Axe().run(page).response
    return [
        f"{found['id']}: {node['html']}"
        for found in response["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


@pytest.mark.parametrize(
    ("context", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], indirect=["context"]
)
def test_every_page_is_accessible(page: Page, world: World, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for path in paths(world):
        page.goto(path)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert serious(page) == [], path


def test_the_log_in_and_an_explanation_are_accessible(
    browser: Browser, site: Gateway, page: Page, world: World
) -> None:
    context = browser.new_context()
    door = context.new_page()
    door.goto(f"{site.url}/console/login")
    assert serious(door) == []
    context.close()
    page.goto("explain")
    page.get_by_label("Namespace").select_option(SHOP)
    page.get_by_label("Request").fill("Half as many as an amount of another?")
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_role("heading", name="What the model would be sent")).to_be_visible()
    assert serious(page) == []
