"""Changes a runtime that was not entered yet, as the options of the command say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from fairactor._actors.registry import Registrable, Registry
from fairactor._model.keys import Keys
from fairactor._plugin_chain import PluginChain
from fairactor.plugins import Plugin
from fairactor.runtime import Runtime


def adapt(
    runtime: Runtime,
    *,
    settings: Mapping[str, Any],
    name: str | None = None,
    actors: Iterable[Registrable] = (),
    plugins: Iterable[Plugin] = (),
) -> None:
    """Changes a runtime.

    Args:
        runtime: a runtime that was not entered yet.
        settings: the settings that replace its own.
        name: what its name begins with, instead of the host.
        actors: the actors to run instead of its own; none leaves it those.
        plugins: plugins to use in addition.

    Raises:
        ConfigurationError: a setting or an actor is invalid.
    """
    changed: dict[str, Any] = vars(runtime)
    changed["settings"] = attrs.evolve(runtime.settings, **settings)
    Keys(runtime.settings.namespace)  # raises if the name is invalid
    if name is not None:
        changed["name"] = f"{name}:{os.getpid()}:{os.urandom(4).hex()}"
    chain: PluginChain = changed["_plugins"]
    if added := list(plugins):
        chain = changed["_plugins"] = PluginChain([*chain.by_name.values(), *added])
    if given := list(actors):
        registry = changed["_registry"] = Registry(given, chain.actors)
        for each in registry.actors.values():
            chain.check(each.options)
