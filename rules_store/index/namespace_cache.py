"""Namespaces as this process knows them: what a request asks of its namespace costs no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rules_store.errors import NamespaceFrozen
from rules_store.models.namespaces import DEFAULTS, Namespace, NamespaceSettings
from rules_store.options import StoreOptions


class NamespaceCache:
    """As of the index's last event."""

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._namespaces: dict[str, Namespace] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._namespaces

    def all(self) -> list[Namespace]:
        """In the order in which this process met them."""
        return list(self._namespaces.values())

    def get(self, name: str) -> Namespace | None:
        """None while this process knows of none."""
        return self._namespaces.get(name)

    def is_frozen(self, name: str) -> bool:
        """An unknown one is not."""
        found = self._namespaces.get(name)
        return found is not None and found.frozen

    def settings_of(self, name: str) -> NamespaceSettings:
        """Of an unknown namespace: nothing set."""
        found = self._namespaces.get(name)
        return DEFAULTS if found is None else found.settings

    def options_of(self, name: str) -> StoreOptions:
        """The store's options with the namespace's own capacities and pruning."""
        own = self.settings_of(name)
        return replace(
            self._options,
            capacity=self._options.capacity if own.capacity is None else own.capacity,
            example_capacity=(
                self._options.example_capacity
                if own.example_capacity is None
                else own.example_capacity
            ),
            example_days=(
                self._options.example_days if own.example_days is None else own.example_days
            ),
            pruning=self._options.pruning if own.pruning is None else own.pruning,
        )

    def check_writable(self, name: str) -> None:
        """Within `StoreContext.change`, where no other writer can freeze it.
        Raises NamespaceFrozen."""
        if self.is_frozen(name):
            raise NamespaceFrozen(name)

    def put(self, namespace: Namespace) -> None:
        """In place of what is known of it."""
        self._namespaces[namespace.name] = namespace

    def update(self, found: Mapping[str, Namespace]) -> None:
        """Puts all of these, by name."""
        self._namespaces.update(found)

    def forget(self, name: str) -> None:
        """Nothing happens where it isn't known."""
        self._namespaces.pop(name, None)
