"""A rolling deploy over the release before, whose scripts know no lanes: nothing is lost, and both serve all tasks.

``scripts_of_model_5.json.gz`` has the scripts of that release, as its runtimes sent them, without comments.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fairactor._model.inbox import unpack_handed
from fairactor._model.layout import Layout
from fairactor._model.wire import Settlement, pack_item, pack_settlement, turn_mark
from fairactor._store.shard import MODEL, Undeclared
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome, packed_kind
from tests.support.shard.model_lanes import Kind

SCRIPTS: dict[str, str] = json.loads(
    gzip.decompress((Path(__file__).parent / "scripts_of_model_5.json.gz").read_bytes())
)
NEW = Kind({"mail": "1", "new": "1"})


class Before:
    """What a runtime of the release before does with a shard."""

    def __init__(self, shard: ShardDriver) -> None:
        self._db = shard.db
        self._meta = shard.shard.keys.meta
        self._batch = self._turn = 0

    def run(self, script: str, *arguments: Any) -> Any:
        return self._db.eval(SCRIPTS[script], 1, self._meta, *arguments)

    def open(self) -> int:
        return int(self.run("open", 5, 1, 60_000_000, "tasks")[0])

    def send(self, *tasks: str, tenant: str = "t", actor: str = "mail") -> None:
        self._batch += 1
        packed = [pack_item(item(task, tenant, body=b'["%b",[],{}]' % actor.encode())) for task in tasks]
        assert self.run("send", "web of before", turn_mark(self._batch), "", *packed) == 0

    def join(self) -> None:
        self.run("join", "old", 3_600_000, "{}", "")

    def claim(self, want: int, *finished: str) -> list[str]:
        outcomes = [pack_settlement(outcome(task, self._turn)) for task in finished]
        self._turn += 1
        reply = self.run("turn", "old", turn_mark(self._turn), 3_600_000, want, 0, 0, b"\0\xff\0", 0, b"", *outcomes)
        assert not reply[3], "its outcomes count"
        return [task.decode() for task in reply[4][::2]]

    def leave(self) -> None:
        self.run("leave", "old", 0, 5, 3_600_000, "{}")


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as driver:
        driver.db.flushall()
        yield driver


@pytest.fixture
def before(shard: ShardDriver) -> Before:
    """The release before, which has created the namespace."""
    before = Before(shard)
    assert before.open() == 5
    return before


def reopen(shard: ShardDriver) -> None:
    shard.run(shard.shard.open(shards=None, aging=60.0))


def version(shard: ShardDriver) -> int:
    return int(shard.db.hget(shard.shard.keys.meta, "version"))


def test_both_releases_serve_all_tasks_while_both_run(shard: ShardDriver, before: Before) -> None:
    before.join()
    before.send("a", "b", "c", "d")
    assert before.claim(1) == ["a"]
    reopen(shard)
    shard.join("new", kind=NEW)
    assert version(shard) == 5
    shard.send(item("e", "u", body=b'["mail",[],{}]'))
    assert sorted(shard.claim("new", 1, 2)) == ["b", "e"]
    assert before.claim(1, "a") == ["c"]
    assert shard.claim("new", 2, 1, [outcome("b", 1), outcome("e", 1)]) == ["d"]
    assert before.claim(5, "c") == []
    assert shard.claim("new", 3, 5, [outcome("d", 2)]) == []
    before.leave()


def test_a_task_whose_actor_a_runtime_lacks_is_put_off_while_the_release_before_runs(
    shard: ShardDriver, before: Before
) -> None:
    before.join()
    reopen(shard)
    shard.join("new", kind=NEW)
    before.send("a", actor="of before")
    assert shard.claim("new", 1, 1) == ["a"]
    assert shard.claim("new", 2, 1, [outcome("a", 1, "U")]) == []
    assert shard.db.zscore(shard.shard.keys.delayed("t"), "a") is not None
    before.leave()


def test_the_data_model_changes_when_the_last_runtime_of_before_has_gone(shard: ShardDriver, before: Before) -> None:
    before.join()
    before.send("a", "b")
    assert before.claim(1) == ["a"]
    reopen(shard)
    shard.join("new", kind=NEW)
    assert before.claim(0, "a") == []
    before.leave()
    with pytest.raises(Undeclared):
        shard.turn("new", 1, 5)
    declare(shard, "new")
    assert version(shard) == MODEL
    assert before.open() == MODEL, "so it refuses to work"
    assert shard.claim("new", 1, 5) == ["b"]
    shard.turn("new", 2, 0, [outcome("b", 1)])
    shard.check()


def declare(shard: ShardDriver, runtime: str) -> None:
    shard.run(shard.shard.declare(runtime, packed_kind(NEW), unknown_ttl=600.0))
    shard.fill(runtime)


def test_a_namespace_of_before_without_runtimes_changes_at_once(shard: ShardDriver, before: Before) -> None:
    before.send("a", "b")
    before.send("c", tenant="u")
    reopen(shard)
    shard.join("new", kind=NEW)
    assert version(shard) == MODEL
    assert sorted(shard.claim("new", 1, 5)) == ["a", "b", "c"]
    shard.turn("new", 2, 0, [*[outcome(task, 1) for task in "ab"], outcome("c", 1, tenant="u")])
    shard.check()


def test_senders_of_before_go_on(shard: ShardDriver, before: Before) -> None:
    reopen(shard)
    shard.configure("member", group="g")
    shard.join("new", kind=NEW)
    shard.join("gpu", kind=Kind({"gpu": "1"}))
    shard.turn("gpu", 1, 1)
    before.send("a", "b")
    before.send("c", tenant="member")
    before.send("d", tenant="u", actor="gpu")
    assert sorted(shard.claim("new", 1, 5)) == ["a", "b", "c"]
    assert shard.claim("gpu", 2, 5) == ["d"]
    shard.turn("new", 2, 0, [*[outcome(task, 1) for task in "ab"], outcome("c", 1, tenant="member")])
    shard.turn("gpu", 3, 0, [outcome("d", 2, tenant="u")])
    shard.check()


def test_a_sender_of_before_hands_a_task_to_a_runtime_that_sleeps(shard: ShardDriver, before: Before) -> None:
    reopen(shard)
    shard.join("new", kind=NEW)
    shard.turn("new", 1, 1)
    shard.listen("new")
    before.send("a")
    ((runtime, message),) = shard.hear()
    assert (runtime, unpack_handed(message).id) == ("new", b"a")
    shard.turn("new", 2, 0, [settlement_of(message)], heard=True)
    shard.check()


def settlement_of(handed: bytes) -> Settlement:
    return outcome("a", 1)._replace(turn=unpack_handed(handed).mark)


def test_it_is_refused_once_the_namespace_has_grown(shard: ShardDriver, before: Before) -> None:
    before.join()
    before.send("a")
    reopen(shard)
    shard.run(shard.shard.grow(Layout((1, 2), growing=True)))
    for call in (lambda: before.send("b"), lambda: before.claim(1), before.open):
        with pytest.raises(redis.ResponseError, match="PLUGIN fairactor-that-knows-more-shards"):
            call()
    assert shard.db.exists(shard.keys.task("a"))
    assert not shard.db.exists(shard.keys.task("b"))
