"""What a machine may lack, and CI must have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(variable: str, what: str) -> NoReturn:
    """Skips the test, saying `what` is missing; with `variable`=1 in the environment it fails."""
    if os.environ.get(variable) == "1":
        pytest.fail(f"{variable}=1, but {what}")
    pytest.skip(what)
