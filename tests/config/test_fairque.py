"""Tests that configurations of fairque are converted, and that each key says what it became."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fairactor._config import fairque
from fairactor.config import Config
from fairactor.errors import InvalidConfig

Loaded = Callable[..., Config]
ONE = """
redis:
  host: "cache"
  port: 6380
  db: 2
  password: "p/w"
  username: null
  socket_timeout: 5.0
  socket_connect_timeout: 4.0
  health_check_interval: 30
  decode_responses: true
worker:
  id: "worker-001"
  assigned_users: ["user:1", "user:3"]
  steal_targets: ["user:2"]
  poll_interval_seconds: 1.0
  task_timeout_seconds: 200.0
  max_concurrent_tasks: 10
  graceful_shutdown_timeout: 30.0
queue:
  stats_prefix: "fq"
  lua_script_cache_size: 100
  max_retry_attempts: 5
  default_task_timeout: 300.0
  default_max_retries: 3
  enable_pipeline_optimization: true
  pipeline_batch_size: 100
  pipeline_timeout: 5.0
  queue_cleanup_interval: 3600
  stats_aggregation_interval: 300
"""
MANY = """
redis: {host: localhost}
workers:
  - id: one
    assigned_users: [a]
    max_concurrent_tasks: 3
  - id: two
    assigned_users: [b]
    steal_targets: [a]
queue:
  default_max_retries: 2
"""
WORKER = """
id: worker-001
assigned_users: ["user:1"]
steal_targets: []
task_timeout_seconds: 180.0
max_concurrent_tasks: 15
"""
COMMON = """
redis:
  host: localhost
log_level: INFO
log_format: "%(message)s"
stats_prefix: fq
default_task_timeout: 300.0
"""


def test_a_file_with_one_worker(loaded: Loaded) -> None:
    found = loaded(ONE, "fairque.yaml")
    settings = found.settings
    assert settings.url == "redis://:p%2Fw@cache:6380/2"
    assert (settings.namespace, settings.workers, settings.grace, settings.connect_timeout) == ("fq", 10, 30.0, 4.0)
    assert (settings.assigned, settings.steal) == (("user:1", "user:3"), ("user:2",))
    assert (settings.timeout, settings.max_retries) == (200.0, 3)
    assert found.sources["workers"] == "fairque.yaml:18"
    assert found.sources["timeout"] == "fairque.yaml:17"
    became = {each.key: each.became for each in found.converted}
    assert became["redis.host"] == became["redis.password"] == "url"
    assert became["worker.max_concurrent_tasks"] == "workers"
    assert became["worker.poll_interval_seconds"] is None
    assert len(became) == 26
    assert "p/w" not in repr(found) + "".join(map(str, found.converted)) + repr(found.to_dict(secrets=False))
    assert "worker.poll_interval_seconds: dropped; nothing polls: the server wakes idle runtimes" in [
        str(each) for each in found.converted
    ]


def test_a_file_with_many_workers(loaded: Loaded) -> None:
    found = loaded(MANY, "fairque.yaml", worker="two")
    assert (found.settings.assigned, found.settings.steal, found.settings.max_retries) == (("b",), ("a",), 2)
    assert set(found.workers) == {"one", "two"}
    assert loaded(MANY, "fairque.yaml", worker="one").settings.workers == 3
    assert [each.about for each in found.check()] == ["tenants"]


def test_files_for_a_worker_and_for_all(loaded: Loaded) -> None:
    settings = loaded(WORKER, "worker1.yaml").settings
    assert (settings.workers, settings.assigned, settings.timeout) == (15, ("user:1",), 180.0)
    settings = loaded(COMMON, "common.yaml").settings
    assert (settings.namespace, settings.timeout, settings.url) == ("fq", 300.0, "redis://localhost:6379/0")


def test_mistakes_are_named_with_their_lines_in_that_file(loaded: Loaded) -> None:
    with pytest.raises(InvalidConfig) as raised:
        loaded(ONE.replace("max_concurrent_tasks: 10", "max_concurrent_tasks: -1").replace("port:", "prot:"), "f.yaml")
    assert raised.value.mistakes == (
        "f.yaml:4: redis: there is no key of fairque's 'prot'; did you mean port?",
        "f.yaml:18: workers=-1: give a whole number, 0 or more",
    )
    with pytest.raises(InvalidConfig) as raised:
        loaded("redis: {host: 5, port: x}\nworkers: [5, {id: a, assigned_users: x}]\nworker: {id: b}", "f.yaml")
    assert raised.value.mistakes == (
        "f.yaml:1: redis.host: give a string",
        "f.yaml:1: redis.port: 'x': give a whole number",
        "f.yaml:2: workers: give worker or workers, not both",
        "f.yaml:2: workers[0]: give a table with an id, which is a string",
        "f.yaml:2: worker.a.assigned: 'x' is not a list of tenants: give their names, as in assigned=['acme']",
    )


def test_secrets_in_it_are_not_shown(loaded: Loaded) -> None:
    environ = {"PW": "s3cr/t:x"}
    found = loaded(
        "redis: {host: db, password: '${PW}'}\nworker: {id: a, assigned_users: ['${PW}']}", "f.yaml", environ=environ
    )
    assert found.settings.url == "redis://:s3cr%2Ft%3Ax@db:6379/0"
    assert "s3cr" not in repr(found) + repr(found.to_dict(secrets=False)) + "".join(map(str, found.converted))
    with pytest.raises(InvalidConfig) as raised:
        loaded("redis: {port: '${PW}'}\nqueue: {stats_prefix: '${PW}'}\nworker: '${PW}'", "f.yaml", environ=environ)
    assert raised.value.mistakes == (
        "f.yaml:1: redis.port: what '${PW}' stands for cannot be used here (it is not shown)",
        "f.yaml:2: namespace: what '${PW}' stands for cannot be used here (it is not shown)",
        "f.yaml:3: worker: what '${PW}' stands for cannot be used here (it is not shown)",
    )


def test_our_own_files_are_not_taken_for_fairques(loaded: Loaded) -> None:
    assert not loaded("workers: 5\nworker:\n  gpu:\n    assigned: [a]", "fairactor.yaml").converted


def test_the_docs_say_what_became_of_each_key() -> None:
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?) \|", text.partition("## From fairque")[2], re.MULTILINE))
    for table, rules in {
        "redis.": fairque.REDIS, "worker.": fairque.WORKER, "queue.": fairque.QUEUE, "": fairque.PROCESS,
    }.items():  # fmt: skip
        for key, (became, reason) in rules.items():
            row = rows[f"{table}{key}"]
            assert row == (f"`{became}`" if became else "dropped") + (f": {reason}" if reason else "")
