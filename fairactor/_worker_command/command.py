"""The command ``fairactor worker``: checks the options, and runs the processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import attrs

from fairactor.errors import ConfigurationError
from fairactor.settings import Settings

from .application import NoApplication, place, split
from .logging_setup import introduce, say_failure, set_up_logging
from .options import UNUSABLE, WorkerOptions


def run(options: WorkerOptions) -> int:
    """Runs tasks until a signal says to stop; returns the exit code, see options.py."""
    set_up_logging(options)
    try:
        _check(options)
    except (ConfigurationError, NoApplication) as error:
        say_failure(options, str(error))
        return UNUSABLE
    if _names_server(options):
        return _run(options)
    folder = tempfile.mkdtemp(prefix="fairactor-worker-")
    try:
        return _run(attrs.evolve(options, fallback=folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(options: WorkerOptions) -> int:
    if options.processes:
        from .supervisor import Supervisor

        return asyncio.run(_supervise(Supervisor, options))
    from .process import run_process

    def say(ready: Mapping[str, Any] | None = None, **_: Any) -> None:
        if ready is not None:
            introduce(options, ready)

    return run_process(options, say, None)


async def _supervise(supervisor: type, options: WorkerOptions) -> int:
    code: int = await supervisor(options).run()
    return code


def _names_server(options: WorkerOptions) -> bool:
    return any(options.settings.get(name) for name in ("url", "path")) or bool(os.environ.get("FAIRACTOR_URL"))


def _check(options: WorkerOptions) -> None:
    """Checks what can be checked without importing the module.

    Raises:
        ConfigurationError: options do not go together, or a setting is invalid.
        NoApplication: a file is not there.
    """
    Settings(**options.settings)
    if options.name is not None and not (options.name.isprintable() and 0 < len(options.name) <= 100):  # noqa: PLR2004 - longer ones would be a mistake
        raise ConfigurationError("--name: give up to 100 printable characters")
    single = options.max_tasks or options.max_memory or options.reload
    if single and not options.processes:
        raise ConfigurationError("--processes 0 has no supervisor, which --reload, --max-tasks and --max-memory need")
    if options.reload:
        from .reload import is_installed

        if options.until_drained:
            raise ConfigurationError("give --reload or --until-drained, not both")
        if not is_installed():
            raise ConfigurationError('--reload needs watchfiles: pip install "fairactor[reload]"')
    for target in options.targets:
        place(split(target)[0])
