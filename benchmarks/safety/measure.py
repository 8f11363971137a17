"""Drives cases through a running gateway and says what became of the rules."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from app.loop.admission.pipeline import findings
from benchmarks.model_server import Obedient
from benchmarks.safety.cases import Case
from rules_store.models.rules import Polarity

SETTLED = ("learned", "skipped", "failed")
_PATIENCE = 60.0
_INDEX_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CorpusResult:
    """What became of one wanted rule."""

    case: Case
    polarity: str
    text: str
    state: str
    """State in the store; `absent` where no rule was stored."""
    reason: str
    """Name of the check that put it into quarantine."""
    shown: bool
    """Whether it stood in the prompt of the next request like the one that taught it."""
    by_wording: bool
    """Whether a check objects to the text alone, without what it was learned from."""

    @property
    def active(self) -> bool:
        return self.state == "active"


class Driver:
    """One gateway. Raises RuntimeError where a case does not run as scripted."""

    def __init__(
        self, url: str, upstream: Obedient, *, admin_key: str, client_key: str | None = None
    ) -> None:
        self._upstream = upstream
        self._http = httpx.Client(base_url=url, timeout=_PATIENCE)
        self._admin = {"Authorization": f"Bearer {admin_key}"}
        self._client = {"Authorization": f"Bearer {client_key}"} if client_key else {}

    def run(
        self, cases: Iterable[Case], progress: Callable[[Case], None] = lambda case: None
    ) -> list[CorpusResult]:
        outcomes = []
        for case in cases:
            outcomes += self._outcomes(case)
            progress(case)
        return outcomes

    def close(self) -> None:
        self._http.close()

    def _outcomes(self, case: Case) -> list[CorpusResult]:
        namespace = f"safety-{case.id}"
        self._upstream.obey(case.wants)
        episode = self._chat(case, namespace, "explore")
        self._settle(case, episode)
        stored = {(rule["polarity"], _flat(rule["text"])): rule for rule in self._rules(namespace)}
        prompt = self._prompt(case, namespace, stored.values())
        # What the sender says is in the prompt anyway; only what comes on top was injected.
        own = _flat("\n".join(str(message["content"]) for message in case.messages))
        outcomes = []
        for polarity, text in case.wants.items():
            # The distiller's lead-in and list marks are taken off when it is read.
            rule = stored.get((polarity, _flat(text))) or next(
                (r for (kind, _), r in stored.items() if kind == polarity), None
            )
            kept = _flat(rule["text"]) if rule else _flat(text)
            outcomes.append(
                CorpusResult(
                    case,
                    polarity,
                    text,
                    state=rule["state"] if rule else "absent",
                    reason=(rule["reason"] or "").partition(":")[0] if rule else "",
                    shown=prompt.count(kept) > own.count(kept),
                    by_wording=bool(findings(text, polarity=Polarity(polarity))),
                )
            )
        return outcomes

    def _prompt(self, case: Case, namespace: str, rules: Iterable[dict[str, Any]]) -> str:
        """The prompt of the next request like it. The index takes up a rule just after the commit
        that the admin API shows, so an active rule is given a moment to appear."""
        active = [_flat(rule["text"]) for rule in rules if rule["state"] == "active"]
        deadline = time.monotonic() + _INDEX_SECONDS
        while True:
            self._chat(case, namespace, "steer")
            prompt = _flat(self._upstream.prompt)
            if all(text in prompt for text in active) or time.monotonic() > deadline:
                return prompt
            time.sleep(0.05)

    def _chat(self, case: Case, namespace: str, mode: str) -> str:
        selected = {"mode": mode, "namespace": namespace, "task": "closed"}
        response = self._http.post(
            "/v1/chat/completions",
            headers=self._client,
            json={
                "model": Obedient.model,
                "messages": list(case.messages),
                "ttcl": {**selected, "learn": mode == "explore"},
            },
        )
        if response.status_code != 200:
            raise RuntimeError(f"{case.id}: {response.status_code} {response.text[:300]}")
        return response.headers["X-TTCL-Episode"]

    def _settle(self, case: Case, episode: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = self._get(f"/episodes/{episode}")
            if found["status"] in SETTLED:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{case.id}: the episode is still {found['status']}")
            time.sleep(0.01)
        if found["status"] == "failed" or not self._upstream.distiller_prompt:
            raise RuntimeError(f"{case.id}: nothing was distilled ({found['reason']})")

    def _rules(self, namespace: str) -> list[dict[str, Any]]:
        return list(self._get(f"/rules?namespace={namespace}")["data"])

    def _get(self, path: str) -> dict[str, Any]:
        response = self._http.get(f"/admin/v1{path}", headers=self._admin)
        if response.status_code != 200:
            raise RuntimeError(f"{path}: {response.status_code} {response.text[:300]}")
        return dict(response.json())


def _flat(text: str) -> str:
    return " ".join(text.split())


def summary(outcomes: Sequence[CorpusResult]) -> dict[str, Any]:
    """Counts of wanted rules: all, active, shown in a prompt, refused for the text alone; by kind;
    and each one that became active."""
    kinds = dict.fromkeys(outcome.case.kind for outcome in outcomes)
    return {
        **_counts(outcomes),
        "kinds": {kind: _counts([o for o in outcomes if o.case.kind == kind]) for kind in kinds},
        "active_rules": [
            {"id": o.case.id, "polarity": o.polarity, "text": o.text, "shown": o.shown}
            for o in outcomes
            if o.active
        ],
    }


def _counts(outcomes: Sequence[CorpusResult]) -> dict[str, Any]:
    active = sum(outcome.active for outcome in outcomes)
    return {
        "rules": len(outcomes),
        "active": active,
        "share_active": round(active / len(outcomes), 4) if outcomes else 0.0,
        "shown": sum(outcome.shown for outcome in outcomes),
        "refused_by_wording": sum(outcome.by_wording for outcome in outcomes),
        "reasons": dict(Counter(o.reason or o.state for o in outcomes if not o.active)),
    }
