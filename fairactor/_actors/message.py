"""A message: one call to an actor that has not been sent yet, with its options."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, Unpack, overload

import attrs

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError

from .codec import Codec
from .graph import Graph, Operand, Step
from .options import Options, TaskOptions, parse_options
from .plugin_options import OptionValue, apply_operator

S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)
_SHOWN: Final = 100  # characters of a message's repr


class Target(Protocol[R_co]):
    """The part of an actor that its messages use."""

    @property
    def name(self) -> str:
        """The name under which runtimes register the actor."""
        ...

    def route(self, options: Options) -> str:
        """Returns where a message with these options can run."""
        ...

    @property
    def codec(self) -> Codec:
        """The codec that encodes the arguments."""
        ...

    def run_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Awaitable[R_co]:
        """Runs the handler in this process."""
        ...


@attrs.define(eq=False, repr=False)
class Message(Step[R_co]):
    """One call to an actor. Send it with a runtime, or await it to run the handler here, without a server."""

    actor: Target[R_co]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    task_options: Options

    def __repr__(self) -> str:
        arguments = [*map(shown, self.args), *(f"{name}={shown(value)}" for name, value in self.kwargs.items())]
        text = f"{self.actor.name}({', '.join(arguments)})"
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…)"

    @staticmethod
    def for_actor(name: str, /, *args: Any, **kwargs: Any) -> Message[Any]:
        """Makes a message for an actor of which only the name is known, because its code is in another service.

        The arguments are checked when the task runs. What ``@actor`` says of attempts, such as ``max_retries=`` and
        ``timeout=``, holds there too. What decides how the task is sent is not known here: give its ``queue=``,
        ``priority=``, ``limits=``, ``key=`` and the like with `options`.

        Args:
            name: the name under which runtimes register the actor: that of its function, unless ``name=`` says another.
            args: the positional arguments.
            kwargs: the keyword arguments.

        Raises:
            ConfigurationError: the name cannot be that of an actor.
        """
        from .named import NamedActor

        return Message(NamedActor(name), args, kwargs, Options())

    def options(self, *values: OptionValue, **options: Unpack[TaskOptions]) -> Message[R_co]:
        """Returns a copy in which these options are changed.

        Args:
            values: options of plugins that do not ship with fairactor, see `fairactor.plugins.Option`.
            options: see `Options`.

        Raises:
            ConfigurationError: an option is unknown or invalid.
        """
        return attrs.evolve(self, task_options=parse_options(options, values).over(self.task_options))

    def rewritten(
        self,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - as in options
        plugin_options: Mapping[str, Any] | None = None,
        script_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Message[R_co]:
        """Returns a changed copy without checks, for plugins that send many messages. It is faster than `options`.

        Args:
            args: replaces all positional arguments.
            kwargs: replaces all keyword arguments.
            id: replaces the id.
            plugin_options: further options of plugins, in JSON types.
            script_options: further options for plugins' scripts, by plugin.
        """
        options = self.task_options
        changed: dict[str, Any] = {}
        if id is not None:
            changed["id"] = id
        if plugin_options:
            changed["plugin_options"] = {**options.plugin_options, **plugin_options}
            changed["travelling"] = {**options.travelling, **plugin_options}
        if script_options:
            changed["script_options"] = {**options.script_options, **script_options}
        return Message(
            self.actor,
            self.args if args is None else args,
            self.kwargs if kwargs is None else kwargs,
            options.copied(**changed) if changed else options,
        )

    @overload
    def __rshift__(self, other: Step[S]) -> Graph[S]: ...
    @overload
    def __rshift__(self, other: Operand) -> Graph: ...
    def __rshift__(self, other: Any) -> Any:
        """Returns a graph in which the other operand runs after this message."""
        return apply_operator(">>", self, other)

    def __lshift__(self, other: Operand) -> Graph[R_co]:
        """Returns a graph in which this message runs after the other operand."""
        graph: Graph[R_co] = apply_operator("<<", self, other)
        return graph

    @overload
    def __or__(self, other: Step[S]) -> Graph[list[R_co | S]]: ...
    @overload
    def __or__(self, other: Operand) -> Graph: ...
    def __or__(self, other: Any) -> Any:
        """Returns a graph in which this message and the other operand run side by side."""
        return apply_operator("|", self, other)

    def __rrshift__(self, other: Operand) -> Graph[R_co]:
        """Returns a graph in which this message runs after a list of others."""
        graph: Graph[R_co] = apply_operator(">>", other, self)
        return graph

    def __rlshift__(self, other: Operand) -> Graph[Any]:
        """Returns a graph in which this message runs before a list of others."""
        graph: Graph = apply_operator("<<", other, self)
        return graph

    def __ror__(self, other: Operand) -> Graph[Any]:
        """Returns a graph in which this message and a list of others run side by side."""
        graph: Graph = apply_operator("|", other, self)
        return graph

    def __await__(self) -> Generator[Any, None, R_co]:
        """Runs the handler in this process, without a server, a queue or retries."""
        return self.actor.run_here(self.args, self.kwargs).__await__()


def check_message(value: object) -> None:
    """Checks that a value is a message.

    Raises:
        ConfigurationError: it is something else.
    """
    if not isinstance(value, Message):
        raise ConfigurationError(
            f"{shown(value)} is not a message: call an actor to make one, as in send(tenant, f(1))"
        )
