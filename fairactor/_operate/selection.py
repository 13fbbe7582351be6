"""Tasks that a filter selects, to change them in slices."""

from __future__ import annotations

from collections.abc import Callable

from fairactor.views import Matches

Progress = Callable[[int, int], None]
"""Called with how many tasks were changed, and how many were looked at."""


class Selection:
    """The tasks that a filter selects. Each method works in slices, and can be canceled between them."""

    async def count(self, *, most: int | None = 100_000) -> Matches:
        """Counts them; looks at `most` tasks at most."""
        raise NotImplementedError  # helper A

    async def cancel(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Cancels those that have not ended; returns how many."""
        raise NotImplementedError  # helper A

    async def retry(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Starts those now that wait for their next attempt or their time; returns how many."""
        raise NotImplementedError  # helper A

    async def redrive(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Sends those that have failed again; returns how many."""
        raise NotImplementedError  # helper A

    async def purge(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Deletes the records of those that have ended; returns how many."""
        raise NotImplementedError  # helper A

    async def move(self, queue: str, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Moves those that wait to another queue; returns how many."""
        raise NotImplementedError  # helper A
