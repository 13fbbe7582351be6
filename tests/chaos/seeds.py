"""Runs one seed."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from pathlib import Path

from tests.support import servers

from .disturbances import Setup
from .group_harness import GROUPS, GroupHarness
from .group_plan import plan_for
from .harness import SIGNALS, Harness


def run_seed(setup: Setup, seed: int, binary: str, report: Path) -> None:
    """Runs a seed and writes its report to a file. Call it in a separate process."""
    began = time.monotonic()
    signal.pthread_sigmask(
        signal.SIG_BLOCK, SIGNALS
    )  # until the harness handles them, so that it also stops the server
    plan = plan_for(seed, setup)
    with tempfile.TemporaryDirectory(prefix="fairactor-test-") as folder:
        if setup in {Setup.SERVER, Setup.GROWING}:
            with servers.instance(binary, *servers.LASTING) as server:
                found = Harness(plan, server, Path(folder)).run()
        else:
            with GROUPS[setup](binary, Path(folder)) as group:
                found = GroupHarness(plan, group, Path(folder)).run()
    report.write_text(json.dumps({"seed": seed, "seconds": time.monotonic() - began} | found))
