"""Scripts that break off: at each of their calls to the server, and what the next call makes of that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairactor import record, scripts
from fairactor.errors import ServerError
from fairactor.look import Look
from fairactor.wire import Counts, Item, Settlement, pack_key

from . import servers
from .lab import Lab, flat, item, outcome, settlement

KEY: Final = pack_key("k", 60.0)

# A table `redis` of our own, whose `call` raises the time that is asked for. All else is the server's.
BREAKING: Final = """local redis = (function(whole)
  local calls = 0
  local function call(...)
    calls = calls + 1
    if calls == {at} then error('broken off') end
    return whole.call(...)
  end
  return setmetatable({{ call = call }}, {{ __index = whole }})
end)(redis)
"""

HELD: Final = {
    "f": "F60000", "f0": "F0", "fk": "F0", "fw": "F0", "x": "X60000", "x0": "X0", "xk": "X0", "c": "C60000",
    "r": "R99000", "b": "B0", "rc": "R99000", "bc": "B0", "stays": "",
}  # fmt: skip
"""What runtime r holds, and how it ends; of rc, bc and stays it has been told that they are to be canceled."""


class Crowd(Lab):
    """A shard with something of everything, to which it can return; its scripts can be made to break off."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.open()
        self._populate()
        look = self.check()
        assert all(look.fixed[name] for name in look.fixed if name != "IDLE"), look.fixed
        self.kept = self.dump()
        self.held: dict[str, Any] = {task: self.db.get(self.keys.task(task)) for task in HELD}
        self.live = {task for task, header in look.records.items() if header.state == b"L"}

    def _claim_all(self, runtime: str, *items: Item) -> None:
        self.send(*items)
        assert set(self.claim(runtime, 1, len(items))) == {each.id for each in items}

    def _populate(self) -> None:
        run, shard = self.run, self.shard
        self.join("r", "s", "past", "first", "gone")
        tenants, kept = {"dead1": "d", "dead2": "d", "dead3": "e", "old": "o"}, "3600000"
        self._claim_all("past", *[item(*each, key=KEY if each[0] == "dead2" else b"") for each in tenants.items()])
        ended = [outcome(task, 1, ("F" if task == "old" else "X") + kept, tenant) for task, tenant in tenants.items()]
        self.claim("past", 2, 0, ended)
        run(shard.leave("past"))
        self._claim_all("first", item("doomed", "g"))
        self.lapse("first")
        self.tend()
        self.send(item("back", "g"), item("kept", "g", 5, flag="w"), item("off", "g", 6, key=KEY, flag="w"))
        assert set(self.claim("gone", 1, 4)) == {"doomed", "back", "kept", "off"}
        run(shard.configure("u", {"concurrency": 2, "weight": 2.0}))
        how = {"fw": {"watch": "w"}, "fk": {"key": KEY}, "xk": {"key": pack_key("xk", 60.0), "watch": "w"}}
        self._claim_all("r", *[item(task, "u" if task == "r" else "t", **how.get(task, {})) for task in HELD])
        for runtime, task in (("r", "rc"), ("r", "bc"), ("r", "stays"), ("gone", "off")):
            assert run(shard.progress(runtime, task, b"[0.5]"))
            assert run(shard.cancel(task, ttl=60.0, body=b"{}")) == "started"
        self.send(*[item(f"{tenant}{n}", tenant, n, flag="w") for tenant in "tuv" for n in range(1, 7)])
        self.claim("s", 1, 3)
        self.send(item("keyed", "v", key=KEY, flag="w"), item("later", "t", due="+3600000"))
        self.send(item("due", "t", 6, due="1"), item("due2", "solo", due="1"))
        for task in ("dead3", "old"):
            self.expire(task)
        self.outlive("o")
        self.lapse("gone")

    def dump(self) -> list[tuple[bytes, int, Any]]:
        return [(key, max(0, self.db.pttl(key)), self.db.dump(key)) for key in sorted(self.db.scan_iter())]

    def restore(self, kept: list[tuple[bytes, int, Any]] | None = None) -> None:
        """All is as it was at first; or as it was dumped."""
        pipeline = self.db.pipeline()
        pipeline.flushall()
        for each in self.kept if kept is None else kept:
            pipeline.restore(*each)
        pipeline.execute()
        self.batch = 99

    @contextmanager
    def breaking(self, name: str, at: int) -> Iterator[None]:
        """A script breaks off at one of its calls to the server, counted from 1."""
        known = self.shard._calls._scripts
        whole = known[name]
        shebang = re.match(r"(?:#!.*\n)?", whole.text)
        assert shebang is not None
        text = shebang[0] + BREAKING.format(at=at) + whole.text[shebang.end() :]
        known[name] = scripts.Script(name, text, "0" * 40)  # a digest that the server does not know
        try:
            yield
        finally:
            known[name] = whole

    def refusal(self, transition: Transition) -> ServerError | None:
        try:
            transition(self)
        except ServerError as error:
            return error
        return None

    def breaks(self, name: str, at: int, transition: Transition) -> ServerError | None:
        """The error where a script breaks off there; None where it is carried out before."""
        with self.breaking(name, at):
            error = self.refusal(transition)
        assert error is None or re.search("broken off|TORN", str(error)), error
        return error

    def insist(self, transition: Transition) -> None:
        """As a client does: it sends again while the shard is torn, and so has it mended."""
        if error := self.refusal(transition):
            assert "TORN" in str(error)
            transition(self)

    @property
    def torn(self) -> bool:
        return self.db.hget(self.keys.meta, "torn") == b"1"

    def gather(self) -> dict[str, Any]:
        """All that the shard holds, but for times, numbers of turns, and tags."""
        look = self.check()
        fixed = look.fixed
        stored = {task: self.db.get(self.keys.task(task)) for task in look.records}
        sums = {tenant: flat(counts) for tenant, counts in look.counts.items()}
        sums[""] = flat(Counts.unpack(fixed["META"]["total"]))
        return {
            "records": {task: (h.state, h.priority, h.attempt, h.tenant) for task, h in look.records.items()},
            "bodies": {task: _but_for_deaths(record.unpack(packed)[1]) for task, packed in stored.items() if packed},
            "deliveries": {task: header.deliveries for task, header in look.records.items()},
            "places": _places(look),
            "order": {tenant: list(queue) for tenant, queue in look.queues.items()},
            "ended": {who: {s: n for s, n in each.items() if s in ENDS} for who, each in sums.items()},
            "keys": {key: (task, ttl == -1) for key, (task, ttl) in look.keys.items()},
            "cancels": {runtime: set(tasks) for runtime, tasks in look.cancels.items()},
            "letters": {task for task, until in fixed["DEAD"].items() if until / 1e6 > look.now},
            "drained": {tenant for tenant, until in fixed["DRAINED"].items() if until > look.now},
            **{name: set(fixed[name]) for name in ("RING", "LEASES", "FLEET", "SESSIONS")},
            **{name: fixed[name] for name in ("WATCHERS", "PROGRESS", "POLICY", "KEYED")},
        }  # what lives is counted as it stands: the audit has compared that


