"""Pruning: first exactly what would go, then the deed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends
from fastapi.responses import Response

from app.console.access import At, Posted, SignedInRequest, Text, console_router
from app.exceptions import InvalidRequest
from rules_store.errors import PreviewOutdated
from rules_store.operations.curation import PruneOrder, PrunePlan, PrunePolicy
from rules_store.operations.example_curation import ExamplePrunePlan

router = console_router()

MOST_SHOWN = 500
MEANINGS = {
    PrunePolicy.FIFO: "the oldest go",
    PrunePolicy.AGE: "what is older than some days goes",
    PrunePolicy.SIMILARITY: "of rules that say nearly the same, the less learned go",
    PrunePolicy.UTILITY: "the least used go",
}


KINDS = ("rules", "examples")


@dataclass(frozen=True, slots=True)
class PruneForm:
    """What the form sends; nothing of it before the form is filled in."""

    namespace: Text = ""
    kind: Text = KINDS[0]
    policy: Text = ""
    keep: Text = ""
    days: Text = ""

    @property
    def asked(self) -> bool:
        return bool(self.namespace and self.policy)

    @property
    def of_examples(self) -> bool:
        """Whether examples are to go, and not rules."""
        return self.kind == "examples"

    def order(self) -> PruneOrder:
        """Raises `InvalidRequest`."""
        if self.policy not in list(PrunePolicy):
            raise InvalidRequest("There is no such policy", param="policy")
        policy = PrunePolicy(self.policy)
        if self.of_examples and policy is PrunePolicy.SIMILARITY:
            raise InvalidRequest("Examples are pruned by fifo, age or utility", param="policy")
        if policy is PrunePolicy.AGE:
            return PruneOrder(self.namespace, policy, older_than_days=_number("days", self.days))
        return PruneOrder(self.namespace, policy, keep=int(_number("keep", self.keep)))


@router.get("/prune")
async def preview(desk: At, wish: Annotated[PruneForm, Depends()]) -> Response:
    return await _page(desk, wish)


@router.post("/prune")
async def prune(desk: At, form: Posted) -> Response:
    """Retires what the preview showed whose token the form carries, or nothing."""
    names = ("namespace", "kind", "policy", "keep", "days")
    wish = PruneForm(**{name: form.get(name) for name in names})
    token = form.get("token")
    if not token:
        raise InvalidRequest("Look at the preview first", param="token")
    store, change = desk.state.store, desk.change(form.reason)
    prune = store.examples.prune if wish.of_examples else store.curation.prune
    try:
        done = await prune(wish.order(), token=token, change=change)
    except PreviewOutdated:
        desk.problem(f"The {wish.kind} have changed since the preview. Nothing was pruned.")
        return await _page(desk, wish, status=409)
    number = len(done.victims)
    what = "example" if wish.of_examples else "rule"
    return desk.go(
        f"/console/namespaces/{wish.namespace}",
        f"{number} {what} was retired." if number == 1 else f"{number} {what}s were retired.",
    )


async def _page(desk: SignedInRequest, wish: PruneForm, *, status: int = 200) -> Response:
    store = desk.state.store
    plan: PrunePlan | ExamplePrunePlan | None = None
    if wish.asked:
        look = store.examples.plan_prune if wish.of_examples else store.curation.plan_prune
        try:
            plan = await look(wish.order())
        except InvalidRequest as error:
            desk.problem(error.message)
            status = error.status
    shown: dict[str, Any] = asdict(wish)
    return desk.page(
        "prune.html",
        status=status,
        wish=shown,
        plan=plan,
        listed=plan.victims[:MOST_SHOWN] if plan else (),
        namespaces=await desk.namespaces(),
        policies=MEANINGS,
        kinds=KINDS,
    )


def _number(name: str, text: str) -> float:
    """Raises `InvalidRequest`."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        what = "how many to keep" if name == "keep" else "after how many days"
        raise InvalidRequest(f"Say {what}, as a whole number", param=name)
    return int(text)
