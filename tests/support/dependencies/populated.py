"""A shard with tasks that depend on others in every way. Tests can interrupt its scripts."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from fairactor_dependencies import result_of, results
from fairactor_dependencies._batch import BatchItem, hold_behind_gate, index_by_id, resolve_parents
from fairactor_dependencies._options import NAME, Parents
from fairactor_dependencies._placeholders import ResultOf, Selection

from fairactor import Message, actor
from fairactor._audit.snapshot import text
from fairactor._client.envelope import encode_message
from fairactor._model import record
from fairactor._model.wire import Item, Settlement, turn_mark
from tests.support.shard.driver import ShardDriver, item
from tests.support.shard.populated import PopulatedShard, Transition

from .two_shards import Plugin, extensions, token_of, waiting_of

FAR: Final = "far"
"""A tenant of shard 1; all other tenants are on shard 0."""
HOUR: Final = 3_600_000  # ms
STARTED: Final = ("a", "b", "x", "y")


@actor(name="step")
async def step(*arguments: Any) -> None:
    """Is never run."""


def task(name: str, *parents: str, tenant: str = "t", wants: str = "", **options: Any) -> tuple[str, Message[Any]]:
    """Makes a task with parents; ``wants`` names the results that it takes: 'first', 'all' or 'rest'."""
    arguments = {
        "first": result_of(parents[0] if parents else ""),
        "all": results(),
        "rest": ResultOf(Selection.ALL_BUT_FIRST),
    }
    message = step(*([arguments[wants]] if wants else []))
    return tenant, message.options(id=name, depends_on=list(parents), **options)


def batch_of(
    tasks: Sequence[tuple[str, Message[Any]]],
    homes: Mapping[str, int],
    gate: str = "",
    keep: int = HOUR,
    following: Collection[str] = (),
) -> list[BatchItem]:
    """Makes a batch as a send does; the parents of ``following`` are sent after it."""
    batch = [
        BatchItem(tenant, message, int(tenant == FAR), Parents(ids, dict.fromkeys(ids)))
        for tenant, message in tasks
        for ids in [message.task_options.plugin_options["depends_on"]]
    ]
    places = index_by_id(batch)
    for each in batch:
        each.follow = each.id in following
        resolve_parents(each, batch, places, dict(homes), keep)
    if gate:
        hold_behind_gate(batch, places, gate, keep)
    return batch


def packed(tasks: Sequence[tuple[str, Message[Any]]], homes: Mapping[str, int], gate: str = "") -> list[Item]:
    """Encodes tasks as a send does, without those of the other shard."""
    return encoded(batch_of(tasks, homes, gate))


def encoded(batch: Sequence[BatchItem]) -> list[Item]:
    """Encodes a batch without the tasks of the other shard."""
    return [encode_message(*each.addressed(), watch=False, max_payload=1 << 20) for each in batch if each.shard == 0]


def _item(joined: str, number: int) -> Item:
    """Encodes an item of a map."""
    item = BatchItem("t", step(number).options(id=f"{joined}/{number}"), 0, Parents())
    item.script_input |= {"item": (joined, number + 1), "keep": HOUR}
    return encode_message(*item.addressed(), watch=False, max_payload=1 << 20)


def message(
    kind: str, letter: str, place: int, task_id: str, parent: str = "", root: str = "", result: str = ""
) -> bytes:
    """Packs a message from the other shard."""
    names = b"".join(struct.pack(">H", len(name)) + name.encode() for name in (task_id, parent, root))
    return struct.pack(">HccBI", 0, kind.encode(), letter.encode(), 1, place) + names + result.encode()


class WaitingShard(PopulatedShard):
    """A shard with dependent tasks that can be restored to its first state."""

    def __init__(self, url: str, few: tuple[int, int, int, int] | None) -> None:
        ShardDriver.__init__(self, url, plugins=extensions(few))
        self.open()
        self.plugin = Plugin(self)
        self._populate()
        self.kept = self.dump()
        self.held = {name: self.db.get(self.keys.task(name)) for name in STARTED}
        self.live = {name for name, header in self.check().records.items() if header.state == b"L"}
        self.new = packed(
            [
                task("n1", "done", wants="first"),
                task("n2", "failed"),
                task("n3", "n2", trigger_rule="all_done", wants="all"),
                task("n4", "a", "done", "n1", wants="all"),
                task("n5", "there", "done", wants="all"),
                task("n6", "n2", "canceled"),
                task("n7", "gone", tenant="u"),
                task("n8", "done", delay=3600, wants="first"),
                task("n9"),
                task("n10", "n9", tenant=FAR),
                *[task(f"n1{n}", "n9", "b") for n in range(1, 9)],
            ],
            {"done": 0, "failed": 0, "canceled": 0, "gone": 0, "there": 1, "a": 0, "b": 0},
        )
        self.items = [_item("joins", number) for number in range(3)]
        self.behind_gate = packed(
            [task("m1"), task("m2", "done", wants="first"), task("m3", "m1", "m2")], {"done": 0}, "new run"
        )

    def _send(self, *tasks: tuple[str, Message[Any]], gate: str = "") -> None:
        homes = {
            parent: int(parent == "there")
            for _, each in tasks
            for parent in each.task_options.plugin_options["depends_on"]
        }
        self.send(*packed(tasks, homes, gate))

    def _populate(self) -> None:
        self.join("r", "past")
        self._claim_all("past", item("done"), item("failed"), item("canceled"), item("before/0"))
        kept = [self.db.get(self.keys.task(name)) for name in ("done", "failed", "before/0")]
        reports = [("done", "F", '{"n":1}'), ("failed", "X", "null"), ("before/0", "F", "7")]
        assert self.turn(
            "past",
            2,
            0,
            [
                _report(name, packed, letter, result)
                for packed, (name, letter, result) in zip(kept, reports, strict=True)
            ],
        )
        self.run(self.shard.cancel("canceled", ttl=3600, body=b"{}"))
        self.lapse("past")
        self.maintain()
        self._claim_all("r", *[item(name) for name in STARTED])
        self.send(item("q"), item("p1", "p"), item("p2", "p", due="+3600000"))
        self._send(
            task("after a", "a", wants="first"),
            task("after a and b", "a", "b", wants="all"),
            task("later, after a", "a", delay=3600, wants="first", tenant="u"),
            task("if x failed", "x", trigger_rule="one_failed", wants="all"),
            task("not x", "x", "a"),
            task("not not x", "not x"),
            task("behind all", "not not x", "not x", trigger_rule="all_done", wants="all"),
            task("a or y", "y", "a", trigger_rule="one_success", wants="rest"),
            task("to join", "y", wants="rest"),
            task("joins", "y", wants="rest"),
            task("of q", "q", trigger_rule="all_done", wants="first"),
            task("of q too", "q"),
            task("of that", "of q too"),
            task("of p", "p1", "p2", trigger_rule="all_done"),
            task("of p too", "p1", tenant="p"),
            task("of both", "of p too", "p2"),
            task("hears", "there", "a", wants="all"),
            task("hears too", "there", tenant="u", wants="first"),
        )
        self.call("map", "joins", 3)
        for n in range(12):
            self._send(task(f"one of many {n}", "b", trigger_rule="all_done"))
        for run in ("run", "run out"):
            self.call("gate", run, HOUR, 1)
            self._send(task(f"{run} 1"), task(f"{run} 2", "failed"), task(f"{run} 3", f"{run} 1", f"{run} 2"), gate=run)
            self._send(*[task(f"{run} 1{n}", "done", wants="first") for n in range(6)], gate=run)
        self.call("gate", "in parts", HOUR, 1)
        self.in_parts = batch_of(
            [
                task("part"),
                task("has many", "part", "done", "a", "there", "x", "gone", trigger_rule="all_done", wants="all"),
                task("has many too", "part", "done", "failed", wants="all"),
            ],
            {"done": 0, "a": 0, "there": 1, "x": 0, "failed": 0, "gone": 0},
            "in parts",
            following=["has many", "has many too"],
        )
        self.send(*encoded(self.in_parts))
        self.plugin.set_due("run out")
        subscribed = message("s", " ", 1, "of a, elsewhere", "a", "1")
        self.call("arrive", subscribed, message("s", " ", 2, "of b, elsewhere", "b", "1"))

    def call(self, script: str, *arguments: Any) -> Any:
        return self.run(self.shard.call(f"{NAME}/{script}", *arguments))

    def gather(self) -> dict[str, Any]:
        """Returns the contents of the shard and of the plugin's keys, without the reasons that canceled tasks give.

        Several outcomes may cancel a task, and each gives another reason. The plugin's keys of ended tasks are left
        out, because they matter only if those tasks are redriven.
        """
        found = super().gather()
        snapshot = self.snapshot()
        tokens = {token_of(kept) for kept in snapshot.fixed["HELD"].values()}
        held = {name: waiting_of(kept)[:2] + waiting_of(kept)[3:] for name, kept in snapshot.fixed["HELD"].items()}
        bodies = {name: re.sub(rb"(?s)upstream task [^\"]*", b"", body) for name, body in found["bodies"].items()}
        live = {name for name, header in snapshot.records.items() if header.state == record.LIVE}
        keys = {
            name: content
            for name, content in _contents(self.plugin.read()).items()
            if not (name.startswith("of:t:") and name.removeprefix("of:t:") not in live)
            and not (name.startswith("got:") and name.removeprefix("got:") not in tokens)
        }
        return found | {"bodies": bodies, "waiting": held, "of plugin": keys}


def _contents(keys: dict[str, Any]) -> dict[str, Any]:
    """Returns the plugin's keys with dependents as sets, because a dependent may be listed twice."""
    found: dict[str, Any] = {}
    waiting: dict[str, set[bytes]] = {}
    for name, content in keys.items():
        if name in ("of:t", "of:g"):
            for whose, entries in zip(content[::2], content[1::2], strict=True):
                waiting.setdefault(f"{name}:{text(whose)}", set()).update(_entries(entries[3:]))
        elif name.startswith("of:"):
            waiting.setdefault(name, set()).update(entry for chunk in content for entry in _entries(chunk))
        else:
            found[name] = set(content) if name in ("outbox", "gates") else content
    return found | waiting


