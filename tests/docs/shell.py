"""A shell that runs the commands of a page, one after the other, and says what each prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

FILE: Final = re.compile(r"^```(?:python|toml|yaml) (\S+\.\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block with a file: its name and its text."""
CONSOLE: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LONGEST: Final = 60.0
"""Seconds that a page may take."""
_END: Final = "--- that was it ---"


@attrs.frozen
class Step:
    """A command of a page, and what the page shows behind it."""

    command: str
    shown: str


def steps_in(page: str) -> Iterator[Step]:
    """Yields the commands of a page. One begins with ``$ ``, and goes on in the next line after a backslash."""
    for block in CONSOLE.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            number = next(i for i, line in enumerate(lines) if not line.endswith("\\")) + 1
            yield Step("\n".join(lines[:number]), "".join(f"{line}\n" for line in lines[number:]))


@attrs.frozen
class Shell:
    """A running bash. Its background jobs are killed with it."""

    _process: subprocess.Popen[str]

    def run(self, command: str) -> str:
        """Runs a command, and returns what it prints, errors included."""
        source, output = self._process.stdin, self._process.stdout
        assert source is not None
        assert output is not None
        source.write(f"{command}\necho; echo '{_END}'\n")
        source.flush()
        lines: list[str] = []
        for line in output:
            if line.rstrip("\n") == _END:
                return "".join(lines)[:-1]  # without the newline that comes before the end
            lines.append(line)
        raise AssertionError(f"the shell has ended, or it took too long: {command}\n{''.join(lines)}")


@contextmanager
def shell(folder: Path, **environment: str) -> Iterator[Shell]:
    """Starts a bash in a folder, in which the commands of this environment are found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "--norc"],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    too_long = threading.Timer(_LONGEST, kill)  # reading from the shell ends then
    too_long.start()
    try:
        yield Shell(process)
    finally:
        too_long.cancel()
        kill()
        process.communicate()
