"""The command line: ``fairactor``, or ``python -m fairactor``. docs/command-line.md describes it.

The commands are in `fairactor._cli`, whose docstring says how one is added. Each is imported when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0; 1 if a problem was found; 2, 3 or 130, see the docs.

    Args:
        arguments: the arguments after ``fairactor``. None takes them from ``sys.argv``.
    """
    try:
        from ._cli.main import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write('fairactor: the command line needs click: pip install "fairactor[cli]"\n')
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("fairactor: interrupted\n")
        return _INTERRUPTED
    return run(arguments)
