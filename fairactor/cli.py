"""The command line: ``fairactor``, or ``python -m fairactor``. docs/command-line.md describes it.

The commands are in `fairactor._cli`, whose docstring says how one is added. Each is imported when it runs. This module
imports next to nothing before `main` can handle Ctrl-C.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # that of `typing`

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0; 1 if a problem was found; 2, 3 or 130, see the docs.

    Args:
        arguments: the arguments after ``fairactor``. None takes them from ``sys.argv``.
    """
    try:
        from ._cli.main import run

        return run(arguments)
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write('fairactor: the command line needs click: pip install "fairactor[cli]"\n')
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("fairactor: interrupted\n")
        return _INTERRUPTED
    finally:
        if arguments is None:
            _end_silently()


def _end_silently() -> None:
    """Lets Ctrl-C end the process without a traceback, now that all work is done."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
