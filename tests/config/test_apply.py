"""Tests that a configuration is applied to a namespace, and that applying it again changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from fairactor_scheduling import ScheduleNotFound, Schedules

from fairactor import LimitPolicy, Policy, Runtime, actor
from fairactor.config import Config
from fairactor.errors import ConfigurationError, InvalidConfig

pytestmark = pytest.mark.anyio


@actor
async def report(kind: str) -> str:
    return kind


DATA: dict[str, Any] = {
    "defaults": {"concurrency": 10, "rate": "100/s"},
    "tenants": {
        "acme": {"weight": 5, "rate": "10/s", "burst": 20, "group": "gold", "backlog": math.inf},
        "globex": {"concurrency": 1},
        "initech": {},
    },
    "groups": {"gold": {"weight": 2}},
    "limits": {
        "openai": {"rate": "90000/min", "concurrency": 10},
        "disk": {"concurrency": 4, "per": "tenant"},
        "report": {"rate": "50/s", "burst": 5},
    },
    "schedules": {
        "nightly": {
            "tenant": ["acme", "globex"], "actor": "report", "cron": "0 3 * * *", "timezone": "Europe/Berlin",
            "args": ["full"], "options": {"queue": "slow", "max_retries": 2}, "metadata": {"owner": "ops"},
        },
    },
}  # fmt: skip


@pytest.fixture(params=[1, 3])
def config(request: pytest.FixtureRequest, url: str) -> Callable[..., Config]:
    """Returns a function that makes a configuration for namespaces with one shard or three."""

    def make(data: dict[str, Any] = DATA, **options: Any) -> Config:
        return Config.from_dict({"url": url, "shards": request.param, "lease": 3.0, "workers": 2} | data | options)

    return make


async def test_what_is_applied_can_be_read(config: Callable[..., Config]) -> None:
    async with Runtime.from_config(config(), actors=[report]) as runtime:
        assert await runtime.policies.tenants() == {}
        changes = await runtime.apply(config())
        assert await runtime.policies.tenants() == {
            "acme": Policy(weight=5, concurrency=10, rate="10/s", burst=20, group="gold"),
            "globex": Policy(concurrency=1, rate="100/s", burst=10),
        }
        assert await runtime.policies.defaults() == Policy(concurrency=10, rate="100/s", burst=10)
        assert await runtime.policies.groups() == {"gold": 2.0}
        limits = await runtime.limits()
        assert limits["openai"] == LimitPolicy(concurrency=10, rate="90000/min")
        assert limits["disk"] == LimitPolicy(concurrency=4, per="tenant")
        assert limits["report"] == LimitPolicy(rate="50/s", burst=5)
        schedule = await Schedules(runtime).get("globex", "nightly")
        assert (schedule.when, schedule.timezone, schedule.actor) == ("0 3 * * *", "Europe/Berlin", "report")
        assert schedule.metadata["owner"] == "ops"
        said = [str(change) for change in changes]
        assert "tenants.acme.weight: not set → 5" in said
        assert "limits.openai.rate: not set → '90000/min'" in said
        assert "schedules.nightly: added for tenant 'globex'" in said


async def test_applying_it_again_changes_nothing(config: Callable[..., Config]) -> None:
    async with Runtime.from_config(config(), actors=[report]) as runtime:
        assert await runtime.apply(config())
        assert await runtime.apply(config()) == []
        assert await runtime.apply(config(), prune=True) == []
        assert await runtime.apply(config(), dry_run=True) == []


async def test_only_differences_are_written(config: Callable[..., Config]) -> None:
    async with Runtime.from_config(config(), actors=[report]) as runtime:
        await runtime.apply(config())
        await runtime.tenant("other").configure(weight=3)
        await runtime.tenant("acme").pause()
        data = {
            "tenants": {"acme": {"weight": 6}}, "limits": {"openai": {"concurrency": 20}},
            "groups": {"gold": {"weight": 3}},
            "schedules": {"nightly": DATA["schedules"]["nightly"] | {"tenant": "acme", "cron": "0 4 * * *"}},
        }  # fmt: skip
        expected = [
            "groups.gold.weight: 2 → 3",
            "tenants.acme.weight: 5 → 6",
            "limits.openai.concurrency: 10 → 20",
            "schedules.nightly: changed for tenant 'acme'",
        ]
        assert [str(change) for change in await runtime.apply(config(data), dry_run=True)] == expected
        assert [str(change) for change in await runtime.apply(config(data), dry_run=True)] == expected
        assert [str(change) for change in await runtime.apply(config(data))] == expected
        policies = await runtime.policies.tenants()
        assert policies["acme"] == Policy(6, 10, "10/s", 20, None, paused=True, group="gold")
        assert policies["other"].weight == 3
        assert (await runtime.limits())["openai"] == LimitPolicy(concurrency=20, rate="90000/min")
        assert (await Schedules(runtime).get("globex", "nightly")).when == "0 3 * * *"


async def test_pruning_resets_what_the_file_does_not_name(config: Callable[..., Config]) -> None:
    async with Runtime.from_config(config(), actors=[report]) as runtime:
        await runtime.apply(config())
        await runtime.tenant("other").configure(weight=3)
        await runtime.tenant("other").pause()
        await runtime.limit("ours").configure(concurrency=math.inf)
        by_hand = await Schedules(runtime).add(3600, "acme", report("x"))
        data = {"tenants": {"acme": {"weight": 5, "rate": "10/s", "burst": 20}}, "limits": {"disk": {"concurrency": 4}}}
        changes = {str(change) for change in await runtime.apply(config(data), prune=True)}
        assert {
            "defaults.concurrency: 10 → not set", "tenants.acme.group: 'gold' → not set",
            "tenants.globex.concurrency: 1 → not set", "tenants.other.weight: 3 → not set",
            "limits.openai.concurrency: 10 → not set", "limits.disk.per: 'tenant' → not set",
            "groups.gold.weight: 2 → not set", "schedules.nightly: removed for tenant 'globex'",
        } <= changes  # fmt: skip
        assert not any("burst" in change for change in changes if "acme" in change)
        assert (await runtime.policies.tenants())["other"] == Policy(paused=True)
        assert await runtime.limits() == {"disk": LimitPolicy(concurrency=4)}
        assert [schedule.id async for schedule in Schedules(runtime).list()] == [by_hand.id]
        assert await runtime.apply(config(data), prune=True) == []


async def test_limits_of_the_code_stay_when_pruning(config: Callable[..., Config]) -> None:
    @actor(concurrency=6)
    async def heavy() -> None: ...

    async with Runtime.from_config(config({}), actors=[heavy]) as runtime:
        assert (await runtime.limits())["heavy"].concurrency == 6
        assert await runtime.apply(config({}), prune=True) == []
        data = {"limits": {"heavy": {"concurrency": 9}}}
        assert [str(change) for change in await runtime.apply(config(data))] == [
            "limits.heavy.concurrency: not set → 9"
        ]
        await runtime.apply(config({}), prune=True)
        assert (await runtime.limits())["heavy"].concurrency == 6


async def test_what_is_no_configuration_is_refused(config: Callable[..., Config]) -> None:
    async with Runtime.from_config(config({})) as runtime:
        with pytest.raises(
            ConfigurationError, match=r"apply\('fairactor.toml'\): give a Config, as fairactor.config.load"
        ):
            await runtime.apply("fairactor.toml")  # type: ignore[arg-type]


async def test_many_tenants_are_read_at_once(config: Callable[..., Config]) -> None:
    data = {"tenants": {f"tenant {number}": {"weight": 2} for number in range(120)}}
    async with Runtime.from_config(config(data)) as runtime:
        assert len(await runtime.apply(config(data))) == 120
        assert await runtime.apply(config(data)) == []


async def test_a_runtime_applies_it_when_it_is_entered_if_the_file_says_so(config: Callable[..., Config]) -> None:
    async with Runtime.from_config(config(), actors=[report]) as runtime:
        assert await runtime.policies.tenants() == {}
    async with Runtime.from_config(config(apply=True), actors=[report]) as runtime:
        assert (await runtime.policies.tenants())["acme"].weight == 5
        assert await runtime.ask("acme", report("now")) == "now"


async def test_a_runtime_that_cannot_apply_it_is_not_entered(config: Callable[..., Config]) -> None:
    wrong = config({"limits": {"tight": {"concurrency": 1}}}, shards=3, apply=True, namespace="three")
    with pytest.raises(ConfigurationError, match="concurrency=1: this namespace has 3 shards"):
        async with Runtime.from_config(wrong, actors=[report]):
            pass


async def test_a_schedule_of_an_actor_that_is_elsewhere_is_skipped(config: Callable[..., Config]) -> None:
    data = {"schedules": {"n": {"tenant": "acme", "actor": "absent", "every": 60}}}
    async with Runtime.from_config(config(data, apply=True)) as runtime:
        assert [str(change) for change in await runtime.apply(config(data))] == [
            "schedules.n: skipped, because this runtime does not have the actor 'absent', for tenant 'acme'"
        ]
        with pytest.raises(ScheduleNotFound):
            await Schedules(runtime).get("acme", "n")


async def test_a_schedule_for_a_moment_that_has_passed_is_skipped(config: Callable[..., Config]) -> None:
    data = {"schedules": {"n": {"tenant": "acme", "actor": "report", "args": ["x"], "at": "2020-01-01T00:00:00Z"}}}
    async with Runtime.from_config(config(data), actors=[report]) as runtime:
        (change,) = await runtime.apply(config(data))
        assert "skipped" in str(change)
        assert "would never run" in str(change)


def test_a_schedule_is_checked_when_it_is_read() -> None:
    with pytest.raises(InvalidConfig, match=r"schedules\.n\.timezone='Mars': there is no such time zone here"):
        Config.from_dict({"schedules": {"n": {"tenant": "a", "actor": "b", "every": 5, "timezone": "Mars"}}})
