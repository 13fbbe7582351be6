"""Tests the check that every known tenant and queue is served by somebody."""

from __future__ import annotations

from typing import Any

import pytest

from fairactor import actor
from fairactor.config import Config


@actor(queue="mail")
async def deliver() -> None: ...


@actor
async def plain() -> None: ...


def said(data: dict[str, Any], *actors: Any) -> list[str]:
    return [str(finding).partition(". ")[0] for finding in Config.from_dict(data).check(actors)]


GPU = {"queues": ["gpu"]}
SCHEDULE = {"actor": "a", "every": 60}
ONLY_ASSIGNED = (
    "warning: tenants: all workers are dedicated to certain tenants, so nobody serves those that are not named here"
)
NO_DEFAULT = (
    "warning: queues.default: all workers name their queues, and none serves 'default', the queue of tasks that name "
    "none"
)


@pytest.mark.parametrize(
    ("data", "findings"),
    [
        ({}, []),
        ({"assigned": ["a"], "steal": True, "tenants": {"b": {}}}, []),
        ({"assigned": ["a"], "steal": ["b"], "tenants": {"b": {}}}, [ONLY_ASSIGNED]),
        (
            {"assigned": ["a"], "tenants": {"b": {}, "c.d": {}}},
            [
                "error: tenants.b: no worker serves this tenant: all are dedicated to others",
                "error: tenants.'c.d': no worker serves this tenant: all are dedicated to others",
                ONLY_ASSIGNED,
            ],
        ),
        ({"worker": {"x": {"assigned": ["a"]}, "y": {}}, "tenants": {"b": {}}}, []),
        ({"worker": {"x": {"assigned": ["a"]}, "y": {"workers": 0}}}, [ONLY_ASSIGNED]),
        ({"workers": 0}, ["error: workers: no worker runs tasks: give a number of workers above 0"]),
        ({"worker": {"x": GPU}}, [NO_DEFAULT]),
        ({"worker": {"x": GPU, "y": {"queues": ["default"]}}}, []),
        ({"queues": ["default"], "worker": {"x": GPU, "y": {}}}, []),
        (
            {"worker": {"x": GPU}, "schedules": {"n": SCHEDULE | {"tenant": "a"}}},
            ["error: schedules.n: no worker serves its queue 'default': add it to the queues of one"],
        ),
        (
            {"queues": ["default"], "schedules": {"n": SCHEDULE | {"tenant": "a", "options": {"queue": "gpu"}}}},
            ["error: schedules.n: no worker serves its queue 'gpu': add it to the queues of one"],
        ),
        (
            {
                "worker": {"x": GPU | {"assigned": ["a"]}, "y": {"queues": ["default"], "steal": True}},
                "schedules": {"n": SCHEDULE | {"tenant": ["c", "b"], "options": {"queue": "gpu"}}},
            },
            [
                "error: schedules.n: the workers that serve tenant 'b' do not serve queue 'gpu'",
                "error: schedules.n: the workers that serve tenant 'c' do not serve queue 'gpu'",
            ],
        ),
        (
            {"worker": {"x": GPU | {"assigned": ["a"]}, "y": {"assigned": ["b"]}}},
            [ONLY_ASSIGNED, "warning: tenants.a: no worker that serves this tenant serves the queue 'default'"],
        ),
    ],
)  # fmt: skip
def test_what_nobody_serves(data: dict[str, Any], findings: list[str]) -> None:
    assert sorted(said(data)) == sorted(findings)


def test_queues_of_actors() -> None:
    assert said({"queues": ["default"]}, deliver, plain) == [
        "error: actor deliver: no worker serves its queue 'mail': add it to the queues of one"
    ]
    assert said({"queues": ["default", "mail"]}, deliver, plain) == []
    assert said({"queues": ["mail"]}, plain) == [
        "error: actor plain: no worker serves its queue 'default': add it to the queues of one"
    ]
