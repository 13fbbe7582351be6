"""Names of the program and its variables."""

from typing import Final

PROGRAM: Final = "fairactor"
COMPLETE: Final = "_FAIRACTOR_COMPLETE"
"""The variable by which shells ask for completions."""
