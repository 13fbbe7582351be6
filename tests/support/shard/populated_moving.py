"""A shard with something of everything, from which tenants move and to which tenants move, and transitions for it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fairactor._model.layout import Layout
from fairactor._model.limit import limit_changes
from fairactor._model.wire import Arrival, pack_key
from fairactor._store.migration import Departure

from .driver import item, outcome
from .model_tasks import Task, pack
from .populated import PopulatedShard, Transition

LEAVES: Final = {"mv.1", "mv.2", "mv.3", "mv.key", "mv.later", "mv.suspect"}
"""The waiting tasks of tenant mv, which has gone."""
POLICY: Final = {"concurrency": 2, "rate": ("1/h", 3.6e9, 1)}
DEPARTURE: Final = Departure(
    "gone", policy=msgspec.msgpack.encode(POLICY), debts=[b"3600000000", b"api", b"", b"5000000"]
)


class MovingShard(PopulatedShard):
    """A populated shard of a namespace that grows. Tenants mv and tidy have gone, hd is held up, and ar arrives."""

    empty: frozenset[str] = PopulatedShard.empty - {"LIMIT_SETTINGS", "LIMIT_DUES"}

    def _populate(self) -> None:
        super()._populate()
        run, shard = self.run, self.shard
        run(shard.change_limit("api", limit_changes({"rate": "10/h", "per": "tenant"})))
        self.configure("mv", weight=1e6)  # it comes first
        self.join("third", "dies")
        self._claim_all("third", item("mv.letter", "mv", 6))
        self.claim("third", 2, 0, [outcome("mv.letter", 1, "X3600000", "mv")])
        self._claim_all("dies", item("mv.suspect", "mv", 6, flag="w"))
        self.lapse("dies")
        self.maintain()
        self.send(item("mv.1", "mv", flag="w"), item("mv.2", "mv", 5), item("mv.3", "mv", 1))
        self.send(item("mv.key", "mv", key=pack_key("mk", 3600.0), flag="w"), item("mv.later", "mv", due="+3600000"))
        self.send(item("hd.1", "hd"), item("hd.2", "hd"), item("lv.1", "lv"), item("lv.2", "lv"))
        for tenant in ("mv", "hd"):
            assert run(shard.depart(tenant, "hold")).state == "held"
        assert run(shard.depart("mv", "go")).state == "gone"
        assert run(shard.ask_to_go("tidy"))
        assert len(run(shard.export("mv"))) == 6
        assert run(shard.lead("r", 1e6))
        assert run(shard.welcome("ar", "arriving", DEPARTURE)) == "arriving"
        assert run(shard.import_tasks("ar", arrivals("ar.1", "ar.2"))) == []


def arrivals(*tasks: str, tenant: str = "ar", key: bytes = b"", due: bytes = b"") -> list[Arrival]:
    """Makes tasks that come from another shard; ``due`` is in unix ms."""
    first = 1e3 * float(due or 1e12)
    return [
        Arrival(task.encode(), due, key, pack(b"L", Task(task, tenant, 3, b"{}", "", stamp=first + n)))
        for n, task in enumerate(tasks)
    ]


def letter(task: str, tenant: str, until: float) -> Arrival:
    """Makes a dead letter that comes from another shard."""
    return Arrival(task.encode(), b"%d" % (until * 1e6), b"", pack(b"X", Task(task, tenant, 3, b"{}", "")))


def depart(tenant: str, *wishes: str) -> Transition:
    def transition(populated: PopulatedShard) -> Any:
        return [populated.run(populated.shard.depart(tenant, wish)).state for wish in wishes]

    return transition


def welcome(tenant: str, wish: str) -> Transition:
    return lambda p: p.run(p.shard.welcome(tenant, wish, DEPARTURE))


def export(populated: PopulatedShard) -> None:
    assert {task.id.decode() for task in populated.run(populated.shard.export("mv"))} == LEAVES


def bring(*tasks: Arrival, tenant: str = "ar") -> Transition:
    return lambda p: p.run(p.shard.import_tasks(tenant, tasks))


def exported(*tasks: str, tenant: str = "mv") -> Transition:
    return lambda p: p.run(p.shard.exported(tenant, [task.encode() for task in tasks]))


def grow(populated: PopulatedShard) -> None:
    populated.run(populated.shard.grow(Layout((1, 2), growing=True)))
