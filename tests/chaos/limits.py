"""The limits of a seed: what they are, which tasks name them, and whether any was exceeded."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import attrs

from fairactor import Message
from fairactor._model.wire import unpack_mark

LIMITED: Final = (2, 3)
"""Of each four seeds, those that have limits: runtimes are alike in one, and of three kinds in the other."""
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "db": {"concurrency": 2},
    "api": {"rate": "200/s", "burst": 10},
    "quota": {"rate": "150/s"},
}
"""What tenants share."""
MOST_RUNNING: Final = {"db": 2, "narrow": 2, "single": 1}
"""How many may run at once, by the name of a limit or an actor; for each tenant, if it is one that has its own."""
PER_TENANT: Final = "single"
BURST: Final = 10.0
PER_SECOND: Final = {"api": 200.0, "quota": 150.0}
CLOCK: Final = 0.0015
"""Seconds by which the noted time of a start may be wrong."""
_CLAIMS: Final = b":claims:"
_ARGUMENT: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_AFTER: Final = b"after a script"
_AWAY: Final = b"the server was away"
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


def is_limited(seed: int) -> bool:
    """Whether a seed has limits."""
    return seed % 4 in LIMITED


def in_limits(rng: random.Random, message: Message[int]) -> Message[int]:
    """Makes a task name limits, perhaps."""
    named = {name: rng.choice([1, 1, 2, 5]) for name in SETTINGS if rng.random() < 0.4}
    return message.options(limits=named) if named else message


@attrs.frozen
class Pause:
    """A pause of a limit."""

    at: float
    id: str
    """The name of the limit."""
    seconds: float
    tenant: str | None


def pauses(seed: int, span: float, tenants: Sequence[str]) -> list[Pause]:
    """Makes the pauses of a seed."""
    rng = random.Random(f"{seed} pauses")
    names = [*SETTINGS, "narrow", "single", "echo"]
    return [
        Pause(rng.uniform(0, span), rng.choice(names), rng.uniform(0.02, 0.4), rng.choice([None, *tenants]))
        for _ in range(rng.randint(1, 5))
    ]


@attrs.frozen
class Claim:
    """A claim that a script made."""

    runtime: str
    task: str
    at: float
    """By the server's clock, in seconds."""
    tenant: str
    taken: Mapping[str, float]


def exceeded(running: Mapping[str, int]) -> Iterator[str]:
    """Yields limits of which more tasks run than they allow."""
    for limit, number in running.items():
        most = MOST_RUNNING.get(limit.partition("\x1f")[0])
        if most is not None and number > most:
            yield f"{number} tasks run that count for {limit!r}, and {most} may"


