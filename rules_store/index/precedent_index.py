"""The explored questions of each namespace in memory: which ones are near a text. A cache of SQL,
like the index of rules; brute force, since no namespace keeps more than some thousands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from statistics import fmean

import numpy as np

from rules_store.models.evidence import IndexedPrecedent, Neighbour
from rules_store.models.rules import Vector

_ENOUGH = 8


class PrecedentIndex:
    """At most `keep` of each namespace, the newest."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._precedents: dict[str, list[IndexedPrecedent]] = {}
        self._stacked: dict[str, np.ndarray] = {}
        self.last_seq = 0

    def add(self, precedents: Iterable[IndexedPrecedent]) -> None:
        """Oldest first."""
        for precedent in precedents:
            own = self._precedents.setdefault(precedent.namespace, [])
            own.append(precedent)
            del own[: -self._keep]
            self._stacked.pop(precedent.namespace, None)
            self.last_seq = max(self.last_seq, precedent.seq)

    def forget(self, namespace: str) -> None:
        """All of this namespace."""
        self._precedents.pop(namespace, None)
        self._stacked.pop(namespace, None)

    def mean_agreement(self, namespace: str) -> float | None:
        """Over the explored questions of a namespace; None while there are fewer than
        `_ENOUGH`."""
        known = [
            precedent.agreement
            for precedent in self._precedents.get(namespace, ())
            if precedent.agreement is not None
        ]
        return fmean(known) if len(known) >= _ENOUGH else None

    def near(
        self,
        namespace: str,
        vectors: Sequence[Vector],
        *,
        floor: float,
        k: int,
        fit: bool = False,
        without: Collection[str] = (),
    ) -> list[Neighbour]:
        """The k nearest to any of the unit vectors, most similar first, of a cosine of at least
        `floor`. `fit`: only those that can be replayed; `without`: not these episodes."""
        precedents = self._precedents.get(namespace)
        if not precedents or not len(vectors):
            return []
        rows = self._stacked.get(namespace)
        if rows is None:
            rows = self._stacked[namespace] = np.stack(
                [precedent.vector for precedent in precedents]
            )
        queries = np.stack([np.asarray(vector, dtype=np.float32) for vector in vectors])
        if queries.shape[1] != rows.shape[1]:
            return []
        cosines = (rows @ queries.T).max(axis=1)
        found: list[Neighbour] = []
        for at in np.argsort(-cosines, kind="stable"):
            if cosines[at] < floor or len(found) == k:
                break
            precedent = precedents[at]
            if (fit and not precedent.fit) or precedent.episode_id in without:
                continue
            found.append(Neighbour(precedent.episode_id, float(cosines[at]), precedent.agreement))
        return found
