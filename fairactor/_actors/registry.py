"""The registry: finds the actors of a runtime by name, and starts and stops the instances of their classes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Final

import attrs

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError, DuplicateActor, UnknownActor

from .actor import (
    Actor,
    Invoke,
    RunInProcess,
    check_hooks,
    check_takes_no_arguments,
    methods_of,
    start_instance,
    stop_instance,
)

logger: Final = logging.getLogger(__name__)

Registrable = Actor[..., Any] | type[Any] | ModuleType | object
"""A value in ``Runtime(actors=[…])``: a function with ``@actor``, an instance or a class with such methods, or a module
that contains functions or classes of these kinds."""


@attrs.frozen(eq=False)
class Handler:
    """An actor that is ready to run."""

    actor: Actor[..., Any]
    invoke: Invoke


class Registry:
    """All actors of a runtime.

    Args:
        given: the user's actors.
        plugin_actors: the plugins' actors, which are added only if the user gives actors.

    Raises:
        ConfigurationError: a value is not an actor, or a class takes arguments.
        DuplicateActor: two actors have the same name.
    """

    def __init__(self, given: Iterable[Registrable], plugin_actors: Iterable[Registrable] = ()) -> None:
        self.actors: dict[str, Actor[..., Any]] = {}
        self._classes: dict[type[Any], Any] = {}  # each with the instance that the user gave, or None
        self._instances: dict[type[Any], Any] = {}
        if isinstance(given, Actor | ModuleType | str) or not isinstance(given, Iterable):
            raise ConfigurationError(f"actors={shown(given)}: give a list, as in actors=[…]")
        for entry in sorted(given, key=_is_not_instance):  # an instance takes the place of its class in a module
            self._add(entry)
        for entry in plugin_actors if self.actors else ():
            self._add(entry)

    def __bool__(self) -> bool:
        return bool(self.actors)

    def get(self, name: str) -> Actor[..., Any]:
        """Returns the actor with this name.

        Raises:
            UnknownActor: it is not registered here; the message suggests the closest name.
        """
        try:
            return self.actors[name]
        except KeyError:
            import difflib

            near = difflib.get_close_matches(name, self.actors, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownActor(
                f"no actor {shown(name)} is registered here: add it to Runtime(actors=[…]){hint}"
            ) from None

    def is_plain(self, name: str) -> bool:
        """Whether an actor is a plain function of this process, which runs in a thread."""
        actor = self.actors.get(name)
        return actor is not None and not actor.process and not inspect.iscoroutinefunction(actor.function)

    async def start(self, run_in_process: RunInProcess | None = None) -> dict[str, Handler]:
        """Makes the instances that the user did not give, starts all instances, and returns the handlers by name.

        Args:
            run_in_process: see `Actor.bind`.
        """
        for actor in self.actors.values():
            actor.codec.look_up()
        for cls, given in self._classes.items():
            instance = cls() if given is None else given
            await start_instance(instance)
            self._instances[cls] = instance
        return {
            name: Handler(actor, actor.bind(self._instances[actor.owner] if actor.owner else None, run_in_process))
            for name, actor in self.actors.items()
        }

    async def stop(self) -> None:
        """Stops the instances, the last one first. If one raises, the error is logged and the others are stopped."""
        while self._instances:
            cls, instance = self._instances.popitem()
            try:
                await stop_instance(instance)
            except Exception:
                logger.exception("%s: stopped() failed", cls.__name__)

    def _add(self, entry: object) -> None:
        if isinstance(entry, ModuleType):
            self._add_module(entry)
        elif isinstance(entry, Actor):
            known = self.actors.setdefault(entry.name, entry)
            if known is not entry:
                raise DuplicateActor(
                    f"two actors are named {entry.name!r}: {known.__module__}.{known.__qualname__} and "
                    f"{entry.__module__}.{entry.__qualname__}; give one of them @actor(name=…)"
                )
        elif inspect.isclass(entry):
            self._add_class(entry, None)
        else:
            self._add_class(type(entry), entry)

    def _add_module(self, module: ModuleType) -> None:
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, Actor) or (inspect.isclass(value) and methods_of(value))
        ]
        if not found:
            raise ConfigurationError(f"module {module.__name__} contains no actors: decorate its handlers with @actor")
        for value in found:
            self._add(value)

    def _add_class(self, cls: type[Any], instance: Any) -> None:
        methods = methods_of(cls)
        if not methods:
            given = shown(cls if instance is None else instance)
            raise ConfigurationError(
                f"actors= got {given}: give functions with @actor, classes or instances whose methods have it, "
                "or their modules"
            )
        if instance is None and cls in self._classes:
            return
        check_hooks(cls if instance is None else instance, cls.__name__)
        if instance is None:
            check_takes_no_arguments(cls)
        if self._classes.setdefault(cls, instance) is not instance:
            raise DuplicateActor(f"two instances of {cls.__name__} are given: a runtime takes only one")
        for actor in methods:
            self._add(actor)


def _is_not_instance(entry: object) -> bool:
    return isinstance(entry, Actor | ModuleType) or inspect.isclass(entry)
