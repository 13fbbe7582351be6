"""A shard with something of everything, runtimes of several kinds and several lanes, and transitions to apply to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairactor._model.wire import Settlement, pack_key

from .driver import item, packed_kind, settlement
from .model_lanes import Kind
from .model_tasks import Task, pack
from .populated import HELD, KEY, NO_LIMITS, NO_SUSPECT, PopulatedShard, Transition, replacing

SLIM: Final = Kind({"f": "1 b2"})
"""These serve the common lane, and lack an actor that others have."""
GPU: Final = Kind({"f": "2 c3", "x": "1"}, {"gpu"})
NEW: Final = Kind({"g": "3", "lost": "9"}, {"default", "gpu"})

BODIES: Final = {
    "f": b'["f",[],{}]', "g": b'["g",[],{}]', "gpu": b'["f\\u001fgpu",[],{}]', "lost": b'["lost\\u001f\\u001f9",[],{}]',
    "h": b'["h",[],{}]',
}  # fmt: skip
HELD_IN_LANES: Final = {"lf": "U0", "lf2": "V3600000", "lf3": "V0", "lc": "U0", "lx": "F3600000", "lh": "U0"}
"""What runtime slim holds, and how each task ends; lc is being canceled."""


class LanedShard(PopulatedShard):
    """A populated shard with runtimes of several kinds and several lanes."""

    held_as: Mapping[str, str] = HELD | HELD_IN_LANES
    empty: frozenset[str] = NO_LIMITS

    def _populate(self) -> None:
        super()._populate()
        self.db.zadd(self.keys.fixed("LEASES"), {"gone": self.now() * 1000 + 3.6e6})  # it was lapsed
        self.send(*[item(f"early{n}", "l", body=BODIES["fg"[n % 2]]) for n in range(6)])  # some stand in the wrong lane
        self.configure("claimed", weight=1e6)  # it comes first
        self.configure("lcap", concurrency=1)
        self.configure("lheld", weight=2.0, group="lg")
        self.join("slim", "slim2", "gone slim", kind=SLIM)
        self.join("gpu", "gpu home", kind=GPU)
        tasks = {"lf": "f", "lf2": "f", "lf3": "f", "lc": "f", "lx": "f", "lh": "h"}
        self.send(*[item(task, "claimed", 6, body=BODIES[actor]) for task, actor in tasks.items()])
        assert set(self.claim("slim", 1, len(tasks), permit=NO_SUSPECT)) == tasks.keys()
        assert self.run(self.shard.cancel("lc", ttl=60.0, body=b"{}")) == "started"
        self.send(item("dying", "claimed", 6, body=BODIES["f"]), item("dying2", "l", 6, body=BODIES["g"]))
        assert self.claim("gone slim", 1, 1, permit=NO_SUSPECT) == ["dying"]
        for tenant in ("l", "lcap", "lheld", "t", "m1"):
            self.send(*[item(f"{tenant}.{lane}", tenant, body=body) for lane, body in BODIES.items()])
        self.send(item("lkeyed", "l", key=pack_key("lk", 60.0), body=BODIES["gpu"], flag="w"))
        self.send(item("ldue", "l", due="1", body=BODIES["gpu"]), item("llater", "l", due="+3600000", body=BODIES["g"]))
        assert self.claim("gpu", 1, 1, permit=NO_SUSPECT)
        self.db.sadd(f"{self.keys.meta}:idle:2", "gpu home")
        self.db.hset(self.keys.fixed("LANES"), r"lost\u001f\u001f9", 1)  # for long

    def refusals(self, *tasks: str) -> list[Settlement]:
        """Returns the outcomes of tasks that slim cannot run."""
        found = []
        for task in tasks:
            verdict = HELD_IN_LANES[task]
            packed = pack(b"X", Task(task, "claimed", 6, b"{}", "")) if verdict[0] in "VF" else b""
            packed = b"F" + packed[1:] if verdict[0] == "F" else packed
            found.append(settlement(task, 1, verdict, packed))
        return found


def lapse_first(runtime: str) -> Transition:
    """Makes maintenance find a runtime dead before all others."""

    def transition(populated: PopulatedShard) -> None:
        leases = populated.keys.fixed("LEASES")
        if (populated.db.zscore(leases, runtime) or 0) > 4:  # type: ignore[operator]  # the client is synchronous
            populated.db.zadd(leases, {runtime: 500})
        populated.maintain(deliveries=2)

    return transition


def refuse(populated: LanedShard) -> None:
    assert populated.turn("slim", 2, 0, populated.refusals(*HELD_IN_LANES))


def refuse_and_claim(populated: LanedShard) -> None:
    assert populated.turn("slim", 2, 8, populated.refusals("lf", "lf2", "lx"))


def claim_from_lanes(runtime: str, number: int, want: int) -> Transition:
    return lambda populated: populated.claim(runtime, number, want)


def send_into_lanes(populated: PopulatedShard) -> None:
    new = {f"n{name}": body for name, body in BODIES.items()}
    populated.send_again(
        *[item(task, "l", 6, body=body) for task, body in new.items()],
        item("nkeyed", "l", key=replacing(pack_key("lk", 0.0)), body=BODIES["g"]),
        item("nlater", "new", due="+3600000", body=BODIES["gpu"]), item("nfresh", "new", key=KEY, body=BODIES["gpu"]),
    )  # fmt: skip


def fill_again(populated: PopulatedShard) -> None:
    populated.fill("fresh")


def join_as(kind: Kind) -> Transition:
    return lambda populated: populated.join_only("fresh", kind=kind)


def fill(populated: PopulatedShard) -> None:
    populated.join_only("fresh", kind=NEW)
    populated.fill("fresh")


def declare(populated: PopulatedShard) -> None:
    """Says what a runtime can run, as if the server did not know it."""
    populated.db.hdel(populated.keys.fixed("KIND_OF"), "slim2")
    populated.run(populated.shard.declare("slim2", packed_kind(SLIM), unknown_ttl=600.0))


def expire(populated: PopulatedShard) -> None:
    lane = rb"lost\u001f\u001f9"
    how: dict[str, Any] = {"unknown_ttl": 0, "failed_ttl": 60, "body": b"{}"}
    populated.run(populated.shard.expire(lane, **how))


def sort(populated: PopulatedShard) -> None:
    """Moves the tasks of the common lane, because all that serve it have left."""
    for runtime in populated.db.hkeys(populated.keys.fixed("KIND_OF")):  # type: ignore[union-attr]  # the client is synchronous
        if not runtime.startswith(b"gpu"):
            populated.run(populated.shard.leave(runtime.decode()))
    while populated.run(populated.shard.sort()):
        pass


def leave(*runtimes: str) -> Transition:
    """Makes runtimes leave; with the last of a kind, the kind goes."""

    def transition(populated: PopulatedShard) -> None:
        for runtime in runtimes:
            populated.run(populated.shard.leave(runtime))

    return transition
