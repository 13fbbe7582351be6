"""Tests that `to_dict` and `from_dict` are inverse, for random configurations."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fairactor.config import Config, load

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
seconds = st.floats(0.001, 1e6)
tenants = st.lists(names, max_size=3)
worker = st.fixed_dictionaries(
    {},
    optional={
        "workers": st.integers(0, 1000), "processes": st.integers(1, 8), "assigned": tenants,
        "steal": tenants | st.booleans(), "timeout": seconds | st.none(), "max_retries": st.integers(0, 9),
        "queues": st.lists(names.filter(lambda name: "\x1f" not in name), min_size=1, max_size=3),
        "priority": st.sampled_from(["low", "critical"]),
    },
)  # fmt: skip
rates = st.sampled_from(["10/s", "1000/h", float("inf")])
policy = st.fixed_dictionaries(
    {},
    optional={"weight": st.floats(0.001, 1e6), "concurrency": st.integers(1, 99), "rate": rates, "backlog": st.just(5)},
)
rules = names.filter(lambda name: name not in ("every", "webhook", "headers"))
configurations = st.tuples(
    worker,
    st.fixed_dictionaries(
        {},
        optional={
            "url": st.sampled_from(["redis://:pass@db/1", "rediss://db"]), "apply": st.booleans(), "shards": st.just(3),
            "namespace": st.just("shop"), "defaults": policy, "tenants": st.dictionaries(names, policy, max_size=3),
            "groups": st.dictionaries(names, st.just({"weight": 2}), max_size=2),
            "worker": st.dictionaries(names, worker, min_size=1, max_size=3), "xcom": st.just({"ttl": 60}),
            "schedules": st.just({"n": {"tenant": ["a"], "actor": "b", "every": 60, "args": [1, {"x": None}]}}),
            "alerts": st.dictionaries(rules, st.just({"kind": "clock", "above": 5}), max_size=2),
        },
    ),
).map(lambda pair: pair[0] | pair[1])  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(configurations)
def test_a_configuration_survives_the_round_trip(data: dict[str, Any]) -> None:
    for name in [None, *data.get("worker", {})]:
        found = Config.from_dict(data, worker=name)
        again = Config.from_dict(found.to_dict(), worker=name)
        assert again == found
        assert again.to_dict() == found.to_dict()
        assert again.settings == found.settings
        assert "pass@" not in repr(found) + repr(found.to_dict(secrets=False))


@settings(deadline=None, max_examples=40)
@given(configurations)
def test_yaml_says_what_a_dict_says(data: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fairactor.yaml")
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        assert load(path, environ={}).settings == Config.from_dict(data).settings


@settings(deadline=None, max_examples=40)
@given(configurations, st.data())
def test_a_changed_runtime_configuration_survives_too(data: dict[str, Any], draw: st.DataObject) -> None:
    name = draw.draw(st.sampled_from([None, *data.get("worker", {})]))
    over = draw.draw(worker)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fairactor.yaml")
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        found = load(path, worker=name, environ={"FAIRACTOR_LEASE": "7"}, **over)
    assert found.settings.lease == 7.0
    assert Config.from_dict(found.to_dict(), worker=name) == found
    assert Config.from_dict(data).with_options(name, {**over, "lease": 7}).settings == found.settings