Transition = Callable[[Crowd], Any]
ENDS: Final = ("finished", "failed", "canceled")


def _but_for_deaths(body: bytes) -> bytes:
    return re.sub(rb'\n[^\n]*"WorkerDied","the lease[^\n]*', b"", body)


def _places(look: Look) -> dict[str, str]:
    """Where each task stands."""
    return {
        **dict.fromkeys(look.fixed["SCHEDULED"], "scheduled"),
        **{task: "queued" for queue in look.queues.values() for task in queue},
        **{task: runtime for runtime, claims in look.claims.items() for task in claims},
    }


# What is done to it


def report(crowd: Crowd, task: str) -> Settlement:
    packed, verdict = crowd.held[task], HELD[task]
    header, body = record.unpack(packed)
    if verdict[0] == "R":
        packed = record.live(header, body, record.Attempt(header.attempt, 1e9, 0.5, "r", "ValueError", "no"))
    elif verdict[0] != "B":
        packed = record.settled(verdict[0], header.rest, record.Outcome("a"), body)
    return settlement(task, 1, verdict, packed)


def settle(crowd: Crowd) -> None:
    """A turn with outcomes of all kinds, as one takes that stops."""
    assert crowd.turn("r", 2, 0, [report(crowd, task) for task in HELD if HELD[task]])


def settle_and_claim(crowd: Crowd) -> None:
    assert crowd.turn("r", 2, 8, [report(crowd, task) for task in ("f", "fk", "fw", "x", "c", "r", "rc")])


