"""Two shards with the dependencies plugin, and their comparison with the model."""

from __future__ import annotations

import re
import struct
from collections.abc import Coroutine, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

import attrs
from fairactor_dependencies import Dependencies
from fairactor_dependencies._options import NAME

from fairactor._audit.snapshot import Snapshot, text
from fairactor._model import record
from fairactor._plugin_chain import PluginChain
from fairactor._store.plugin_lua import PluginLua
from tests.support.shard.driver import ShardDriver

from .model import Model, Run, Step, counts

_KEYS: Final = """
local readers = {
  hash = function(key) return redis.call('HGETALL', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1) end,
}
local reply = {}
for i, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local read = readers[redis.call('TYPE', key).ok]
  reply[i] = { key, read and read(key) or '' }
end
return reply
"""


@cache
def extensions(few: tuple[int, int, int, int] | None) -> PluginLua:
    """Returns the plugin's Lua.

    ``few`` lowers its limits: what one script may spend on tasks, entries in a field, entries in an element of a list,
    and elements read at once.
    """
    whole = PluginChain([Dependencies()]).lua
    hooks = []
    for place, plugin, lua in whole.hooks:
        limits = (few[0], *few) if few else ()
        for name, number in zip(("BUDGET", "BUDGET_ALONE", "MOST", "CHUNK", "CHUNKS"), limits, strict=False):
            lua, found = re.subn(rf"(local .*\b{name}\b.* = ).*", _Setting(name, number), lua)  # noqa: PLW2901
            assert found == (place == "ends")
        hooks.append((place, plugin, lua))
    return attrs.evolve(whole, hooks=tuple(hooks))


class _Setting(NamedTuple):
    """Replaces the number of one name in a ``local`` line of Lua."""

    name: str
    number: int

    def __call__(self, line: re.Match[str]) -> str:
        code, _, comment = line[0].partition(" --")
        names, values = code.removeprefix(line[0][: line[0].index("local")]).removeprefix("local ").split(" = ")
        given = dict(zip(names.split(", "), values.split(", "), strict=True)) | {self.name: str(self.number)}
        return f"local {', '.join(given)} = {', '.join(given.values())} --{comment}"


class Message(NamedTuple):
    """A message from one shard to another."""

    to: int
    kind: str
    letter: str
    place: int
    id: str


def message_of(packed: bytes) -> Message:
    to, kind, letter, _, place, length = struct.unpack_from(">HccBIH", packed)
    at = struct.calcsize(">HccBIH")
    return Message(to, kind.decode(), letter.decode(), place, packed[at : at + length].decode())


class Waiting(NamedTuple):
    """What the plugin stores about a waiting task."""

    rule: str
    gate: str
    keep: float
    counts: tuple[int, int, int]
    heard: str


def waiting_of(packed: bytes) -> Waiting:
    at = struct.calcsize(">Bd")
    for size in (">H", ">B"):  # the tenant, the plugin
        at += struct.calcsize(size) + struct.unpack_from(size, packed, at)[0]
    rule, at = packed[at + 1 : at + 1 + packed[at]].decode(), at + 1 + packed[at]
    gate, keep, *counts = struct.unpack_from(">cdIII", packed, at)
    at += struct.calcsize(">cdIII")
    heard = packed[at + 1 + packed[at] :].decode()
    finished, failed, canceled = counts
    return Waiting(rule, gate.decode(), keep, (finished, failed, canceled), heard)


def token_of(packed: bytes) -> str:
    """Returns the token of a waiting task."""
    at = packed.rindex(waiting_of(packed).heard.encode()) if waiting_of(packed).heard else len(packed)
    return packed[at - 24 : at].decode(errors="replace")


class Plugin:
    """The plugin's keys on one shard."""

    def __init__(self, driver: ShardDriver) -> None:
        self._db = driver.db
        self.prefix = f"{driver.keys.meta}:plugin:{NAME}:"

    def set_due(self, run: str) -> None:
        """Makes the gate of a run due."""
        self._db.zadd(f"{self.prefix}gates", {run: 1}, xx=True)

    def make_due(self) -> None:
        """Makes messages due again that a runtime has taken, so that another may take them."""
        outbox = f"{self.prefix}outbox"
        if messages := self._db.zrange(outbox, 0, -1):
            self._db.zadd(outbox, dict.fromkeys(messages, 1))  # type: ignore[arg-type]

    def gates(self) -> set[str]:
        return {text(run) for run in self._db.zrange(f"{self.prefix}gates", 0, -1)}

    def read(self) -> dict[str, Any]:
        found: list[Any] = self._db.eval(_KEYS, 0, re.sub(r"([*?\[\]\\])", r"\\\1", self.prefix))  # type: ignore[assignment]
        return {text(key).removeprefix(self.prefix): content for key, content in found}


