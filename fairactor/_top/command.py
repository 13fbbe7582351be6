"""The command ``fairactor top``: a live screen on a terminal, else one screen or JSON lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import attrs

from fairactor.runtime import Runtime

from .app import App
from .model import TABS, Place, State, View
from .plain import default_place, print_json, print_once
from .terminal import Terminal, open_terminal

Connect = Callable[[], AbstractAsyncContextManager[Runtime]]
"""Enters a runtime that runs no tasks."""


@attrs.frozen
class TopOptions:
    """What the command line says."""

    view: View | None = None
    """The view to begin with; None begins with the tenants, and prints all as JSON."""
    order: str | None = None
    text: str = ""
    """The filter."""
    interval: float = 1.0
    """The seconds between two readings."""
    once: bool = False
    json: bool = False
    rows: int = 50
    """How many items of each view are printed as JSON, at most."""
    svg: Path | None = None


def run(options: TopOptions, connect: Connect) -> int:
    """Shows or prints what a namespace does; returns the exit code.

    Raises:
        FairactorError: it cannot connect, or, if it prints once, cannot read.
        OSError: the picture cannot be written.
    """
    place = default_place(options.view or View.TENANTS, options.order, options.text)
    if options.json:
        places = [place] if options.view else [place, *(default_place(view, None, "") for view in TABS[1:])]
        return anyio.run(_print_json, connect, places, options.rows)
    descriptor = None if options.once or options.svg else open_terminal()
    if descriptor is None:
        return anyio.run(_print_once, connect, State(places=(place,)), options.svg)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what is logged would be written over the screen
    try:
        with Terminal(descriptor) as terminal:
            return anyio.run(App(terminal, State(places=(place,)), options.interval).run, connect)
    finally:
        logging.disable(before)


async def _print_once(connect: Connect, state: State, svg: Path | None) -> int:
    async with connect() as runtime:
        await print_once(runtime, state, svg)
    return 0


async def _print_json(connect: Connect, places: list[Place], rows: int) -> int:
    async with connect() as runtime:
        await print_json(runtime, places, rows)
    return 0
