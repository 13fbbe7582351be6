"""Interrupts the scripts of schedules at each of their server calls, and calls them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

import attrs
import msgspec
import pytest
from fairactor_dependencies import Dependencies
from fairactor_scheduling import Scheduling
from fairactor_scheduling._plugin import ticks
from fairactor_scheduling._rule import Stored
from fairactor_scheduling._schedule import key_of, new_run_id
from fairactor_scheduling._storage import pack_graph

from fairactor._model import record
from fairactor._model.wire import Item, pack_extra, pack_item, pack_key
from fairactor._plugin_chain import PluginChain
from fairactor._store import loader as scripts
from fairactor._store.script_runner import Elsewhere, KnownLayout
from fairactor._store.shard import Shard
from tests.support import servers
from tests.support.shard.driver import ShardDriver, item, outcome, sync_server
from tests.support.shard.populated import PopulatedShard

OURS: Final = "fairactor_scheduling"
HOUR: Final = 3_600_000
KEY: Final = pack_key("k", 60.0)
RUN: Final = new_run_id()


def graph_of(tenant: str, many: int) -> dict[str, Any]:
    """Returns the fields of a schedule that sends a chain of tasks."""
    ids = [f"{RUN}:{n}" for n in range(many)]
    items = []
    for n, each in enumerate(ids):
        parents = ids[n - 1 : n] if n else []
        waits = {"parents": parents, "tenants": [tenant], "keep": 1000, "shard": 0} if n else {}
        body = record.encode(record.Call("note", [], {}, {"depends_on": parents} if n else {}))
        extra = pack_extra({"fairactor_dependencies": {"dependencies": waits}})
        items.append(pack_item(Item(each, tenant, 3, "", "+" if n else "", body, b"", extra)))
    return {"item": b"", "graph": pack_graph(RUN, ids, items), "many": many, "plugins": "fairactor_dependencies"}


class Clockwork(PopulatedShard):
    """A shard with schedules of all kinds that are due."""

    def __init__(self, url: str) -> None:
        ShardDriver.__init__(self, url)
        server = sync_server(self.db, url, flags=self.flags)
        self.plugins = PluginChain([Dependencies(), Scheduling()]).lua
        self.layout = KnownLayout()
        self.shard = Shard(server, self.keys, patience=0, plugins=self.plugins, layout=self.layout)
        self.open()
        self.join("r")
        seconds, _ = self.db.time()  # type: ignore[misc]
        self.base = seconds * 1000 - 5000
        self._populate()
        self.kept = self.dump()
        self.live = set()

    def call(self, script: str, *arguments: Any) -> Any:
        return self.run(self.shard.call(f"{OURS}/{script}", *arguments))

    def place(self, tenant: str, name: str) -> str:
        return f"{self.keys.meta}:plugin:{OURS}:schedule:{key_of(tenant, name)}"

    def put(
        self,
        tenant: str,
        name: str,
        *,
        version: str = "",
        generation: str = "",
        key: bytes = b"",
        graph: int = 0,
        **rule: Any,
    ) -> None:
        stored = Stored(**{"every": HOUR, "anchor": self.base, "catch_up": "all"} | rule)
        body = record.encode(record.Call("note", [], {}))
        planned = self.base - (HOUR if name == "allow" else 0)
        fields = {
            "definition": msgspec.json.encode(stored), "digest": name, "message": name, "metadata": b"{}",
            "planned": planned, "item": pack_item(Item("", tenant, 3, "", "", body, key)), "overlap": stored.overlap,
            "budget": stored.budget or "", "kept": stored.kept, "created": self.base,
        }  # fmt: skip
        if graph:
            fields |= graph_of(tenant, graph)
        flat = [part for pair in fields.items() for part in pair]
        self.call("put", key_of(tenant, name), version, generation or f"{tenant}.{name}".ljust(24, "-"), planned, *flat)

    def _populate(self) -> None:
        self.configure("small", backlog=1)
        self.send(item("one", "u"), item("two", "u"), item("three", "v", key=KEY))
        assert set(self.claim("r", 1, 2)) < {"one", "two", "three"}
        self.put("t", "allow")
        for name, how in (("skip", {}), ("queue", {}), ("last", {"budget": 1}), ("goes", {})):
            self.put("t", name, overlap=name if name in {"skip", "queue"} else "queue", **how)
            before = {"skip": "one", "queue": "two", "last": "gone", "goes": "gone"}[name]
            self.db.hset(self.place("t", name), "previous", before)
        self.db.hset(self.place("t", "goes"), "waiting", msgspec.msgpack.encode([self.base - HOUR]))
        self.put("small", "full")
        self.put("v", "keyed", key=KEY)
        self.put("t", "behind", overlap="queue")
        self.db.hset(self.place("t", "behind"), "previous", "schedule:x:1")
        self._wait_behind()
        self.put("t", "graph", graph=3, overlap="queue")
        self.db.hset(self.place("t", "graph"), "previous", "schedule:y:1")
        self.db.hset(self.place("t", "graph"), "tasks", msgspec.msgpack.encode(["gone", "three", "gone too"]))
        self.put("t", "chain", graph=3)
        self.send(item("fills", "small"))
        _, now, *due = self.call("due", "r", 100, 60_000)
        assert len(due) == 9
        self.arguments = ticks(due, int(now))

    def _wait_behind(self) -> None:
        """Adds a started run, and the next one that waits for it."""
        self.send(item("schedule:x:1", "w"))
        turn = 2
        while "schedule:x:1" not in self.claim("r", turn, 9):
            turn += 1
        self.turn_of_run = turn
        self.db.hset(self.place("t", "behind"), "waiting", msgspec.msgpack.encode([self.base - HOUR]))
        self.db.hset(f"{self.keys.meta}:plugin:{OURS}:behind", "schedule:x:1", "1:tbehind")
        self.db.hset(self.place("t", "behind"), "planned", self.base + HOUR)
        self.db.zadd(f"{self.keys.meta}:plugin:{OURS}:due", {"1:tbehind": self.base + 1000 * HOUR})

    def schedules(self) -> dict[str, Any]:
        """Returns the stored schedules without timestamps."""
        found: dict[str, Any] = {}
        for key in self.db.scan_iter(match=f"*:plugin:{OURS}:schedule:*"):
            fields = {field.decode(): value for field, value in self.db.hgetall(key).items()}
            lines = [line.split(b" ") for line in fields.get("lines", b"").splitlines()]
            fields["lines"] = [[task, outcome, b":now:" in task or at] for at, _, outcome, task in lines]
            for of_time in ("created", "checked", "until"):
                fields.pop(of_time, None)
            found[key.decode().rpartition("schedule:")[2]] = fields
        for name in ("all", "due"):
            place = f"{self.keys.meta}:plugin:{OURS}:{name}"
            found[name] = sorted(self.db.zrange(place, 0, -1))
        found["behind"] = self.db.hgetall(f"{self.keys.meta}:plugin:{OURS}:behind")
        return found

    def gather(self) -> dict[str, Any]:
        return {**super().gather(), "schedules": self.schedules()}


Transition = Callable[[Clockwork], Any]


def tick(clockwork: Clockwork) -> None:
    clockwork.call("tick", *clockwork.arguments)


def look_after(clockwork: Clockwork) -> None:
    """Does what a runtime does next: asks which schedules are due, and runs them."""
    _, now, *due = clockwork.call("due", "r", 100, 60_000)
    if due:
        clockwork.call("tick", *ticks(due, int(now)))


def end_a_run(clockwork: Clockwork) -> None:
    ended = outcome("schedule:x:1", clockwork.turn_of_run, "F60000", "w")
    assert clockwork.turn("r", clockwork.turn_of_run + 1, 0, [ended])


def put(clockwork: Clockwork) -> None:
    clockwork.put("new", "one", generation="g")


def replace(clockwork: Clockwork) -> None:
    clockwork.put("t", "allow", version="1", generation="g", budget=5)


@attrs.frozen
class Case:
    script: str
    transition: Transition
    then: Transition = lambda _: None


def calls(script: str, *arguments: Any) -> Case:
    return Case(f"{OURS}/{script}", lambda clockwork: clockwork.call(script, *arguments))


ARRIVING: Final = [
    ["1:zactive", "5", "", ["state", "active", "version", "1", "planned", "5", "graph", "g"]],
    ["1:zfinished", "99999999999999", "", ["state", "finished", "version", "1", "until", "99999999999999"]],
    ["1:zpaused", "", "note", ["state", "paused", "version", "1"]],
    ["1:tallow", "5", "", ["state", "active", "version", "100"]],
]
"""Schedules as import.lua takes them; the last one is there already."""

CASES: Final = {
    "tick": Case(f"{OURS}/tick", tick, look_after),
    "end of a run that another one waits for": Case("turn", end_a_run, look_after),
    "put": Case(f"{OURS}/put", put),
    "put of another definition": Case(f"{OURS}/put", replace),
    "remove": calls("remove", "1:tqueue", ""),
    "pause": calls("pause", "1:tallow"),
    "resume": calls("resume", "1:tallow"),
    "run": calls("run", "1:tallow", "schedule:now:x"),
    "due": calls("due", "r", 100, 60_000),
    "leave": calls("leave", "r"),
    "get": calls("get", "1:tallow", "state"),
    "list": calls("list", "-", "+", 100, "", "state"),
    "declared": calls("declared", "0"),
    "tenants": calls("tenants", "-"),
    "late": calls("late"),
    "export": calls("export", "t", "-", "+"),
    "exported": calls("exported", "t", "1:tqueue", "1:tbehind"),
    "import": calls("import", ",fairactor_dependencies,", *map(msgspec.msgpack.encode, ARRIVING)),
}


@pytest.fixture(scope="module")
def clockwork(server_binary: str) -> Iterator[Clockwork]:
    with servers.running(server_binary) as url:
        made = Clockwork(url)
        yield made
        made.close()


def test_every_script_is_there() -> None:
    assert {case.script for case in CASES.values()} - {"turn"} == {f"{OURS}/{each}" for each in Scheduling().scripts}


def test_a_tick_does_what_each_schedule_says(clockwork: Clockwork) -> None:
    clockwork.restore()
    tick(clockwork)
    found = clockwork.schedules()
    lines = {name: found[f"1:t{name}"]["lines"] for name in ("allow", "skip", "queue", "last", "goes")}
    assert {name: [line[1] for line in of] for name, of in lines.items()} == {
        "allow": [b"sent", b"sent"], "skip": [b"skipped"], "queue": [], "last": [b"sent"], "goes": [b"sent"],
    }  # fmt: skip
    assert found["1:vkeyed"]["lines"][0][1] == b"duplicate"
    assert found["1:tlast"]["state"] == b"finished"
    [[task, outcome, _]] = found["1:tchain"]["lines"]
    assert (outcome, len(task)) == (b"sent", len(RUN))
    assert sorted(clockwork.db.hkeys(f"{clockwork.keys.meta}:held")) == [b"%b:%d" % (task, n) for n in (1, 2)]
    waiting = {
        key: msgspec.msgpack.decode(found[key]["waiting"]) for key in ("1:tqueue", "1:tgoes", "5:smallfull", "1:tgraph")
    }
    assert waiting == {key: [clockwork.base] for key in waiting}
    assert found["behind"] == {
        b"schedule:x:1": b"1:tbehind", b"two": b"1:tqueue", b"three": b"1:tgraph",
        found["1:tgoes"]["previous"]: b"1:tgoes",
    }  # fmt: skip


@pytest.mark.parametrize("title", CASES)
def test_a_script_that_is_called_twice_does_nothing_the_second_time(clockwork: Clockwork, title: str) -> None:
    case = CASES[title]
    clockwork.restore()
    case.transition(clockwork)
    once = clockwork.gather()
    if title != "end of a run that another one waits for":  # a repeated turn is recognized by its number
        case.transition(clockwork)
    assert clockwork.gather() == once


@pytest.mark.parametrize("title", CASES)
def test_wherever_a_script_breaks_off_it_comes_to_the_same_when_it_is_called_again(
    clockwork: Clockwork, title: str
) -> None:
    case = CASES[title]
    clockwork.restore()
    case.transition(clockwork)
    case.then(clockwork)
    want = clockwork.gather()
    for at in count(1):
        clockwork.restore()
        if clockwork.breaks(case.script, at, case.transition) is None:  # type: ignore[arg-type]
            break
        clockwork.insist(case.transition)  # type: ignore[arg-type]
        case.then(clockwork)
        found = clockwork.gather()
        for part in want:
            assert found[part] == want[part], f"{part}, broken off at {at}"
    assert at > 2


def test_a_tick_sends_only_where_its_schedule_stands_as_it_thought(clockwork: Clockwork) -> None:
    clockwork.restore()
    assert clockwork.call("tick", *clockwork.arguments, *clockwork.arguments) == [1] * 9 + [0] * 9
    assert clockwork.call("tick", *clockwork.arguments) == [0] * 9
    clockwork.restore()
    replace(clockwork)
    clockwork.call("pause", "1:tskip")
    clockwork.call("remove", "1:tqueue", "")
    replies = dict(zip([msgspec.msgpack.decode(each)[0] for each in clockwork.arguments],
                       clockwork.call("tick", *clockwork.arguments), strict=True))  # fmt: skip
    assert {name for name, reply in replies.items() if not reply} == {"1:tallow", "1:tskip", "1:tqueue"}


def test_a_tick_sends_a_limited_number_of_tasks_of_graphs(clockwork: Clockwork) -> None:
    clockwork.restore()
    for n in range(8):
        clockwork.put("g", f"s{n}", graph=100)
    clockwork.put("g", "often", graph=100, every=1000, anchor=clockwork.base - 8000)
    clockwork.db.hset(clockwork.place("g", "often"), "planned", clockwork.base - 8000)

    def count_sent() -> int:
        """Returns how many runs have been sent: those that wait were counted, too."""
        found = [fields for name, fields in clockwork.schedules().items() if name.startswith("1:g")]
        return sum(int(fields["runs"]) - len(msgspec.msgpack.decode(fields["waiting"])) for fields in found)

    sent = [0]
    while len(sent) == 1 or sent[-1] > sent[-2]:
        _, now, *due = clockwork.call("due", "r", 100, 60_000)
        clockwork.call("tick", *ticks([each for each in due if each[0].startswith(b"1:g")], int(now)))
        sent.append(count_sent())
        assert sent[-1] - sent[-2] <= 2, "a script sends 250 tasks at most"
    assert sent[-1] >= 8 + 8


def test_nothing_is_sent_or_changed_for_a_tenant_that_has_gone(clockwork: Clockwork) -> None:
    clockwork.restore()
    assert clockwork.run(clockwork.shard.ask_to_go("t"))
    before = clockwork.schedules()
    replies = dict(zip([msgspec.msgpack.decode(each)[0] for each in clockwork.arguments],
                       clockwork.call("tick", *clockwork.arguments), strict=True))  # fmt: skip
    assert {name for name, reply in replies.items() if reply} == {"1:vkeyed", "5:smallfull"}
    for script, *arguments in (
        ("get", "state"), ("put", "", "g", 1), ("remove", ""), ("pause",), ("resume",), ("run", "id"),
    ):  # fmt: skip
        for schedule in ("1:tallow", "1:tnew"):
            with pytest.raises(Elsewhere):
                clockwork.call(script, schedule, *arguments)
    with pytest.raises(Elsewhere):
        clockwork.call("list", "-", "+", 100, "t", "state")
    _, _, *due = clockwork.call("due", "r", 100, 60_000)
    found = clockwork.schedules()
    away = {name: fields for name, fields in found.items() if name.startswith("1:t")}
    assert away == {name: fields for name, fields in before.items() if name.startswith("1:t")}
    assert {each[0].decode() for each in due if len(each) == 1} == away.keys() - {"1:tbehind"}
    _, *flat = clockwork.call("export", "t", "-", "+")
    assert {name.decode() for name in flat[::2]} >= away.keys()
    assert clockwork.call("import", "", *flat[1::2]) == [int(not name.startswith(b"1:t")) for name in flat[::2]]
    assert clockwork.call("exported", "t", *away) == 1
    assert not [name for name in clockwork.schedules()["all"] if name.startswith(b"1:t")]


def test_what_was_removed_here_does_not_come_back_from_the_shard_where_it_was(clockwork: Clockwork) -> None:
    clockwork.restore()
    clockwork.db.hset(clockwork.keys.meta, "layout", "2:1,2")
    clockwork.layout.epoch = 2
    try:
        _, _, packed = clockwork.call("export", "t", "[1:tallow", "[1:tallow")
        assert clockwork.call("remove", "1:tallow", "") == 1
        assert clockwork.call("import", "", packed) == [1]
        assert clockwork.call("remove", "1:tallow", "") == 0
    finally:
        clockwork.layout.epoch = 0


def test_the_hook_stands_where_tasks_end(clockwork: Clockwork) -> None:
    text = scripts.load("turn", flags=True, plugins=clockwork.plugins).text
    assert "'schedule:' and call('HGET', (meta .. ':plugin:fairactor_scheduling:') .. 'behind', id)" in text
