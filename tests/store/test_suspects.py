"""Suspects: queued tasks that a runtime had when it died. They run apart, and only what dies alone is given up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairactor._model.wire import Assignment, Emptying, Permit, Turn, Waits, pack_permit, unpack_mark
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome, settlement

HOURLY = ("1/h", 3.6e9, 1)


class Driver:
    """Takes the turns of runtimes, each under the next number."""

    def __init__(self, shard: ShardDriver) -> None:
        self.shard = shard
        self._numbers: dict[str, int] = {}

    def turn(
        self,
        runtime: str,
        want: int = 9,
        permit: Permit = Permit.APART,
        most: int = 5,
        emptying: Emptying = Emptying.NO,
    ) -> Turn:
        number = self._numbers[runtime] = self._numbers.get(runtime, 0) + 1
        turn = self.shard.turn(runtime, number, want, permit=pack_permit(permit, most, emptying))
        assert turn is not None
        self.shard.check()
        return turn

    def claim(self, runtime: str, want: int = 9, permit: Permit = Permit.APART, most: int = 5) -> list[str]:
        return [task.decode() for task in self.turn(runtime, want, permit, most).claims[::2]]

    def number(self, runtime: str) -> int:
        return self._numbers[runtime]

    def kill(self, runtime: str, most: int = 5) -> None:
        """Makes a runtime die, and takes its claims back."""
        self.shard.lapse(runtime)
        while self.shard.maintain(deliveries=most):
            pass
        self.shard.check()

    def suspect(self, *tasks: tuple[str, str], deliveries: int = 1) -> None:
        """Sends tasks, given with their tenants, and makes suspects of them."""
        name = f"dead {tasks}"
        self.shard.join(name)
        self.shard.send(*[item(*task) for task in tasks])
        assert set(self.claim(name, permit=Permit.NONE)) == {task for task, _ in tasks}
        self.kill(name)
        for task, _ in tasks:
            self.shard.db.setrange(self.shard.keys.task(task), 1, bytes([deliveries]))

    def deliveries(self) -> dict[str, int]:
        return {task: header.deliveries for task, header in self.shard.snapshot().records.items()}

    def waiting(self) -> dict[str, list[str]]:
        return {tenant: list(tasks) for tenant, tasks in self.shard.snapshot().suspects.items()}


@pytest.fixture
def driver(url: str) -> Iterator[Driver]:
    with open_shard(url) as shard:
        shard.join("r", "s")
        yield Driver(shard)


# Who becomes a suspect


def test_what_a_dead_runtime_had_waits_beside_the_mailbox_and_is_still_queued(driver: Driver) -> None:
    driver.suspect(("a", "t"), ("b", "t"), ("c", "u"))
    driver.shard.send(item("new", "t"))
    assert driver.waiting() == {"t": ["a", "b"], "u": ["c"]}
    counts = driver.shard.run(driver.shard.shard.tenant_stats("t"))
    assert (counts.queued, counts.started) == (3, 0)
    assert driver.shard.run(driver.shard.shard.inspect("a"))[0] == b"queued"
    assert list(driver.shard.snapshot().ring) == ["t"], "a tenant that has only suspects is on no ring"


def test_a_runtime_that_leaves_makes_no_suspects_and_gives_those_that_it_had_back(driver: Driver) -> None:
    driver.suspect(("a", "t"))
    driver.shard.send(item("new", "t"))
    assert driver.claim("r") == ["new", "a"]
    driver.shard.run(driver.shard.shard.leave("r"))
    driver.shard.check()
    assert driver.waiting() == {"t": ["a"]}
    assert driver.deliveries() == {"a": 1, "new": 0}


def test_what_ends_its_own_runtime_is_a_suspect(driver: Driver) -> None:
    driver.shard.send(item("a"))
    driver.claim("r")
    leave = driver.shard.shard.leave("r", crashed=True, deliveries=5, failed_ttl=60.0, body=b"{}")
    assert driver.shard.run(leave) == 1
    driver.shard.check()
    assert driver.deliveries() == {"a": 1}


def test_a_suspect_that_is_given_back_stays_one(driver: Driver) -> None:
    driver.suspect(("a", "t"))
    turn = driver.turn("r")
    driver.shard.claim("r", 2, 1, [settlement("a", 1, "B", turn.claims[1])])
    driver.shard.check()
    assert driver.waiting() == {"t": ["a"]}


def test_a_scheduled_suspect_stays_one_when_it_is_due(driver: Driver) -> None:
    driver.suspect(("a", "t"))
    turn = driver.turn("r")
    driver.shard.claim("r", 2, 0, [settlement("a", 1, "R0", turn.claims[1])])  # its actor is unknown here
    driver.shard.maintain()
    driver.shard.check()
    assert driver.waiting() == {"t": ["a"]}


def test_a_suspect_that_is_canceled_purged_or_redriven_is_none(driver: Driver) -> None:
    driver.suspect(("a", "t"), ("b", "t"), ("c", "t"), ("d", "u"))
    shard = driver.shard
    assert shard.run(shard.shard.cancel("a", ttl=60.0, body=b"{}")) == "queued"
    shard.check()
    assert shard.run(shard.shard.purge("t", ttl=60.0, body=b"{}")) == 2
    shard.check()
    assert driver.waiting() == {"u": ["d"]}
    turn = driver.turn("r")
    shard.claim("r", 2, 0, [settlement("d", 1, "X60000", b"X" + turn.claims[1][1:])])
    assert shard.run(shard.shard.redrive([("d", b"")])) == [True]
    shard.check()
    assert driver.deliveries()["d"] == 0
    assert driver.claim("s", permit=Permit.NONE) == ["d"]


def test_many_suspects_are_purged_in_steps(driver: Driver) -> None:
    shard = driver.shard
    shard.join("many")
    shard.send(*[item(f"{n}") for n in range(700)])
    assert len(shard.claim("many", 1, 700)) == 700
    driver.kill("many")
    shard.send(item("new"), item("later", due="+60000"))
    assert shard.run(shard.shard.purge("t", ttl=0, body=b"{}")) == 702
    assert not shard.check().records


def test_mending_puts_suspects_where_their_records_say(driver: Driver) -> None:
    driver.suspect(("a", "t"), ("b", "u"))
    shard = driver.shard
    shard.send(item("c", "t"))
    shard.db.setrange(shard.keys.task("c"), 1, b"\3")
    shard.db.setrange(shard.keys.task("b"), 1, b"\0")
    shard.db.delete(shard.keys.fixed("SUSPECTED"))
    shard.run(shard.shard.repair())
    shard.check()
    assert driver.waiting() == {"t": ["a", "c"], "u": ["b"]}
    assert driver.deliveries()["b"] == 1, "a script may have broken off before it wrote the count"


# Who runs them, and when


def test_a_turn_claims_a_suspect_only_if_it_may_and_one_at_a_time(driver: Driver) -> None:
    driver.suspect(("a", "t"), ("b", "t"))
    driver.shard.send(item("new", "t"))
    turn = driver.turn("r", want=1, permit=Permit.NONE)
    assert (turn.claims[::2], turn.suspects) == ([b"new"], Waits.SOME)
    assert driver.turn("r", want=0).claims == [], "it takes a worker"
    turn = driver.turn("r")
    assert (turn.claims[::2], turn.suspects) == ([b"a"], Waits.SOME)
    turn = driver.turn("r")
    assert (turn.claims[::2], turn.suspects) == ([b"b"], Waits.NONE)


def test_a_repeated_turn_gets_the_same_suspect(driver: Driver) -> None:
    driver.suspect(("a", "t"))
    assert driver.turn("r").claims[::2] == [b"a"]
    again = driver.shard.turn("r", 1, 9, permit=pack_permit(Permit.APART, 5, Emptying.NO))
    assert again is not None
    assert again.claims[::2] == [b"a"]


def test_a_turn_that_gives_tasks_back_claims_no_suspect(driver: Driver) -> None:
    driver.shard.send(item("new", "u"))
    driver.claim("r")
    driver.suspect(("a", "t"))
    permit = pack_permit(Permit.APART, 5, Emptying.NO)
    assert driver.shard.claim("r", 2, 5, [outcome("new", 1, "B0", "u")], permit=permit) == []


def test_tenants_take_turns_and_what_died_least_goes_first(driver: Driver) -> None:
    driver.suspect(*[(f"a{n}", "many") for n in range(4)])
    driver.suspect(("b", "few"), ("c", "fewer"))
    driver.suspect(("twice", "first"), deliveries=2)
    found = [driver.claim("r") for _ in range(7)]
    assert found[0] == ["a0"]
    assert sorted(found[1:3]) == [["b"], ["c"]]
    assert found[3:] == [["a1"], ["a2"], ["a3"], ["twice"]]


def test_limits_hold_for_suspects_and_keep_nobody_elses_waiting(driver: Driver) -> None:
    shard = driver.shard
    driver.suspect(*[(f"{name}{n}", name) for name in ("paused", "capped", "rated") for n in (0, 1)])
    driver.suspect(("free", "free"))
    shard.configure("paused", paused=True)
    shard.configure("capped", concurrency=1)
    shard.configure("rated", rate=HOURLY)
    shard.check()
    found = [task for _ in range(5) for task in driver.claim("r")]
    assert sorted(found) == ["capped0", "free", "rated0"]
    shard.claim("r", driver.number("r") + 1, 0, [outcome("capped0", n + 1, tenant="capped") for n in range(5)])
    shard.configure("paused", paused=None)
    assert sorted(task for _ in range(4) for task in driver.claim("s")) == ["capped1", "paused0", "paused1"]


def test_a_suspect_counts_for_the_backlog_and_the_share_of_its_tenant(driver: Driver) -> None:
    shard = driver.shard
    driver.suspect(("a", "t"), ("b", "t"))
    shard.configure("t", backlog=3)
    assert shard.send(item("c"), item("d"))[0] == "c"
    assert "d" not in shard.check().records, "the mailbox is full"
    before = shard.check().ring["t"]
    assert driver.claim("r", want=1) == ["a"]
    assert shard.check().ring["t"] == before + 1


def test_a_dedicated_runtime_runs_suspects_of_its_tenants_only(driver: Driver) -> None:
    driver.suspect(("a", "t"), ("b", "u"), ("c", "v"))
    driver.shard.join("home", "thief", serves=Assignment(["u"], []))
    assert driver.claim("home") == ["b"]
    assert driver.claim("home") == []
    driver.shard.run(driver.shard.shard.assign("thief", Assignment(["v"], [""])))
    assert [driver.claim("thief") for _ in range(3)] == [["c"], ["a"], []]


def test_one_idle_runtime_wakes_the_next_for_further_suspects(driver: Driver) -> None:
    driver.claim("s")
    driver.shard.listen("r", "s")
    driver.suspect(("a", "t"), ("b", "t"))
    driver.shard.hear()
    driver.claim("s", permit=Permit.NONE)
    driver.claim("r")
    assert driver.shard.hear() == [("s", b"w")]
    driver.claim("r")
    assert driver.shard.hear() == [], "none is left"


# Alone


def test_the_last_chance_is_taken_alone(driver: Driver) -> None:
    driver.suspect(("a", "t"), deliveries=4)
    driver.suspect(("b", "t"))
    driver.shard.send(item("new", "t"))
    assert driver.claim("r", permit=Permit.ALONE) == ["a"]
    ((_, mark),) = driver.shard.snapshot().claims["r"].items()
    assert unpack_mark(mark).alone
    assert sorted(driver.claim("s", permit=Permit.ALONE)) == ["b", "new"], "this one need not be alone"


def test_one_process_empties_itself_for_a_task_that_has_to_run_alone(driver: Driver) -> None:
    driver.suspect(("a", "t"), deliveries=4)
    driver.shard.send(item("new", "t"))
    busy, rests = Emptying.YES, Emptying.RESTS
    assert driver.turn("r", emptying=Emptying.NO, want=0).suspects == Waits.NONE
    turn = driver.turn("r", emptying=busy)
    assert (turn.claims, turn.suspects) == ([], Waits.TO_RUN_ALONE)
    assert "r" not in driver.shard.snapshot().fixed["IDLE"]
    turn = driver.turn("s", emptying=busy)
    assert (turn.claims[::2], turn.suspects) == ([b"new"], Waits.NONE), "the others go on"
    assert driver.turn("r", emptying=busy).suspects == Waits.TO_RUN_ALONE
    assert driver.turn("s", emptying=rests).suspects == Waits.TO_RUN_ALONE, "who rests need not empty itself"
    driver.shard.run(driver.shard.shard.leave("s"))
    driver.shard.join("t")
    assert driver.turn("t", emptying=busy).suspects == Waits.TO_RUN_ALONE, "the one before has left"


def test_a_task_that_waits_for_another_no_longer_runs_alone(driver: Driver) -> None:
    driver.suspect(("a", "t"), deliveries=4)
    assert driver.claim("r", permit=Permit.ALONE) == ["a"]
    driver.claim("r", want=0, permit=Permit.SHARED)
    ((_, mark),) = driver.shard.snapshot().claims["r"].items()
    assert not unpack_mark(mark).alone
    driver.kill("r")
    assert driver.deliveries() == {"a": 5}
    assert driver.waiting() == {"t": ["a"]}


# Who is given up


def test_only_what_kills_is_given_up(driver: Driver) -> None:
    shard = driver.shard
    tasks = [item(f"innocent {n}", f"tenant {n}") for n in range(6)]
    shard.send(*tasks, item("poison", "evil"))
    running: dict[str, list[str]] = {}
    killed = 0
    for n in range(200):
        name = f"process {n % 3} {killed}"
        if name not in running:
            shard.join(name)
            running[name] = []
        resting = not running[name]
        permit = Permit.ALONE if resting else Permit.APART
        running[name] += driver.claim(name, want=1, permit=permit, most=3)
        if "poison" in running[name]:
            del running[name]
            killed += 1
            driver.kill(name, most=3)
        elif n % 5 == 4:  # it runs them for a while, and others beside
            done = [outcome(task, m, tenant=f"tenant {task[-1]}") for task in running[name] for m in range(1, 200)]
            shard.claim(name, driver.number(name) + 1, 0, done)
            driver._numbers[name] += 1
            running[name] = []
    states = {task: header.state for task, header in shard.check().records.items()}
    assert states == {f"innocent {n}": b"F" for n in range(6)} | {"poison": b"X"}
    assert killed == 3


def test_a_runtime_that_lives_has_not_died(driver: Driver) -> None:
    shard = driver.shard
    driver.suspect(("a", "t"))
    for most, runtime in enumerate(("r", "s"), start=1):
        assert driver.claim(runtime, permit=Permit.ALONE) == ["a"]
        shard.listen(runtime)
        driver.kill(runtime, most=most + 1)
    assert driver.waiting() == {"t": ["a"]}
    record = shard.db.get(shard.keys.task("a"))
    assert isinstance(record, bytes)
    assert record.count(b'"LeaseLost","its runtime was silent for longer than its lease') == 2


def test_what_silences_its_runtimes_for_ever_is_given_up_at_last(driver: Driver) -> None:
    shard = driver.shard
    shard.send(item("a"))
    for n in range(4):
        assert driver.waiting() == ({"t": ["a"]} if n else {})
        shard.join(f"p{n}")
        assert driver.claim(f"p{n}", permit=Permit.ALONE, most=2) == ["a"]
        shard.listen(f"p{n}")
        shard.lapse(f"p{n}")
        shard.run(shard.shard.maintain(deliveries=2, failed_ttl=60, body=b"died", silent_body=b"silent"))
        shard.check()
    record = shard.db.get(shard.keys.task("a"))
    assert isinstance(record, bytes)
    assert record[:1] == b"X"
    assert b"silent\n" in record


def test_with_one_delivery_a_task_never_runs_again_after_a_death_but_after_a_stall(driver: Driver) -> None:
    shard = driver.shard
    shard.send(item("dies"))
    driver.claim("r")
    driver.kill("r", most=1)
    assert shard.snapshot().records["dies"].state == b"X"
    shard.send(item("stalls"))
    driver.claim("s")
    shard.listen("s")
    driver.kill("s", most=1)
    assert driver.waiting() == {"t": ["stalls"]}
    shard.join("last")
    assert driver.claim("last", most=1) == [], "it has to run alone"
    assert driver.claim("last", most=1, permit=Permit.ALONE) == ["stalls"]


def test_a_canceled_task_ends_with_its_runtime_and_is_no_suspect(driver: Driver) -> None:
    shard = driver.shard
    shard.send(item("a"))
    driver.claim("r")
    assert shard.run(shard.shard.cancel("a", ttl=60.0, body=b"{}")) == "started"
    driver.kill("r")
    assert shard.snapshot().records["a"].state == b"C"