def too_fast(name: str, starts: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Yields a stretch of time in which starts took more of a rate than it allows."""
    starts = sorted(starts)
    per_second = PER_SECOND[name]
    for first, (begin, _) in enumerate(starts):
        taken = largest = 0.0
        for at, cost in starts[first:]:
            taken, largest = taken + cost, max(largest, cost)
            if name == "api":
                most = max(BURST, cost) + per_second * (at - begin + CLOCK)
            elif at - begin >= 1 - CLOCK:
                break
            else:
                most = per_second + largest  # what takes more than is left waits until nothing is owed
            if taken > most + 1e-6:
                within = [f"{cost:g} at {at - begin:.4f}" for at, cost in starts[first:] if at - begin < 0.1]
                yield f"starts took {taken:g} of {name!r} within {at - begin:.4f} s, and {most:g} is the most: {within}"
                return


class ClaimsMonitor:
    """Follows all claims of a shard, as the scripts make and end them.

    A thread collects what the server says, which is much, and `read` looks at it later. If the server is away, what was
    claimed before is forgotten, because it may end unseen.
    """

    def __init__(self, path: str) -> None:
        self.claims: list[Claim] = []
        self.violations: list[str] = []
        self.most: Counter[str] = Counter()
        """The most tasks that ran at once, by limit."""
        self._path = path
        self._said: list[bytes] = []  # commands of scripts about claims, _AFTER behind those of a script, and _AWAY
        self._live: dict[tuple[str, str], Claim] = {}
        self._ends = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follows the claims for a while."""
        thread = threading.Thread(target=self._follow)
        thread.start()
        try:
            yield
        finally:
            self._ends.set()
            thread.join()

    def _follow(self) -> None:
        while not self._ends.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as server:
                server.settimeout(0.05)
                server.connect(self._path)
                server.sendall(b"MONITOR\r\n")
                self._collect(server)
            self._said.append(_AWAY)
            self._ends.wait(0.01)

    def _collect(self, server: socket.socket) -> None:
        rest = b""
        while not self._ends.is_set():
            with suppress(TimeoutError):
                found = server.recv(1 << 20)
                if not found:
                    return
                *lines, rest = (rest + found).split(b"\n")
                for line in lines:
                    if b" lua] " not in line[:60]:
                        if self._said and self._said[-1] is not _AFTER:
                            self._said.append(_AFTER)
                    elif _CLAIMS in line[:200]:
                        self._said.append(line)

    def read(self) -> None:
        """Reads what was collected, and checks that no limit was exceeded at any time."""
        for line in self._said:
            if line is _AWAY:
                self._live.clear()
            elif line is _AFTER:
                self._check()
            else:
                self._note([_unescaped(found) for found in _ARGUMENT.findall(line)])

    def _note(self, command: list[bytes]) -> None:
        name, key, *rest = command
        runtime = key.partition(_CLAIMS)[2].decode()
        if name == b"HSET":
            for task, packed in zip(rest[::2], rest[1::2], strict=True):
                mark = unpack_mark(packed)
                taken = {limit.decode(): cost for limit, cost in mark.taken.items()}
                claim = Claim(runtime, task.decode(), mark.ms / 1000, mark.tenant.decode(), taken)
                if (runtime, claim.task) not in self._live:
                    self.claims.append(claim)
                self._live[runtime, claim.task] = claim
        elif name == b"HDEL":
            for task in rest:
                self._live.pop((runtime, task.decode()), None)
        elif name in {b"DEL", b"UNLINK"}:
            for each in [each for each in self._live if each[0] == runtime]:
                del self._live[each]

    def _check(self) -> None:
        running = Counter(limit for claim in self._live.values() for limit in claim.taken)
        self.most |= running
        self.violations += exceeded(running)

    def check_rates(self, costs: Callable[[str], Mapping[str, float]], ran: Mapping[tuple[str, int], int]) -> None:
        """Checks the rates, by what tasks take and how often they ran in each process.

        A claim whose task did not run may have been given back, so it does not count.
        """
        claimed: defaultdict[tuple[str, int], list[Claim]] = defaultdict(list)
        for claim in self.claims:
            claimed[claim.task, int(claim.runtime.split(":")[1])].append(claim)
        starts: dict[str, list[tuple[float, float]]] = {name: [] for name in PER_SECOND}
        for (task, pid), claims in claimed.items():
            for name, cost in costs(task).items():
                if name in starts and len(claims) <= ran.get((task, pid), 0):
                    starts[name] += [(claim.at, cost) for claim in claims]
        for name, found in starts.items():
            self.violations += too_fast(name, found)

    def check_counted(self, named: Callable[[str], set[str] | None]) -> None:
        """Checks that each claim counts for all limits that its task names."""
        for claim in self.claims:
            expected = named(claim.task)
            found = {limit.partition("\x1f")[0] for limit in claim.taken}
            if expected is not None and not expected <= found:
                self.violations.append(f"a claim of {claim.task} counts for {found}, and it names {expected}")


def _unescaped(argument: bytes) -> bytes:
    def value(found: re.Match[bytes]) -> bytes:
        letter = found[1]
        if len(letter) == 3:
            return bytes([int(letter[1:], 16)])
        return _ESCAPED.get(letter, letter)

    return _ESCAPE.sub(value, argument) if b"\\" in argument else argument
