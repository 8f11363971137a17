"""Namespaces as this process knows them: what a request asks of its namespace costs no SQL."""

from __future__ import annotations

from dataclasses import replace

from rules_store.errors import NamespaceFrozen
from rules_store.models.namespaces import DEFAULTS, Namespace, NamespaceSettings
from rules_store.options import StoreOptions


class KnownNamespaces:
    """As of the index's last event."""

    def __init__(self, options: StoreOptions) -> None:
        self.options = options
        self._namespaces: dict[str, Namespace] = {}

    def namespace(self, name: str) -> Namespace | None:
        """None while this process knows of none."""
        return self._namespaces.get(name)

    def is_frozen(self, name: str) -> bool:
        found = self._namespaces.get(name)
        return found is not None and found.frozen

    def settings_of(self, name: str) -> NamespaceSettings:
        """Of an unknown namespace: nothing set."""
        found = self._namespaces.get(name)
        return DEFAULTS if found is None else found.settings

    def _room(self, name: str) -> StoreOptions:
        """The options with the namespace's own capacity and pruning."""
        own = self.settings_of(name)
        return replace(
            self.options,
            capacity=self.options.capacity if own.capacity is None else own.capacity,
            pruning=self.options.pruning if own.pruning is None else own.pruning,
        )

    def _check_writable(self, name: str) -> None:
        """Within `_change`, where no other writer can freeze it. Raises NamespaceFrozen."""
        if self.is_frozen(name):
            raise NamespaceFrozen(name)
