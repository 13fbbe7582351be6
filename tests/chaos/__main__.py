"""Runs seeds in parallel and prints their reports: ``python -m tests.chaos [--seeds N] [--first SEED]``."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.support import servers

from .disturbances import Setup
from .group_plan import plan_for
from .harness import SIGNALS, fork
from .seeds import run_seed

_SUMS: Final = (
    "tasks",
    "steps",
    "unfit",
    "workers",
    "audits",
    "limited",
    "rerun",
    "resent",
    "refused",
    "lapsed",
    "lost",
    "doubled",
    "taken",
    "rolled_back",
    "withdrawn",
    "disturbed",
)
_PARALLEL: Final = max(2, min(4, os.cpu_count() or 4))
_LATE_IMPORTS: Final = (
    "anyio._backends._asyncio",
    "fairactor._actors.process_pool",
    "fairactor._engine",
    "fairactor._lifetime",
    "fairactor._util.tracing",
    "fairactor._worker.worker",
)
"""What a runtime imports as it starts: once for all forked processes, else that is most of their work at the start."""


def main() -> int:
    """Runs the seeds of the command line; returns 1 if any check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument(
        "--parallel", type=int, default=_PARALLEL, help="how many at a time (default: one a core, 2 to 4)"
    )
    parser.add_argument("--server", choices=servers.SERVERS, default="valkey", help="the server to run on")
    parser.add_argument("--verbose", action="store_true", help="a line for each seed")
    setup = parser.add_mutually_exclusive_group()
    for other, what in (
        (Setup.CLUSTER, "a cluster of three primaries with replicas"),
        (Setup.SENTINEL, "a primary with sentinels"),
        (Setup.GROWING, "one server, on which shards are added"),
    ):
        setup.add_argument(f"--{other}", dest="setup", action="store_const", const=other, help=f"run on {what}")
    parser.set_defaults(setup=Setup.SERVER)
    options = parser.parse_args()
    binary = servers.binary(options.server)
    for module in _LATE_IMPORTS:
        importlib.import_module(module)
    gc.freeze()  # forked processes share the memory of imported modules
    began = time.monotonic()
    sums: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    slowest: list[float] = []
    failed = []
    run = partial(run_seed, options.setup)
    for found in _run(range(options.first, options.first + options.seeds), options.parallel, run, binary):
        sums.update({name: found.get(name, 0) for name in _SUMS})
        faults.update(found.get("faults", {}))
        slowest += found.get("resumed", [])
        if found["violations"]:
            failed.append(found["seed"])
            _say(_report(found, options.setup))
        elif options.verbose:
            _say(f"seed {found['seed']}: {found['seconds']:.1f} s, {_line({n: found.get(n, 0) for n in _SUMS})}")
    _say(f"{options.seeds} seeds in {time.monotonic() - began:.1f} s: {_line(sums)}")
    _say(f"faults: {_line(faults)}")
    if slowest:
        _say(f"service resumed at the latest {max(slowest):.1f} s after the servers said that they could serve")
    _say(f"failed: {', '.join(map(str, sorted(failed)))}" if failed else "all as it must be")
    return 1 if failed else 0


def _run(
    seeds: Iterable[int], parallel: int, run: Callable[[int, str, Path], None], binary: str
) -> Iterator[dict[str, Any]]:
    """Runs each seed in a separate process; yields its report."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # sigwait receives them
    left = iter(seeds)
    running: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="fairactor-test-") as folder:
        try:
            while True:
                while len(running) < parallel and (seed := next(left, None)) is not None:
                    running[fork(partial(run, seed, binary, Path(folder) / str(seed)))] = seed
                if not running:
                    return
                if (number := signal.sigwait(SIGNALS)) != signal.SIGCHLD:
                    sys.exit(128 + number)
                for pid in [pid for pid in running if os.waitpid(pid, os.WNOHANG)[0]]:
                    seed = running.pop(pid)
                    report = Path(folder) / str(seed)
                    broken = {"seed": seed, "violations": ["its harness has crashed; see above"]}
                    yield json.loads(report.read_text()) if report.exists() else broken
                    report.unlink(missing_ok=True)
        finally:
            for pid in running:
                os.kill(pid, signal.SIGTERM)  # it cleans up
            for pid in running:
                os.waitpid(pid, 0)


def _report(found: dict[str, Any], setup: Setup) -> str:
    """Formats everything that may help to find the cause of a failure."""
    seed = found["seed"]
    plan = plan_for(seed, setup)
    which = "" if setup is Setup.SERVER else f"--{setup} "
    again = f"python -m tests.chaos {which}--first {seed} --seeds 1"
    lines = [f"seed {seed} FAILED; the same again: {again}", "", "Violations:"]
    lines += [f"  {text}" for text in found["violations"]]
    lines += ["", "Planned, in seconds from its beginning:"]
    lines += [f"  {planned.at:6.3f} {planned}" for planned in plan.faults]
    lines += [f"  after {planned.after:.3f} s of peace: {planned}" for planned in plan.disturbances]
    lines += ["", "What happened:", *(f"  {text}" for text in found.get("journal", []))]
    for name, log in found.get("logs", {}).items():
        lines += ["", f"Log of {name}:", *(f"  {text}" for text in log)]
    return "\n".join([*lines, ""])


def _line(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program


if __name__ == "__main__":
    sys.exit(main())
