"""Names to plug-ins, imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from modicum.base.errors import SpecError, UnknownName


class Registry:
    """A table of ``name -> "module:Class"``, extended by the entry points of other packages.

    A name may end in ``:``, as ``peft:`` does: it then stands for a family, and what follows the colon in
    a looked-up name goes to the class's ``family_member`` constructor.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._targets: dict[str, str] | None = None

    @property
    def targets(self) -> dict[str, str]:
        """All names with their targets; built-in names cannot be replaced from outside."""
        if self._targets is None:
            plugins = {e.name: e.value for e in entry_points(group=self.group)}
            self._targets = {**plugins, **self._builtin}
        return self._targets

    def names(self) -> list[str]:
        """All names in the order in which they were registered, built-in ones first."""
        return [*self._builtin, *(n for n in self.targets if n not in self._builtin)]

    def load(self, name: str) -> type[Any]:
        """The class behind a name.

        Raises:
            UnknownName: no such name; the nearest valid one is proposed.
        """
        family = name.partition(":")[0] + ":"
        target = self.targets.get(name) or self.targets.get(family)
        if target is None:
            raise UnknownName(self.kind, name, self.names())
        module, _, attribute = target.partition(":")
        try:
            cls: type[Any] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise SpecError(
                f"{self.kind} {name!r} is registered as {target!r}, which cannot be imported: {error}"
            ) from error
        return cls

    def create(self, name: str, /, **options: Any) -> Any:
        """An instance of the plug-in, with options checked by the plug-in itself."""
        cls = self.load(name)
        head, colon, member = name.partition(":")
        if colon and name not in self.targets:
            return cls.family_member(member, **options)
        return cls(**options)
