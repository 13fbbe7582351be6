"""The lease keeper: a thread that renews the leases of a runtime while its event loop cannot."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from .dispatcher import Dispatcher
from .watchdog import Watchdog

logger: Final = logging.getLogger(__name__)

BOUND: Final = 4
"""After so many leases without a turn, the leases are given up: the event loop may never run again."""


class LeaseKeeper:
    """Renews leases from a thread when no turn has renewed them for half a lease, and drives the watchdog.

    A runtime whose loop runs renews its leases with its turns, so the thread asks nothing of the server then. It has a
    connection of its own, which it opens when it first needs it.

    Args:
        dispatchers: the holders of the leases.
        lease: the seconds of a lease.
        watchdog: says what blocks the loop.
        client: makes a synchronous client of the server.
    """

    def __init__(
        self, dispatchers: Sequence[Dispatcher], lease: float, watchdog: Watchdog, client: Callable[[], Any]
    ) -> None:
        self._dispatchers = dispatchers
        self._lease = lease
        self._watchdog = watchdog
        self._make_client = client
        self._client: Any = None
        self._renewed: dict[Dispatcher, float] = {}  # when a lease was last renewed here
        self._given_up = False
        self._failing = False
        self._stopped = threading.Event()

    def start(self) -> None:
        """Starts the thread. Must be called in the event loop."""
        self._watchdog.start()
        threading.Thread(target=self._run, name="fairactor lease keeper", daemon=True).start()

    def stop(self) -> None:
        """Tells the thread to end. It does not wait: a renewal that is under way cannot revive a lease."""
        self._watchdog.stop()
        self._stopped.set()

    def _run(self) -> None:
        pause = self._watchdog.beat
        try:
            asleep = time.monotonic()
            while not self._stopped.wait(pause) and not self._watchdog.ended:
                try:
                    self._watchdog.look(time.monotonic() - asleep - pause)
                    self._renew_all()
                except Exception as error:  # noqa: BLE001 - nobody else would keep the leases
                    self._note_failure(error)
                asleep = time.monotonic()
        finally:
            self._close()

    def _renew_all(self) -> None:
        for dispatcher in self._dispatchers:
            now = time.monotonic()
            silence = now - dispatcher.renewed
            if not dispatcher.runtime or silence < self._lease / 2:
                continue
            renewed = self._renewed.get(dispatcher, 0.0)
            if silence > BOUND * self._lease:
                self._give_up(silence, tried=renewed > dispatcher.renewed)
                return
            if now - renewed > self._lease / 3:
                if self._client is None:
                    self._client = self._make_client()
                dispatcher.renew(self._client)
                self._renewed[dispatcher] = now
                self._failing = self._given_up = False

    def _give_up(self, silence: float, *, tried: bool) -> None:
        if tried and not self._given_up:
            self._given_up = True
            logger.error(
                "no turn for %.1f s (%d leases): the leases of this runtime are not renewed any more, so other "
                "runtimes run its tasks. The event loop is blocked, or the server does not answer it",
                silence,
                BOUND,
            )

    def _note_failure(self, error: Exception) -> None:
        """Logs the first failure of several. While the loop runs, the dispatcher says more about an absent server."""
        blocked = self._watchdog.late > self._watchdog.limit
        logger.log(
            logging.WARNING if blocked and not self._failing else logging.DEBUG,
            "a lease could not be renewed while the event loop is blocked: %s; trying again",
            str(error) or type(error).__name__,
        )
        self._failing = self._failing or blocked
        self._close()

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()