def _entries(packed: bytes) -> set[bytes]:
    found, at = set(), 0
    while at < len(packed):
        end = at + 9 + struct.unpack_from(">H", packed, at + 7)[0]
        found.add(packed[at:end])
        at = end
    return found


def _report(name: str, packed: Any, letter: str, result: str = "null", turn: int = 1) -> Settlement:
    header, body = record.unpack(packed)
    if letter == "F":
        packed = record.pack_settled(
            "F", header.rest, record.Outcome("a", msgspec.Raw(result.encode()), None, 1.0, 2.0)
        )
    elif letter == "X":
        packed = record.pack_settled("X", header.rest, record.Outcome("a", error=record.Error("E", "no")), body)
    elif letter == "R":
        packed = record.pack_retried(header, body, record.Attempt(header.attempt, 1e9, 0.5, "r", "E", "no"))
    return Settlement(name, turn_mark(turn), letter, HOUR, packed)


# Transitions


def turn(want: int, **letters: str) -> Transition:
    """Makes a turn that reports the outcomes of tasks."""

    def transition(populated: Any) -> None:
        reports = [_report(name, populated.held[name], letter, f'["{name}"]') for name, letter in letters.items()]
        assert populated.turn("r", 2, want, reports)

    return transition


def claim_the_rest(populated: Any) -> None:
    populated.claim("r", 3, 100)


def call(script: str, *arguments: Any) -> Transition:
    return lambda populated: populated.call(script, *arguments)  # type: ignore[attr-defined]


def send(populated: Any) -> None:
    populated.insist_on(*populated.new)


def send_items(populated: Any) -> None:
    populated.insist_on(*populated.items)


def send_behind_a_gate(populated: Any) -> None:
    populated.call("gate", "new run", HOUR)
    populated.insist_on(*populated.behind_gate)


ARRIVING: Final = (
    message("e", "F", 1, "hears", "there", "there", '{"far":[]}'),
    message("e", "F", 1, "hears too", "there", "there", '{"far":[]}'),
    message("s", " ", 1, "of done, elsewhere", "done", "1"),
    message("s", " ", 1, "of q, elsewhere", "q", "1"),
    message("s", " ", 1, "of nothing, elsewhere", "nothing", "1"),
    message("e", "F", 3, "still to be sent", "there", "there", "1"),
    message("g", "F", 0, "run"),
)
