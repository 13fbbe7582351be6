"""The command ``fairactor grow``: adds shards to a namespace that runs, and shows how far it is."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final

import attrs

from .errors import ConfigurationError, NamespaceMismatch, ServerError
from .runtime import Runtime

FAILED: Final = 1
_EACH: Final = 5.0  # seconds between two lines


@attrs.frozen
class GrowOptions:
    """What the command line says."""

    shards: int
    url: str | None
    namespace: str
    aging: float


def run(options: GrowOptions) -> int:
    """Adds the shards; returns the exit code."""
    try:
        asyncio.run(_grow(options))
    except (ConfigurationError, NamespaceMismatch, ServerError) as error:
        sys.stderr.write(f"fairactor grow: {error}\n")
        return FAILED
    return 0


async def _grow(options: GrowOptions) -> None:
    began = time.monotonic()
    async with Runtime(options.url, namespace=options.namespace, aging=options.aging, workers=0) as runtime:
        growing = asyncio.ensure_future(runtime.grow(options.shards))
        while not (await asyncio.wait([growing], timeout=_EACH))[0]:
            _say(f"tenants still move, after {time.monotonic() - began:.0f} s")
        await growing
    _say(f"{options.namespace} has {options.shards} shards now")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