def claim_the_rest(crowd: Crowd) -> None:
    """What a broken turn had claimed may be queued again; the next one claims it."""
    crowd.claim("r", 3, 100)


def send(crowd: Crowd) -> None:
    sent = crowd.send_again(
        item("n1", "t", 6, flag="w"), item("n2", "new", key=KEY, flag="w"), item("n3", "v", key=KEY),
        item("n4", "t", due="+3600000"), item("n5", "d", key=pack_key("n5", 0)), item("t1", "t"), item("t2", "other"),
    )  # fmt: skip
    assert sent == ["n1", "n2", "keyed", "n4", "n5", "t1", None]


def cancel(task: str, ttl: float) -> Transition:
    return lambda crowd: crowd.run(crowd.shard.cancel(task, ttl=ttl, body=b"{}"))


def stats(crowd: Crowd) -> None:
    crowd.run(crowd.shard.stats())


@attrs.frozen
class Case:
    """A script to break off, and how it may be afterwards that it would not be without."""

    script: str
    transition: Transition
    then: Transition = lambda _: None
    dropped: frozenset[str] = frozenset()
    """Live tasks of which it leaves nothing."""
    uncounted: int = 0
    """How many that ended may be counted wrongly: those that left no record, or were sent again."""
    deaths: int = 0
    """How many deliveries of a task may be counted wrongly."""
    untidy: bool = False
    """Whether the audit may find something until it is sent again."""


CASES: dict[str, Case] = {
    "open": Case("open", lambda crowd: crowd.run(crowd.shard.open(shards=None, aging=60.0))),
    "send": Case("send", send),
    "join": Case("join", lambda crowd: crowd.join("new"), untidy=True),  # it has a lease, and is not in the fleet yet
    "turn that settles": Case("turn", settle, dropped=frozenset({"f0", "x0"}), uncounted=1),
    "turn that claims": Case("turn", settle_and_claim, claim_the_rest),
    "leave": Case("leave", lambda crowd: crowd.run(crowd.shard.leave("r"))),
    "tend": Case("tend", lambda crowd: crowd.tend(deliveries=2), deaths=1),
    "cancel of a queued one": Case("cancel", cancel("keyed", 60)),
    "cancel of a scheduled one": Case("cancel", cancel("later", 0), dropped=frozenset({"later"}), uncounted=1),
    "cancel of a started one": Case("cancel", cancel("f", 60)),
    "configure": Case("configure", lambda c: c.run(c.shard.configure("u", {"concurrency": 9, "weight": None}))),
    "watch": Case("watch", lambda crowd: crowd.run(crowd.shard.watch("q", [("t1", ""), ("no", ""), ("dead1", "u")]))),
    "progress": Case("progress", lambda crowd: crowd.run(crowd.shard.progress("r", "f", b"[1]"))),
    "inspect": Case("inspect", lambda crowd: crowd.run(crowd.shard.inspect("f"))),
    "redrive": Case("redrive", lambda c: c.run(c.shard.redrive([("dead1", b""), ("dead2", KEY)])), uncounted=2),
    "letters": Case("letters", lambda crowd: crowd.run(crowd.shard.letters(0, 9))),
    "discard": Case("discard", lambda crowd: crowd.run(crowd.shard.discard(["dead1", "t1"]))),
    "mend": Case("mend", lambda crowd: crowd.run(crowd.shard.mend())),
    "stats": Case("stats", stats),
}
TEARING: Final = [title for title, case in CASES.items() if "\nbegin_writing()" in scripts.source(f"{case.script}.lua")]
TEARING.remove("cancel of a started one")  # by one write


