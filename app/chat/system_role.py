"""Where what is added to a client's request stands: in a system message, or, where the model has no
role for those, in the user's turn."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.trajectory import Message
from app.exceptions import UpstreamFailed
from app.upstream.capabilities import SYSTEM_ROLE, Capabilities
from app.upstream.refusals import has_system, refuses_system_role


class SystemRole:
    """Of one request, however often it is asked."""

    def __init__(self, model: Capabilities, messages: Sequence[Message]) -> None:
        """`messages`: the client's own. With a system message among them nothing is moved."""
        self._model = model
        self._theirs = has_system(messages)
        self._known = model.refuses(SYSTEM_ROLE)
        self.folded = self._known and not self._theirs
        """Whether it stands in the user's turn."""

    def fold(self, error: UpstreamFailed) -> bool:
        """Whether the request is to be asked again, with what was added in the user's turn: it may
        be the role that the model refused."""
        if self.folded or self._theirs or not refuses_system_role(error):
            return False
        self.folded = True
        return True

    def taken(self) -> None:
        """The model took the request with what was added. Where that was moved before, it was the
        role that it refused, and nothing that the client had said."""
        if self.folded and not self._known:
            self._model.refuse(SYSTEM_ROLE)