class TwoShards:
    """Two shards on one server, and their contents at the last snapshot."""

    def __init__(self, url: str) -> None:
        self.drivers = [ShardDriver(url, namespace=name) for name in "ab"]
        self._url = url

    def close(self) -> None:
        for driver in self.drivers:
            driver.close()

    def open(self, few: tuple[int, int, int, int] | None) -> None:
        """Empties the server and opens both shards."""
        self.drivers[0].db.flushall()
        for driver in self.drivers:
            driver.load_plugins(extensions(few))
            driver.run(driver.shard.open(shards=None, aging=60.0))
        self.plugins = [Plugin(driver) for driver in self.drivers]
        self.air: list[list[bytes]] = [[], []]
        """The messages that were taken from each shard and not acknowledged."""
        self.rest: list[set[str]] = [set(), set()]
        self.outbox: list[list[Message]] = [[], []]
        self._messages: set[Message] = set()
        self._before: set[Message] = set()

    def call(self, shard: int, script: str, *arguments: Any) -> Coroutine[Any, Any, Any]:
        return self.drivers[shard].shard.call(f"{NAME}/{script}", *arguments)

    def run(self, shard: int, script: str, *arguments: Any) -> Any:
        """Runs a script of the plugin."""
        return self.drivers[shard].run(self.call(shard, script, *arguments))

    def used(self, shard: int) -> bool:
        return NAME.encode() in (self.drivers[shard].db.hget(self.drivers[shard].keys.meta, "plugins") or b"")  # type: ignore[operator]

    def record(self, step: Step) -> bytes:
        found = self.drivers[step.shard].db.get(self.drivers[step.shard].keys.task(step.id))
        assert isinstance(found, bytes)
        return found

    # Snapshots

    def snapshot(self) -> None:
        self.snapshots: list[Snapshot] = [driver.check() for driver in self.drivers]
        self.keys: list[dict[str, Any]] = [plugin.read() for plugin in self.plugins]
        self._standing: list[dict[str, str]] = [dict(_standing(snapshot)) for snapshot in self.snapshots]
        self.rest = [{text(name) for name in keys.get("rest", [])[::2]} for keys in self.keys]
        self.outbox = [list(map(message_of, keys.get("outbox", []))) for keys in self.keys]
        self._before = self._messages
        self._messages = {*self.outbox[0], *self.outbox[1], *(message_of(m) for air in self.air for m in air)}
        self._said = {(message.kind, message.id, message.place) for message in self._messages}
        self._asking = self._said | {(message.kind, message.id, message.place) for message in self._before}

    def under_way(self, step: Step, place: int, parent: Step) -> bool:
        """Returns whether a parent's outcome may be on its way to the task."""
        if step.follows or f"t{parent.id}" in self.rest[parent.shard]:
            return True
        return parent.shard != step.shard and bool({(kind, step.id, place + 1) for kind in "es"} & self._said)

    def asks(self, step: Step, place: int) -> bool:
        return step.follows or ("s", step.id, place + 1) in self._asking

    def gate_choice(self, step: Step) -> str:
        """Returns the states of its gate that a task may have received."""
        run = step.run
        if run is None:
            return "o"
        if not run.ended:
            return "c"
        told = "o" if run.ended == "F" else "n"
        if step.gate != "c":
            return told
        return told + "c" if self._gate_under_way(run, step.shard) else told

    def _gate_under_way(self, run: Run, shard: int) -> bool:
        if f"g{run.id}" in self.rest[shard]:
            return True
        return shard != run.shard and any(
            message[:2] == (shard, "g") and message.id == run.id for message in self._messages
        )

    def stands(self, step: Step) -> str:
        return self._standing[step.shard].get(step.id, "gone")

    # Updating the model

    def learn(self, model: Model, purged: str) -> None:
        """Copies the state of waiting tasks from the shards to the model where the model allows it."""
        learned = 1
        while learned:
            learned = sum(self._learn_one(model, step, purged) for step in model.of("deferred"))

    def _learn_one(self, model: Model, step: Step, purged: str) -> bool:
        stands, verdicts = self.stands(step), model.verdicts(step, self.gate_choice(step))
        if stands == "deferred":
            return self._hears(model, step)
        if stands in ("canceled", "gone"):
            by_hand = step.tenant == purged
            return (False in verdicts or by_hand) and self._cancels(model, step, by_hand=by_hand)
        if True not in verdicts:
            return False
        assert (stands == "scheduled") is step.delayed, f"{step.id} is {stands}"
        body = record.unpack(self.record(step))[1]
        assert body in model.bodies(step), f"{body!r} and {model.bodies(step)}"
        step.body, step.state = body, stands
        if stands == "started":
            (step.runtime,) = (who for who, claims in self.snapshots[step.shard].claims.items() if step.id in claims)
        return True

    def _hears(self, model: Model, step: Step) -> bool:
        kept = self.waiting(step)
        fits = all(letter in model.choice(step, place) for place, letter in enumerate(kept.heard))
        if not fits or kept.gate not in self.gate_choice(step) or (kept.heard, kept.gate) == (step.heard, step.gate):
            return False
        step.heard, step.gate = kept.heard, kept.gate
        return True

    def _cancels(self, model: Model, step: Step, *, by_hand: bool) -> bool:
        letters, kept = model.letters_of_canceled(step), self.stands(step) == "canceled"
        assert kept or by_hand or not step.keep
        if not kept and by_hand:
            letters = "".join(dict.fromkeys("C" + letters))
        if kept:
            error = record.outcome_in(record.unpack(self.record(step))[1]).error
            assert error is not None
            if error.message == "by hand":
                assert by_hand
                letters = "C"
            else:
                letter = {"UpstreamFailed": "X", "TaskSkipped": "S"}.get(error.type, "C")
                if letter not in letters:
                    return False
                assert model.names_a_cause(step, error.message), f"{step}: {error.message}"
                letters = letter
        model.end(step, "canceled", letters, kept=kept)
        return True

    def waiting(self, step: Step) -> Waiting:
        return waiting_of(self.snapshots[step.shard].fixed["HELD"][step.id])

    # Comparison

    def compare(self, model: Model) -> None:
        """Asserts that the shards hold what the model holds."""
        for step in model.steps.values():
            told = step.state if step.kept or step.live else "gone"
            assert self.stands(step) == told, f"{step.id} is {self.stands(step)}: {self._about(model, step)}"
        for step in model.of("deferred"):
            kept = self.waiting(step)
            choices = [model.choice(step, place) for place in range(len(step.parents))]
            assert None in model.verdicts(step, self.gate_choice(step)), f"it waits: {self._about(model, step)}"
            assert len(kept.heard) == len(choices)
            assert all(map(str.__contains__, choices, kept.heard)), f"{kept.heard}: {self._about(model, step)}"
            assert kept.gate in self.gate_choice(step)
            assert (kept.rule, kept.keep > 0) == (step.rule, step.keep)
            assert kept.counts == counts(kept.heard)
        for shard in (0, 1):
            self._compare_keys(model, shard)

    def _about(self, model: Model, step: Step) -> str:
        before = {parent: model.steps[parent].state for parent in step.parents}
        return f"{step} after {before}, gate {self.gate_choice(step)!r}"

    def _compare_keys(self, model: Model, shard: int) -> None:
        keys, rest = self.keys[shard], self.rest[shard]
        live = {step.id for step in model.steps.values() if step.live and step.shard == shard}
        shut = {run.id for run in model.runs if not run.ended}
        closing = {run.id for run in model.runs if run.ended and self._gate_under_way(run, shard)}
        fields = {
            name: dict(zip(map(text, flat[::2]), flat[1::2], strict=True))
            for name, flat in keys.items()
            if name in ("of:t", "of:g")
        }
        untold = fields.get("of:t", {}).keys() - live - {name[1:] for name in rest if name[0] == "t"}
        assert not untold, f"these have ended, and somebody stands there as waiting for them: {untold}"
        untold = fields.get("of:g", {}).keys() - shut - closing
        assert not untold, f"these have ended, and somebody stands there as waiting for them: {untold}"
        assert set(map(text, keys.get("gates", []))) == {
            run.id for run in model.runs if not run.ended and run.shard == shard
        }
        for name, content in keys.items():
            if name in {"of:t", "of:g", "gates", "rest", "outbox", "remote"}:
                continue
            kind, _, rest_of_it = name.partition(":")
            if kind == "of":
                of, _, whose = rest_of_it.partition(":")
                assert fields[f"of:{of}"][whose][2] % 2 == 1, f"a list without its field: {name}"
            elif kind == "got":
                (step,) = (step for step in model.steps.values() if step.token == rest_of_it)
                assert step.state == "deferred", f"{name} {content} for one that waits no more: {step}"
            elif kind == "gate-to":
                assert rest_of_it in shut, f"the gate has ended: {name}"
            elif kind in ("early", "map", "end", "fill"):
                assert self.drivers[shard].db.pttl(self.plugins[shard].prefix + name) > 0
            else:
                assert kind == "gate", name
                assert rest_of_it not in shut


def _standing(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yields each task with its place in the shard or its outcome."""
    for task, header in snapshot.records.items():
        if header.state != record.LIVE:
            yield task, record.SETTLED[header.state].value
    for state, tasks in (("deferred", snapshot.fixed["HELD"]), ("scheduled", snapshot.due)):
        yield from ((task, state) for task in tasks)
    for queues in (snapshot.queues, snapshot.suspects):
        yield from ((task, "queued") for queue in queues.values() for task in queue)
    yield from ((task, "started") for claims in snapshot.claims.values() for task in claims)
