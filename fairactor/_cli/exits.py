"""The exit codes."""

from typing import Final

OK: Final = 0
PROBLEM: Final = 1
"""A problem was found, or something could not be done."""
USAGE: Final = 2
"""The command line, a setting or a file with settings is wrong."""
SERVER: Final = 3
"""The server is away, refuses, or has data of another release; or the namespace does not exist there."""
INTERRUPTED: Final = 130
"""After SIGINT. Like shells, it is 128 plus the signal's number."""
