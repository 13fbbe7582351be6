"""A shard with something of everything, limits and tenants that wait for them, and transitions to apply to it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fairactor._model.limit import limit_changes
from fairactor._model.record import Call
from fairactor._model.route import pack_route
from fairactor._model.wire import Settlement

from .driver import item, outcome, settlement
from .populated import HELD, NO_SUSPECT, PopulatedShard, Transition

LIMITED: Final = {"l.run": "F0", "l.run2": "X3600000", "l2.run": "B0", "own.run": "F3600000"}
"""What runtime lim holds, and how each task ends."""


def body(limits: Mapping[str, float] | None = None, actor: str = "g") -> bytes:
    return msgspec.json.encode(Call(pack_route(actor, limits=limits), [], {}))


class LimitedShard(PopulatedShard):
    """A populated shard with limits, some of which are used up."""

    empty: frozenset[str] = frozenset()
    held_as: Mapping[str, str] = HELD | LIMITED

    def limit(self, name: str, *, tenant: str = "", pause: str = "", **settings: Any) -> None:
        changes = {"paused": None} if settings.pop("resume", False) else limit_changes(settings)
        self.run(self.shard.change_limit(name, changes, tenant=tenant, pause=pause))

    def _populate(self) -> None:
        super()._populate()
        self.join("lim", "gone lim")
        self.configure("lg1", group="lg")
        for tenant in ("l", "l2", "own", "gl"):
            self.configure(tenant, weight=1e6)  # they come first
        self.limit("api", concurrency=5, rate="10/h", burst=1000)
        self.limit("used", concurrency=1)
        self.limit("own", concurrency=1, per="tenant")
        self.limit("f", tenant="l", pause="-1")
        for task, limits in (
            ("l.run", {"api": 5}),
            ("l.run2", {"used": 1}),
            ("l2.run", {"api": 2}),
            ("own.run", {"own": 1}),
        ):
            self.send(item(task, task.partition(".")[0], 6, body=body(limits)))
            assert self.claim("lim", 1 if task == "l.run" else len(self._claimed) + 1, 1, permit=NO_SUSPECT) == [task]
            self._claimed.append(task)
        self.send(item("gl", "gl", 6, body=body({"api": 3})))
        assert self.claim("gone lim", 1, 1, permit=NO_SUSPECT) == ["gl"]
        for tenant in ("l", "l2", "lg1", "own", "t"):
            for n, limits in enumerate(({"api": 4}, {"used": 2}, {"own": 1}, {"api": 1, "used": 1}, None)):
                self.send(item(f"{tenant}-{n}", tenant, body=body(limits, "fg"[n % 2])))
        self.claim("lim", len(self._claimed) + 1, 0)
        self.db.hset(self.keys.fixed("LIMIT_CLOCKS"), "api", struct.pack(">dd", 0, 4))
        self.db.hset(f"{self.keys.meta}:line-groups:0\x1fapi", "lg", "4")

    @property
    def _claimed(self) -> list[str]:
        found: list[str] = self.__dict__.setdefault("claimed_so_far", [])
        return found

    def outcomes(self, *tasks: str) -> list[Settlement]:
        return [
            settlement(task, number, "B0", self.held[task])
            if LIMITED[task] == "B0"
            else outcome(task, number, LIMITED[task], task.partition(".")[0])
            for number, task in enumerate(LIMITED, 1)
            if task in tasks
        ]


def settle_limited(populated: LimitedShard) -> None:
    assert populated.turn("lim", 6, 0, populated.outcomes(*LIMITED))


def settle_and_claim_limited(populated: LimitedShard) -> None:
    assert populated.turn("lim", 6, 6, populated.outcomes("l.run", "l.run2", "own.run"))


def claim_all_limited(populated: PopulatedShard) -> None:
    populated.claim("lim", 7, 100)


def change(name: str, **how: Any) -> Transition:
    def transition(populated: Any) -> None:
        populated.limit(name, **how)

    return transition


def charge(populated: PopulatedShard) -> None:
    assert populated.run(populated.shard.charge("lim", "l.run", "api", 50.0)) == 1
