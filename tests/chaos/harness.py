"""Runs one seed: starts the server, forks the workload and the workers, and cleans up after them.

The harness runs no event loop and no threads, so that forked processes begin clean. The workload sends it commands over
a socket, one line of JSON each. Over the same socket the harness reports which processes have ended.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from tests.support import servers

from . import actors
from .actors import WorkerSpec
from .auditor import audit_repeatedly
from .growing import on_growing_server
from .plan import Plan
from .workload_process import Open, Sockets, on_one_server, run_workload

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
"""The signals that a chaos process handles."""
LIMIT: Final = 180.0
"""Seconds after which a seed counts as hung."""
_LINES: Final = 400
"""The number of lines of each log that are shown."""
_TRACEBACK: Final = "Traceback (most recent call last):"


def fork(main: Callable[[], None]) -> int:
    """Runs ``main`` in a new process; returns its id."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # no signal is lost or runs a parent's handler
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        main()
        status = 0
    except BaseException:  # noqa: BLE001 - an exception that escapes would run the code of the parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


class Harness:
    """The processes of one seed."""

    def __init__(self, plan: Plan, server: servers.Instance | None, folder: Path) -> None:
        self._plan = plan
        self._server = server
        self._folder = folder
        self._began = time.time()
        self._processes: dict[int, Path] = {}
        self._logs: list[Path] = []
        self._here, self._there = socket.socketpair()
        self._notes = folder / "notes.pipe"
        os.mkfifo(self._notes)
        self._notes_out = os.open(self._notes, os.O_RDONLY | os.O_NONBLOCK)
        self._notes_in = os.open(self._notes, os.O_WRONLY)  # so that the pipe stays open without workers
        self._signals_out, self._signals_in = socket.socketpair()
        self._stopped = False
        self._verdict: dict[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """Runs the seed to its end and returns the report."""
        self._signals_in.setblocking(False)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._signals_in.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        try:
            workload = self._fork("workload", partial(self._run_workload, self._plan))
            self._serve(workload)
        finally:
            signal.set_wakeup_fd(-1)
            self._clear()
        verdict = self._verdict or {"violations": [f"it has not ended within {LIMIT:g} s, or has broken off"]}
        logs = {path.name: path.read_text(errors="replace").splitlines() for path in self._logs}
        broken = [f"there is a traceback in the log of {name}" for name, log in logs.items() if _TRACEBACK in log]
        refused, lapsed = (
            sum(text in line for log in logs.values() for line in log)
            for text in ("came too late and was refused", "has lost its lease")
        )
        return verdict | {
            "violations": verdict["violations"] + broken,
            "refused": refused,
            "lapsed": lapsed,
            "logs": {name: log[-_LINES:] for name, log in logs.items()},
        }

    def _on_signal(self, number: int, _: object) -> None:
        self._stopped = self._stopped or number != signal.SIGCHLD

    def _serve(self, workload: int) -> None:
        """Executes the workload's commands until it has sent its verdict or has ended."""
        self._here.setblocking(False)
        said = b""
        while self._verdict is None and workload in self._processes and not self._stopped:
            left = self._began + LIMIT - time.time()
            ready, _, _ = select.select([self._here, self._signals_out], [], [], max(0, left))
            if not ready:
                return
            if self._here in ready:
                said += self._here.recv(1 << 16)
                *lines, said = said.split(b"\n")
                for line in lines:
                    self._execute(json.loads(line))
            if self._signals_out in ready:
                self._signals_out.recv(1 << 12)
                self._reap()

    def _execute(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "start worker":
                role = self._plan.roles[order["role"]]
                settings = self._plan.worker | role.settings
                spec = WorkerSpec(order["url"], str(self._notes), settings, role.actors, limited=self._plan.limited)
                pid = self._fork(f"worker-{len(self._logs)}", partial(self._work, spec))
                self._send({"started": pid})
            case "start auditor":
                pid = self._fork("auditor", self._audit)
                self._send({"auditor": pid})
            case "kill server" if self._server:
                self._server.kill()
                self._send({"server": "killed"})
            case "start server" if self._server:
                self._server.start()
                self._send({"server": "started"})
            case "end":
                self._verdict = order["verdict"]

    def _send(self, word: dict[str, Any]) -> None:
        with suppress(OSError):
            self._here.sendall(json.dumps(word).encode() + b"\n")

    def _reap(self) -> None:
        for pid in tuple(self._processes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._processes[pid]
                self._send({"ended": pid, "status": os.waitstatus_to_exitcode(status)})

    def _clear(self) -> None:
        for pid in self._processes:
            os.kill(pid, signal.SIGKILL)
        for pid in self._processes:
            os.waitpid(pid, 0)
        self._processes.clear()
        for end in (self._here, self._there, self._signals_out, self._signals_in):
            end.close()
        os.close(self._notes_in)
        os.close(self._notes_out)

    # In forked processes

    def _fork(self, name: str, main: Callable[[], None]) -> int:
        log = self._folder / name
        log.touch()
        self._logs.append(log)
        pid = fork(partial(self._begin, log, main))
        self._processes[pid] = log
        return pid

    def _begin(self, log: Path, main: Callable[[], None]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the harness ends them
        file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter(self._began))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        logging.getLogger("fairactor.execution").setLevel(logging.WARNING)  # it logs a line for each retry
        for end in (self._here, self._signals_out, self._signals_in):
            end.close()
        main()

    def _run_workload(self, plan: Plan) -> None:
        sockets = Sockets(self._there, self._notes_out)
        anyio.run(run_workload, self._open_workload(plan), sockets, self._began)

    def _open_workload(self, plan: Plan) -> Open:
        assert self._server is not None
        opens = on_growing_server if plan.grows else on_one_server
        return partial(opens, plan, self._server.socket, str(self._folder / "proxy.sock"))

    def _audit(self) -> None:
        self._there.close()
        self._audit_all()

    def _audit_all(self) -> None:
        assert self._server is not None
        audit_repeatedly(self._server.url, str(self._notes), self._plan.grows[-1][1] if self._plan.grows else 1)

    def _work(self, spec: WorkerSpec) -> None:
        self._there.close()
        anyio.run(actors.work, spec)


class _Formatter(logging.Formatter):
    """Formats times like the plan's schedule: in seconds from the start."""

    def __init__(self, began: float) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._began = began

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - its name
        return f"{record.created - self._began:6.3f}"
