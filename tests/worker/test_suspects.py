"""When a process permits its dispatchers to claim suspects: apart from each other, and alone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest
import redis

from fairactor import Runtime, actor
from fairactor._model.wire import Emptying, Permit, Waits
from fairactor._worker import suspects as module
from fairactor._worker.suspects import FEW, Suspects
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

MOST = 5


class StubPool:
    """A pool that runs what a test says."""

    def __init__(self) -> None:
        self.rests = True
        self.waiting: Any = None
        self.hold_slots = False
        self.on_rest: Callable[[], None] = lambda: None

    def waits(self, claim: Any) -> bool:
        return claim is self.waiting

    def return_slots(self) -> None:
        pass


@attrs.frozen(eq=False)
class StubClaim:
    """A claim of a suspect."""

    deliveries: int
    owner: Asker


class Asker:
    """A dispatcher whose turns a test takes by hand."""

    runtime = "r"

    def __init__(self, suspects: Suspects) -> None:
        self._suspects = suspects
        self.woken = 0
        self._asked = b""
        suspects.add(self)

    def settle(self, *_: Any) -> None: ...

    def wake(self) -> None:
        self.woken += 1

    def ask(self, want: int = 3) -> tuple[int, Permit, Emptying]:
        want, _, self._asked = self._suspects.ask(self, want, 0)
        return want, Permit(self._asked[0]), Emptying(self._asked[2])

    def answer(self, waits: Waits = Waits.NONE, *claims: Any) -> None:
        self._suspects.answer(self, waits, claims, asked=self._asked)

    def claim(self, deliveries: int) -> Any:
        return StubClaim(deliveries, self)

    def begin(self, deliveries: int = 1) -> Any:
        """Claims a suspect, which begins to run."""
        self.ask()
        claim = self.claim(deliveries)
        self.answer(Waits.NONE, claim)
        return claim


@pytest.fixture
def pool() -> StubPool:
    return StubPool()


@pytest.fixture
def suspects(pool: StubPool) -> Suspects:
    return Suspects(pool, MOST)  # type: ignore[arg-type]  # it uses no more of a pool


@pytest.fixture
def askers(suspects: Suspects) -> tuple[Asker, Asker]:
    return Asker(suspects), Asker(suspects)


async def test_one_dispatcher_at_a_time_may_claim_a_suspect_and_the_next_is_woken(askers: tuple[Asker, Asker]) -> None:
    one, two = askers
    assert one.ask() == (3, Permit.APART, Emptying.RESTS)
    assert two.ask() == (3, Permit.NONE, Emptying.NO)
    two.answer(Waits.SOME)
    assert two.woken == 0
    one.answer()
    assert (one.woken, two.woken) == (0, 1)
    assert two.ask()[1] == Permit.APART


async def test_without_a_free_worker_it_asks_for_none(askers: tuple[Asker, Asker]) -> None:
    one, _ = askers
    assert one.ask(0)[1] == Permit.NONE
    one.answer(Waits.SOME)
    assert one.woken == 0, "a free worker wakes it"


async def test_a_few_that_died_once_run_together_and_what_died_twice_runs_apart(
    suspects: Suspects, askers: tuple[Asker, Asker]
) -> None:
    one, two = askers
    first = [one.begin() for _ in range(FEW)]
    assert two.ask()[1] == Permit.NONE
    two.answer(Waits.SOME)
    suspects.ended(first[0])
    assert two.woken == 1, "it is woken at once"
    for claim in first[1:]:
        suspects.ended(claim)
    second = one.begin(deliveries=2)
    assert two.ask()[1] == Permit.NONE
    two.answer(Waits.SOME)
    suspects.ended(second)
    assert two.ask()[1] == Permit.APART


async def test_others_start_when_a_suspect_has_run_for_a_while(
    askers: tuple[Asker, Asker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APART", 0.001)
    one, two = askers
    one.begin(deliveries=3)
    two.ask()
    two.answer(Waits.SOME)
    await until(lambda: two.woken)
    assert two.ask()[1] == Permit.APART


async def test_a_process_empties_itself_runs_a_task_alone_and_goes_on(
    pool: StubPool, suspects: Suspects, askers: tuple[Asker, Asker]
) -> None:
    one, two = askers
    pool.rests = False
    assert one.ask() == (3, Permit.APART, Emptying.YES)
    one.answer(Waits.TO_RUN_ALONE)
    assert suspects.excluding
    assert (one.woken, two.woken) == (1, 1), "both leave the idle ones"
    assert two.ask() == (0, Permit.NONE, Emptying.NO)
    two.answer(Waits.SOME)
    assert one.ask() == (0, Permit.APART, Emptying.YES)
    one.answer(Waits.TO_RUN_ALONE)
    pool.rests = True
    pool.on_rest()
    assert one.woken == 2
    assert one.ask() == (1, Permit.ALONE, Emptying.NO)
    claim = one.claim(MOST - 1)
    one.answer(Waits.NONE, claim)
    assert suspects.excluding
    held = pool.hold_slots
    assert held, "what waits for other tasks waits on"
    assert one.ask() == two.ask() == (0, Permit.NONE, Emptying.NO)
    suspects.ended(claim)
    assert not pool.hold_slots
    assert one.ask()[0] == two.ask()[0] == 3


async def test_it_waits_for_turns_that_may_still_claim(pool: StubPool, askers: tuple[Asker, Asker]) -> None:
    one, two = askers
    two.ask()
    assert one.ask()[1:] == (Permit.NONE, Emptying.NO)
    two.answer(Waits.TO_RUN_ALONE)
    assert two.ask()[1] == Permit.APART, "the other turn is on the way"
    two.answer(Waits.TO_RUN_ALONE)
    woken = two.woken
    one.answer()
    assert two.woken == woken + 1
    assert two.ask()[1] == Permit.ALONE


async def test_it_goes_on_if_no_task_has_to_run_alone_any_more(suspects: Suspects, askers: tuple[Asker, Asker]) -> None:
    one, two = askers
    one.ask()
    one.answer(Waits.TO_RUN_ALONE)
    assert one.ask()[1] == Permit.ALONE
    before = two.woken
    one.answer(Waits.NONE)
    assert not suspects.excluding
    assert two.woken == before + 1


async def test_it_does_not_empty_itself_for_ever(
    pool: StubPool, suspects: Suspects, askers: tuple[Asker, Asker], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock))
    one, two = askers
    pool.rests = False
    for times in (1, 2):
        assert one.ask()[2] == Emptying.YES
        one.answer(Waits.TO_RUN_ALONE)
        clock += times * module.EMPTYING - 1
        assert two.ask()[0] == 0
        two.answer()
        clock += 2
        assert one.ask() == (3, Permit.APART, Emptying.NO), "it goes on"
        one.answer()
        clock += times * module.EMPTYING + 1
    assert not suspects.excluding


async def test_a_task_that_waits_for_another_one_lets_others_run(
    pool: StubPool, suspects: Suspects, askers: tuple[Asker, Asker]
) -> None:
    one, two = askers
    one.ask()
    one.answer(Waits.TO_RUN_ALONE)
    one.ask()
    claim = one.claim(MOST - 1)
    one.answer(Waits.NONE, claim)
    woken = one.woken
    pool.waiting = claim
    pool.on_rest()
    assert one.woken == woken + 1
    assert two.ask()[0] == 0
    two.answer()
    assert one.ask() == (0, Permit.SHARED, Emptying.NO)
    one.answer(Waits.NONE)
    assert not suspects.excluding
    assert two.ask()[0] == 3


async def test_a_lost_lease_frees_the_others(suspects: Suspects, askers: tuple[Asker, Asker]) -> None:
    one, two = askers
    one.begin(deliveries=3)
    two.ask()
    two.answer(Waits.SOME)
    suspects.lost(one)
    assert two.woken == 1
    one.ask()
    suspects.lost(one)
    two.ask()
    two.answer(Waits.TO_RUN_ALONE)
    suspects.lost(two)
    assert not suspects.excluding
    assert one.ask()[1] == Permit.APART


# In a runtime


@pytest.fixture
def make_suspects(db: redis.Redis) -> Callable[..., None]:
    """Makes suspects of waiting tasks: lets a runtime die that never was there, and counts further deliveries."""

    def make(tenant: str, *ids: str, deliveries: int = 1) -> None:
        for task in ids:
            db.setrange(f"{{fairactor/0}}:task:{task}", 1, bytes([deliveries]))
        db.hset("{fairactor/0}", "torn", "1")  # the repair puts them where their records say

    return make


async def test_what_has_to_run_alone_does_so_in_a_busy_runtime(
    make_runtime: Make, make_suspects: Callable[..., None]
) -> None:
    running: set[int] = set()
    beside: dict[int, set[int]] = {}
    gate = anyio.Event()

    @actor
    async def run(n: int) -> None:
        running.add(n)
        for other in running:
            beside.setdefault(other, set()).update(running - {other})
            beside.setdefault(n, set()).add(other)
        await (anyio.sleep(0.01) if n else gate.wait())
        running.discard(n)

    async with make_runtime(workers=0) as sender:
        last = await sender.send("t", run(100))
        make_suspects("t", last.id, deliveries=4)
        handles = [await sender.send(f"u{n % 3}", run(n)) for n in range(30)]
        async with make_runtime(run, workers=4) as runtime:
            await until(lambda: len(beside) >= 4)
            gate.set()
            await last.result(timeout=PATIENCE)
            for handle in handles:
                await handle.result(timeout=PATIENCE)
            await check_invariants(runtime)
    assert beside[100] == {100}


async def test_a_last_chance_that_waits_for_a_task_of_its_own_does_not_wait_for_ever(
    make_runtime: Make, make_suspects: Callable[..., None]
) -> None:
    @actor
    async def child() -> int:
        return 7

    async with make_runtime(workers=0) as sender:

        @actor
        async def parent() -> int:
            return await runtime.ask("t", child(), timeout=PATIENCE)

        last = await sender.send("t", parent())
        make_suspects("t", last.id, deliveries=4)
        async with make_runtime(parent, child, workers=1) as runtime:
            assert await last.result(timeout=PATIENCE) == 7


async def test_many_suspects_of_many_tenants_all_run(make_runtime: Make, make_suspects: Callable[..., None]) -> None:
    @actor
    async def run(n: int) -> int:
        await anyio.sleep(0.002)
        return n

    async with make_runtime(workers=0) as sender:
        handles = [await sender.send(f"t{n % 7}", run(n)) for n in range(60)]
        for n, handle in enumerate(handles):
            make_suspects("t", handle.id, deliveries=1 + n % 5)
        async with make_runtime(run, workers=4) as one, make_runtime(run, workers=4):
            assert [await handle.result(timeout=PATIENCE) for handle in handles] == list(range(60))
            await check_invariants(one)
