"""Actors that are known by name only: their code is in another process."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

import msgspec

from fairactor._model import record
from fairactor._model.route import pack_route
from fairactor._util.checks import check_route_name
from fairactor.errors import UnknownActor

from .codec import Codec
from .options import Options


def _takes_anything(*args: Any, **kwargs: Any) -> Any:
    """Has the signature of every handler."""


BY_NAME: Final = "by_name"
"""The option of a task whose sender did not know the options of the actor."""


def with_options_of(call: record.Call, options: Options) -> record.Call:
    """Returns a call that was sent by name, with the options of its actor for those that it does not have."""
    return msgspec.structs.replace(call, options={**options.travelling, **call.options})


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
