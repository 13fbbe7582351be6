"""The actors of a runtime: found by name, bound to their instances, started and stopped."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Final

import attrs

from .actors import Actor, ClassActor, Invoke
from .errors import ConfigurationError, DuplicateActor, UnknownActor

logger: Final = logging.getLogger(__name__)

Registrable = Actor[..., Any] | ClassActor[Any] | ModuleType


@attrs.frozen(eq=False)
class Handler:
    """An actor, ready to run."""

    actor: Actor[..., Any]
    invoke: Invoke


class Registry:
    """All that this process can handle.

    Args:
        given: actors.
        more: those of plugins, which are there where there are others.

    Raises:
        ConfigurationError: something that is no actor was given.
        DuplicateActor: two actors have one name.
    """

    def __init__(self, given: Iterable[Registrable], more: Iterable[Registrable] = ()) -> None:
        self.actors: dict[str, Actor[..., Any]] = {}
        self._classes: list[ClassActor[Any]] = []
        self._instances: dict[ClassActor[Any], Any] = {}
        if isinstance(given, Actor | ClassActor | ModuleType) or not isinstance(given, Iterable):
            raise ConfigurationError(f"actors={given!r}: give a list, as in actors=[…]")
        for entry in given:
            self._add(entry)
        for entry in more if self.actors else ():
            self._add(entry)

    def __bool__(self) -> bool:
        return bool(self.actors)

    def get(self, name: str) -> Actor[..., Any]:
        """The actor of that name.

        Raises:
            UnknownActor: there is none here; the message names the nearest.
        """
        try:
            return self.actors[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.actors, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownActor(f"no actor {name!r} is registered here: add it to Runtime(actors=[…]){hint}") from None

    async def start(self) -> dict[str, Handler]:
        """Makes the instances of classes and starts them; returns the handlers by name."""
        for actor in self.actors.values():
            actor.codec.look_up()
        handlers = {}
        for cls in self._classes:
            self._instances[cls] = await cls.start()
        for name, actor in self.actors.items():
            instance = self._instances.get(actor.owner) if actor.owner else None
            handlers[name] = Handler(actor, actor.bind(instance))
        return handlers

    async def stop(self) -> None:
        """Stops the instances, the last one first. What one raises is logged: the others must stop too."""
        while self._instances:
            cls, instance = self._instances.popitem()
            try:
                await cls.stop(instance)
            except Exception:
                logger.exception("%r: stopped() failed", cls)

    def _add(self, entry: object) -> None:
        if isinstance(entry, ModuleType):
            found = [value for value in vars(entry).values() if isinstance(value, Actor | ClassActor)]
            if not found:
                raise ConfigurationError(f"module {entry.__name__} holds no actors: decorate its handlers with @actor")
            for value in found:
                self._add(value)
        elif isinstance(entry, ClassActor):
            if entry not in self._classes:
                self._classes.append(entry)
                for actor in entry.actors.values():
                    self._add(actor)
        elif isinstance(entry, Actor):
            known = self.actors.setdefault(entry.name, entry)
            if known is not entry:
                raise DuplicateActor(
                    f"two actors are named {entry.name!r}: {known.__module__}.{known.__qualname__} and "
                    f"{entry.__module__}.{entry.__qualname__}; give one of them @actor(name=…)"
                )
        else:
            raise ConfigurationError(f"actors= got {entry!r}: give functions or classes with @actor, or their modules")
