"""Actors that are known by name only: their code is in another process."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

from fairactor._model.route import pack_route
from fairactor._util.checks import check_route_name
from fairactor.errors import UnknownActor

from .codec import Codec
from .options import Options


def _takes_anything(*args: Any, **kwargs: Any) -> Any:
    """Has the signature of every handler."""


class NamedActor:
    """What a message needs of an actor whose handler is not here. Its arguments are not checked before it is run."""

    def __init__(self, name: str) -> None:
        self.name: Final = check_route_name("actor", name)
        self.codec: Final = Codec(name, _takes_anything)

    def __repr__(self) -> str:
        return f"<actor {self.name}, known by name>"

    def route(self, options: Options) -> str:
        """Returns where a message with these options can run: handlers of any version may."""
        return pack_route(self.name, options.queue, 1, options.limits)

    def run_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Awaitable[Any]:  # noqa: ARG002 - as in Target
        """Raises UnknownActor."""
        raise UnknownActor(f"the actor {self.name!r} is known by name only, so its message cannot be run here: send it")
