"""Routes: how a call names where it can run, and what the names of queues and versions may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairactor import Message, Runtime, actor
from fairactor._client.envelope import encode_message, repeated
from fairactor._model import record
from fairactor._model.lane import kind_of_runtime, read_lane
from fairactor._model.route import SEPARATOR, Route, actor_of, pack_route, queue_of, read_route
from fairactor._model.wire import ROUTED, pack_item
from fairactor.errors import ConfigurationError
from fairactor.settings import Settings

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
names = st.text(min_size=1).filter(lambda name: SEPARATOR not in name and name.encode(errors="ignore").decode() == name)


@actor
async def plain(n: int) -> int:
    return n


@actor(queue="gpu", version=2)
async def embed(text: str) -> int:
    return len(text)


def packed(message: Message[Any]) -> tuple[record.Call, int]:
    """The call of a message, and the first byte of its item."""
    item = encode_message("acme", message, watch=False, max_payload=100_000)
    return record.decode_call(item.body), pack_item(item)[0]


def test_a_plain_call_names_only_its_actor() -> None:
    call, priority = packed(plain(1))
    assert (call.route, call.actor, call.queue, priority) == ("plain", "plain", "default", 3)
    assert packed(plain(1).options(queue="default"))[0].route == "plain"


def test_a_call_names_its_queue_and_version() -> None:
    call, priority = packed(embed("a"))
    assert (call.route, call.actor, call.queue) == ("embed\x1fgpu\x1f2", "embed", "gpu")
    assert priority == 3 | ROUTED
    assert packed(embed("a").options(queue="big gpu"))[0].queue == "big gpu"
    assert packed(plain(1).options(queue="gpu"))[0].route == "plain\x1fgpu"


def test_a_template_keeps_its_route() -> None:
    item = encode_message("acme", embed("a"), watch=False, max_payload=1000)
    assert record.decode_call(repeated(item).body).route == "embed\x1fgpu\x1f2"


@pytest.mark.parametrize(
    "arguments", [["\x1f"], ["a", "\x1f"], [{"\x1f": "\x1f"}], ['["a\\u001f'], ["\x1f" * 10_000]], ids=repr
)
@pytest.mark.parametrize("name", ["plain", 'a"b', "a\\", 'a\\"', "a\\u001f", "\n", "é" * 200])
def test_only_the_route_counts(name: str, arguments: list[Any]) -> None:
    @actor(name=name)
    async def named(*values: Any) -> None: ...

    assert packed(named(*arguments).options(priority="high"))[1] == 4
    assert packed(named(1).options(queue="q"))[1] == 3 | ROUTED


@given(
    names, names, st.integers(1, 10**9 - 1), st.dictionaries(names.filter(lambda n: "," not in n), st.floats(0, 1e12))
)
@example("a", "default", 1, {})
@example('"\\', "\n", 1, {"x": 0.1, "b": 3.0})
def test_routes_are_read_as_they_were_packed(actor: str, queue: str, version: int, limits: dict[str, float]) -> None:
    route = pack_route(actor, queue, version, limits)
    order = sorted(limits)
    expected = Route(actor, queue, version, limits=tuple(order), costs=tuple(limits[name] for name in order))
    assert read_route(route) == expected
    assert (actor_of(route), queue_of(route)) == (actor, queue)
    call = record.encode(record.Call(route, [], {}))
    assert record.actor_in(record.LIVE + record.NO_HEADER + call) == actor
    lane = SEPARATOR.join(route.split(SEPARATOR)[:4])
    assert read_lane(json.dumps(lane, ensure_ascii=False)[1:-1].encode()) == expected._replace(costs=())


@pytest.mark.parametrize("damaged", [b"", b"\xff", b'"', b"a\\", rb"a\u001f\u001fx!\u001f,", b"a\\u001f" * 9])
def test_a_damaged_lane_is_read_as_far_as_possible(damaged: bytes) -> None:
    assert read_lane(damaged).version == 1


def test_a_lane_of_tasks_whose_arguments_some_refused() -> None:
    assert read_lane(rb"mail\u001f\u001f2^1ab2") == Route("mail", version=2, refused_by="1ab2")


def test_what_a_message_says_of_those_who_could_run_it() -> None:
    assert Route("mail").needs == "has registered an actor 'mail'"
    assert Route("mail", "gpu", 2).needs == (
        "has registered an actor 'mail' of version 2 or later and serves the queue 'gpu'"
    )
    assert Route("mail", refused_by="1ab2").needs == "has registered an actor 'mail' that takes their arguments"
    assert Route("").needs == "serves the queue 'default'"


def test_runtimes_that_run_the_same_are_of_one_kind() -> None:
    kind = kind_of_runtime({"b": 1, "a": 2}, None)
    assert kind == kind_of_runtime({"a": 2, "b": 1}, None)
    assert msgspec.msgpack.decode(kind.packed) == {"a": 2, "b": 1}
    restricted = kind_of_runtime({"a": 2, 'b"': 1}, ["gpu", "a b"])
    assert msgspec.msgpack.decode(restricted.packed) == {"a": 2, 'b\\"': 1, "\x1f": 1, "\x1fgpu": 1, "\x1fa b": 1}
    others = [kind_of_runtime(*given) for given in (({"b": 1, "a": 1}, None), ({"a": 2}, None), ({"a": 2}, ["gpu"]))]
    assert len({kind.digest, restricted.digest, *(other.digest for other in others)}) == 5


def test_options_of_classes_and_their_methods() -> None:
    @actor(queue="gpu", version=3)
    class Model:
        @actor
        async def train(self) -> None: ...

        @actor(version=4, queue="cpu")
        async def plan(self) -> None: ...

    class Larger(Model): ...

    train, plan, inherited = Model.train(), Model.plan(), Larger.train()  # type: ignore[call-arg]
    assert packed(train)[0].route == "Model.train\x1fgpu\x1f3"
    assert packed(plan)[0].route == "Model.plan\x1fcpu\x1f4"
    assert packed(inherited)[0].route == "Larger.train\x1fgpu\x1f3"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: actor(version=0), "version=0: give a whole number from 1 to"),
        (lambda: actor(version="2"), "version='2': give a whole number"),
        (lambda: actor(version=True), "version=True: give a whole number"),
        (lambda: actor(queue=""), "queue '': give a string that is not empty"),
        (lambda: actor(queue=5), "queue 5: give a string that is not empty"),
        (lambda: actor(queue="a\x1fb"), r"queue 'a\\x1fb': contains the control character U\+001F"),
        (lambda: plain(1).options(queue=["gpu"]), r"queue \['gpu'\]: give a string"),
        (lambda: actor(name="a\x1fb")(lambda: None), r"actor name 'a\\x1fb': contains the control character U\+001F"),
        (lambda: Settings(queues="gpu"), r"queues='gpu' is not a list of queues: give their names, as in"),
        (lambda: Settings(queues=5), r"queues=5 is not a list of queues"),
        (lambda: Settings(queues=[]), "queues= names no queue, so this runtime would run nothing: leave it out"),
        (lambda: Settings(queues=["a", ""]), "queue '': give a string that is not empty"),
    ],
)
def test_wrong_names_and_versions_are_refused(wrong: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        wrong()


def test_repeated_queues_are_dropped() -> None:
    assert Settings(queues=iter(["a", "b", "a"])).queues == ("a", "b")
    assert Settings().queues is None


async def test_the_description_of_a_task_has_its_queue_and_version(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("acme", embed("abc"))
        info = await handle.info()
        assert (info.actor, info.queue, info.version) == ("embed", "gpu", 2)
        info = await (await sender.send("acme", plain(1))).info()
        assert (info.actor, info.queue, info.version) == ("plain", "default", 1)
        async with make_runtime(embed, plain):
            assert await handle.result(timeout=20) == 3
        info = await handle.info()
        assert (info.actor, info.queue, info.version) == ("embed", None, None), "the call is not kept"