def wanted(crowd: Crowd, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """What it comes to where nothing breaks off: at once, and with what comes after it."""
    crowd.restore()
    case.transition(crowd)
    done = crowd.gather()
    case.then(crowd)
    return done, crowd.gather()


def compare(found: dict[str, Any], want: dict[str, Any], case: Case) -> None:
    """Asserts that it has come to what it should have."""
    for part in want.keys() - {"ended", "deliveries"}:
        assert found[part] == want[part], part
    for task, deliveries in want["deliveries"].items():
        assert abs(found["deliveries"][task] - deliveries) <= case.deaths, task
    for tenant in want["ended"].keys() - {"o"}:  # of which all may be forgotten by now
        for state in ENDS:
            counted, there = (each["ended"].get(tenant, {}).get(state, 0) for each in (found, want))
            assert counted - there <= case.uncounted, f"{state} of {tenant!r} is counted twice"
            assert there - counted <= case.uncounted or not tenant  # of the total, only what is kept is counted anew


def breaking_points(crowd: Crowd, case: Case) -> Iterator[tuple[int, ServerError]]:
    """The shard is as it is when the script breaks off, at one call after the other."""
    for at in count(1):
        crowd.restore()
        error = crowd.breaks(case.script, at, case.transition)
        if error is None:
            return
        yield at, error


@pytest.fixture(scope="module")
def crowd(server_binary: str) -> Iterator[Crowd]:
    with servers.running(server_binary) as url:
        made = Crowd(url)
        yield made
        made.close()


def test_every_script_is_there() -> None:
    assert {case.script for case in CASES.values()} == set(scripts.NAMES)


@pytest.mark.parametrize("title", CASES)
def test_wherever_a_script_breaks_off_nothing_is_lost_and_it_can_be_sent_again(crowd: Crowd, title: str) -> None:
    case = CASES[title]
    done, want = wanted(crowd, case)
    crowd.restore()
    before = crowd.gather()
    tore = 0
    for at, _ in breaking_points(crowd, case):
        if crowd.torn:
            tore += 1
            crowd.insist(stats)  # whichever script comes next has it mended
            assert crowd.live - crowd.check().records.keys() <= case.dropped, f"lost when it broke off at {at}"
        elif not case.untidy:
            assert crowd.gather() in (before, done), f"neither done nor torn when it broke off at {at}"
        crowd.insist(case.transition)
        case.then(crowd)
        compare(crowd.gather(), want, case)
    assert bool(tore) is (title in TEARING)


@pytest.mark.parametrize("title", ["send", "turn that settles", "tend"])
def test_wherever_a_repair_breaks_off_the_next_one_goes_on(crowd: Crowd, title: str) -> None:
    case = CASES[title]
    _, want = wanted(crowd, case)
    torn = [at for at, _ in breaking_points(crowd, case) if crowd.torn]
    crowd.restore()
    assert crowd.breaks(case.script, torn[len(torn) // 2], case.transition)
    left = crowd.dump()
    for at in count(1):
        crowd.restore(left)
        if not crowd.breaks("mend", at, lambda crowd: crowd.run(crowd.shard._run("mend", "torn"))):
            break
        crowd.insist(case.transition)
        case.then(crowd)
        compare(crowd.gather(), want, case)
    assert at > 50


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_a_script_and_its_repair_and_that_one_again_may_break_off_anywhere(crowd: Crowd, data: st.DataObject) -> None:
    case = CASES[data.draw(st.sampled_from(TEARING))]
    _, want = wanted(crowd, case)
    crowd.restore()
    crowd.breaks(case.script, data.draw(st.integers(1, 60)), case.transition)
    again = data.draw(st.lists(st.sampled_from(["mend", case.script]), max_size=3))
    for name in again:
        crowd.breaks(name, data.draw(st.integers(1, 120)), case.transition)
    crowd.insist(case.transition)
    case.then(crowd)
    compare(crowd.gather(), want, attrs.evolve(case, deaths=case.deaths * (1 + len(again))))


def test_what_was_sent_when_the_clock_had_been_set_back_is_mended_into_its_mailbox(crowd: Crowd) -> None:
    for at in range(1, 30):
        crowd.restore()
        ahead = int(crowd.db.hget(crowd.keys.meta, "stamp") or 0) + 3_600_000_000  # type: ignore[arg-type]
        crowd.db.hset(crowd.keys.meta, "stamp", str(ahead))
        crowd.breaks("send", at, send)
        crowd.insist(send)
        assert crowd.gather()["places"]["n1"] == "queued"


def test_a_send_that_broke_off_may_have_been_accepted_and_says_so(crowd: Crowd) -> None:
    for at, error in breaking_points(crowd, CASES["send"]):
        crowd.insist(stats)
        accepted = {"n1", "n2", "n4", "n5"} & crowd.check().records.keys()
        assert error.maybe_accepted or not accepted, f"it broke off at {at}"
