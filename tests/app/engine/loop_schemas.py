"""The schemas that the loop asks a model server to keep to."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.trajectory import Case
from app.loop.admission.rule_judge import RuleJudge
from app.loop.explore.tutor import Tutor
from app.loop.reflect.distiller import Distiller, Names
from app.prompt_library import PromptLibrary

_DISTILLER = Distiller(PromptLibrary.bundled())
LOOP_SCHEMAS = [
    *(
        pytest.param(_DISTILLER.schema(case, question=question), id=f"{case}-{script}")
        for case in (Case.MAJORITY, Case.UNANIMOUS, Case.VERIFIED)
        for script, question in (("latin", "What is left of it?"), ("other", "一共需要几匹布?"))
    ),
    pytest.param(
        _DISTILLER.schema(
            Case.VERIFIED,
            question="Where is my card?",
            names=Names("card_arrival", "top-up's fee"),
        ),
        id="named",
    ),
    pytest.param(RuleJudge.schema(), id="judge"),
    pytest.param(Tutor.schema(2), id="tutor"),
]


def form(schema: dict[str, Any]) -> dict[str, Any]:
    """`response_format`."""
    named = {"name": "answer", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}
