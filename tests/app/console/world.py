"""A rule base as an operator meets it: learned, used, edited, held back, retired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.fakes import Reply, ScriptedUpstream, is_distiller, is_structured_step, schema_of
from tests.gateway import MODEL, Gateway

SETTINGS: dict[str, Any] = {"job_attempts": 1}
SHOP = "shop"
CLINIC = "clinic"
EVIL = '<script>document.title="owned"</script><img src=x onerror=alert(1)>'
"""In texts that rules and models bring; must never be anything but text."""

TALES: list[tuple[str, str, str, str, str, str]] = [
    # question, right, wrong, positive, negative, trigger
    (
        "A shop sells 48 pens in April and half as many in May. How many pens in both months?",
        "In April it sells 48 pens. Half of that is 24 pens in May.\n"
        "48 + 24 = 72, so the answer is \\boxed{72}.",
        "In April it sells 48 pens. Half as many would be 96 pens in May.\n"
        "48 + 96 = 144, so the answer is \\boxed{144}.",
        "Translate 'half as many' into a division by two before adding.",
        "Avoid doubling where the text speaks of half of an amount.",
        "a quantity is given as a fraction of another",
    ),
    (
        "Tickets cost 12 dollars, children pay a third less. What do two adults and a child pay?",
        "A third of 12 is 4, so a child pays 8. Two adults pay 24.\n24 + 8 = \\boxed{32}",
        "A third of 12 is 4, so a child pays 4. Two adults pay 24.\n24 + 4 = \\boxed{28}",
        "Subtract the discount from the price; do not take the discount for the price.",
        "Avoid reporting the size of a reduction as the reduced value.",
        "prices with a discount",
    ),
    (
        "A train leaves at 9:40 and needs 2 h 35 min. When does it arrive?",
        "9:40 plus two hours is 11:40. Another 35 minutes make 12:15, so \\boxed{12:15}.",
        "9:40 plus 2:35 is 11:75, so it arrives at \\boxed{11:75}.",
        "Carry minutes above sixty into the hours when times are added.",
        "Avoid adding clock times as if they were decimal numbers.",
        "adding a duration to a clock time",
    ),
    (
        "Eight boxes hold seven eggs each. How many eggs are there?",
        "Eight times seven is \\boxed{56}.",
        "Eight times seven is \\boxed{54}.",
        "The answer to a question about eggs is \\boxed{56}.",
        "Avoid guessing a product that can be counted.",
        "multiplying equal groups",
    ),
]

LOST = (
    "A bus has 31 seats, 17 are taken. How many are free?",
    "31 - 17 = 14, so \\boxed{14} are free.",
    "31 - 17 = 24, so \\boxed{24} are free.",
    "",
    "",
    "",
)
"""What could not be learned from: its job failed."""


@dataclass(frozen=True)
class World:
    learned: str
    """Id of a rule with an episode behind it."""
    script: str
    """Id of a rule whose text is EVIL."""
    held: str
    """Id of a rule in quarantine."""
    retired: str
    edited: str
    episode: str
    example: str
    """Id of an example that another one contradicts."""


def furnish(gw: Gateway, up: ScriptedUpstream) -> World:
    """For a gateway with `SETTINGS`."""
    for tale in TALES:
        _script(up, tale)
    explored = [_ask(gw, question, "explore") for question, *_ in TALES]
    for episode in explored:
        assert gw.settled(episode)["status"] == "learned"
    for question, *_ in TALES[:3] * 2:
        _ask(gw, question, "steer", learn=False)
    refusal = Reply.error(403, "the distiller's model is gone")
    _script(up, LOST, distilled=refusal, further=refusal)
    lost = _ask(gw, LOST[0], "explore")
    settled = gw.settled(lost)
    assert settled["status"] == "failed", settled
    rules = {rule["text"]: rule for rule in gw.rules(SHOP)}
    edited = rules[TALES[0][3]]["id"]
    _change(
        gw,
        f"/rules/{edited}",
        method="PATCH",
        text="Translate 'half as many' into a division by two, then add both amounts.",
        reason="say what follows the division",
    )
    retired = rules[TALES[1][4]]["id"]
    _change(gw, f"/rules/{retired}/retire", reason="repeats what its positive rule says")
    held = next(rule["id"] for rule in rules.values() if rule["state"] == "quarantined")
    script = _rule(gw, CLINIC, f"Ask for the dose in mg. {EVIL}", trigger=f"doses {EVIL}")
    for text in CLINIC_RULES:
        _rule(gw, CLINIC, text, trigger="advice on medicines")
    for answer in ("Up to 4 g a day.", "Up to 3 g a day.", EVIL):
        example = _example(gw, "How much paracetamol may I take a day?", answer)
    _example(gw, "Write to ann@example.com about my dose", "Done.")
    learned = rules[TALES[2][3]]["id"]
    return World(learned, script, held, retired, edited, explored[2], example)


CLINIC_RULES = (
    "Name the unit with every dose and every interval.",
    "Ask for age and weight before a dose for a child is given.",
    "Say when a doctor has to be seen at once.",
    "Repeat the allergy that was named before a medicine is proposed.",
)


def _script(
    up: ScriptedUpstream,
    tale: tuple[str, ...],
    *,
    distilled: Reply | None = None,
    further: Reply | None = None,
) -> None:
    """`further`: what comes once the Teacher and three Students have answered."""
    question, right, wrong, positive, negative, trigger = tale
    fields = {"positive": positive, "negative": negative, "trigger": trigger}

    def distil(body: dict[str, Any]) -> Reply:
        if distilled is not None:
            return distilled
        wanted = (schema_of(body) or {})["properties"]
        return Reply.of_json({name: fields.get(name) for name in wanted})

    def spoken(body: dict[str, Any]) -> str:
        return str(body["messages"])

    up.when(lambda b: is_distiller(b) and question[:30] in spoken(b), distil)
    students = [Reply(right), Reply(wrong), Reply(right)]
    answers = iter([Reply(right), *students])
    up.when(
        lambda b: not is_structured_step(b) and question[:30] in spoken(b),
        lambda body: next(answers, further or Reply(right)),
    )


def _ask(gw: Gateway, question: str, mode: str, **options: Any) -> str:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "ttcl": {"mode": mode, "namespace": SHOP, **options},
    }
    url = f"{gw.base_url}/chat/completions"
    response = httpx.post(url, json=body, headers=gw.headers, timeout=30)
    assert response.status_code == 200, response.text
    return response.headers["x-ttcl-episode"]


def _change(gw: Gateway, path: str, *, method: str = "POST", **body: Any) -> dict[str, Any]:
    response = gw.admin(method, path, json={"actor": "ada", **body})
    assert response.status_code in (200, 201), response.text
    return dict(response.json())


def _rule(gw: Gateway, namespace: str, text: str, **more: Any) -> str:
    body = {"namespace": namespace, "polarity": "positive", "text": text, **more}
    return str(_change(gw, "/rules", **body)["id"])


def _example(gw: Gateway, question: str, answer: str) -> str:
    body = {"namespace": CLINIC, "question": question, "answer": answer, "label": answer}
    return str(_change(gw, "/examples", **body)["id"])
