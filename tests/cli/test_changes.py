"""Tests ``tenants``, ``limits``, ``dead`` and ``tasks``: what they change, and when they refuse to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fairactor import Policy, Runtime, TaskState

from .conftest import HOSTILE, Run, bill
from .test_looking import needs, send_some


async def fail_some(runtime: Runtime) -> None:
    await runtime.send_many([("acme", bill(13)), ("acme", bill(13)), (HOSTILE, bill(13)), ("acme", bill(1))])
    await runtime.drain(5)


# Tenants


def test_a_tenant_is_configured_paused_and_resumed(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    record = run("tenants", "set", "acme", "--weight", "2.5", "--rate", "10/s", "--backlog", "inf", "--json").record
    assert (record["weight"], record["rate"], record["backlog"]) == (2.5, "10/s", None)
    assert run("tenants", "pause", "acme", HOSTILE).out.splitlines()[0] == "acme paused"
    assert run("tenants", "show", "acme", "--json").record["paused"] is True
    assert "paused     yes" in run("tenants", "show", "acme").out
    assert run("tenants", "resume", "acme", "--json").records == [{"tenant": "acme", "resumed": True}]
    assert run("tenants", "set", "acme", "--weight", "none", "--rate", "none", "--json").record["weight"] == 1
    assert prepare(lambda runtime: runtime.tenant("acme").policy()) == Policy()


def test_wrong_settings_are_refused(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    assert "give what to change: --weight, " in run("tenants", "set", "acme", code=2).err
    assert "'many': give a whole number" in run("tenants", "set", "acme", "--concurrency", "many", code=2).err
    assert "rate='10': give tasks per unit of time" in run("tenants", "set", "acme", "--rate", "10", code=2).err


def test_the_waiting_tasks_of_a_tenant_are_purged(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    assert "give names, or --all-tenants" in run("tenants", "purge", code=2).err
    assert run("tenants", "purge", "acme", "--dry-run").out == "4 waiting tasks would be canceled\n"
    assert "without a terminal nobody can confirm it: add --yes" in run("tenants", "purge", "acme", code=2).err
    done = run("tenants", "purge", "acme", "--yes", "--json").record
    assert done == {"matches": 4, "complete": True, "canceled": 4, "dry_run": False}
    assert run("tenants", "purge", "acme", "--yes").out == "no waiting task matches\n"
    assert run("stats", "--json").record["queued"] == 1


@needs("tenants")
def test_tenants_are_listed_and_purged_together(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    found = {record["tenant"]: record["backlog"] for record in run("tenants", "--json").records}
    assert found == {"acme": 3, HOSTILE: 1}
    listed = run("tenants", "list", "--limit", "1")
    assert listed.out.splitlines()[1].startswith("acme")
    assert "there are more: --after" in listed.err
    assert len(run("tenants", "--limit", "1", "--all", "--json").records) == 2
    said = run("tenants", "show", "amce", code=1).err
    assert "nothing is known of a tenant 'amce'; did you mean 'acme'?" in said
    assert run("tenants", "purge", "--all-tenants", "--yes").out == "5 waiting tasks canceled\n"


# Limits


def test_a_limit_is_configured_paused_and_reset(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    assert run("limits").out == "there are no limits\n"
    record = run("limits", "set", "openai", "--rate", "90000/min", "--concurrency", "5", "--json").record
    assert (record["rate"], record["concurrency"]) == ("90000/min", 5)
    assert run("limits", "pause", "openai", "--for", "30s").out == "limit openai paused\n"
    assert 25 < run("limits", "show", "openai", "--json").record["paused_for"] <= 30
    run("limits", "resume", "openai")
    assert [line.split()[:3] for line in run("limits", "list").out.splitlines()[1:]] == [["openai", "5", "90000/min"]]
    assert "did you mean 'openai'?" in run("limits", "show", "opnai", code=1).err
    run("limits", "reset", "openai")
    assert not run("limits", "--json").records


# Dead letters


def test_dead_letters_are_listed_and_sent_again(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(fail_some, bill)
    records = run("dead", "--json").records
    assert sorted(record["tenant"] for record in records) == ["acme", "acme", HOSTILE]
    records.sort(key=lambda record: str(record["tenant"]))
    assert records[0]["error"]["message"] == f"no money for {HOSTILE}"
    assert len(run("dead", "list", "--tenant", "acme", "--limit", "1", "--json").records) == 1
    plain = run("dead").out
    assert "\\u202e" in plain
    assert "\x1b" not in plain
    shown = run("dead", "show", records[0]["id"]).out
    assert "traceback" in shown
    assert run("dead", "redrive", records[0]["id"]).out == f"{records[0]['id']} redriven\n"
    done = run("dead", "redrive", records[0]["id"], "nonsense", "--json", code=1)
    assert [record["redriven"] for record in done.records] == [False, False]
    assert "there is no such task" in done.err
    assert (
        run("dead", "redrive", "--error", "ValueError", "--tenant", "acme", "--yes").out == "1 dead letter redriven\n"
    )
    assert run("stats", "--json").record["queued"] == 2


def test_dead_letters_are_deleted(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(fail_some, bill)
    assert "without a filter this takes all dead letters of all tenants" in run("dead", "purge", code=2).err
    assert "leave --state out" in run("dead", "purge", "--state", "queued", code=2).err
    assert "--tenant and --actor only" in run("dead", "purge", "--error", "E", "--queue", "q", code=2).err
    done = run("dead", "purge", "--error", "ValueError", "--tenant", HOSTILE, "--yes", "--json").record
    assert done["deleted"] == 1
    assert run("stats", "--json").record["dead_letters"] == 2


@needs("select")
def test_dead_letters_are_selected(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(fail_some, bill)
    assert run("dead", "redrive", "--tenant", "acme", "--dry-run", "--json").record["matches"] == 2
    assert run("dead", "redrive", "--tenant", "acme", "--yes").out == "2 dead letters redriven\n"
    assert run("dead", "purge", "--all-tenants", "--yes").out == "1 dead letter deleted\n"


# Tasks


def test_tasks_are_listed_and_shown(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    records = run("tasks", "--json", "--state", "queued", "--state", "scheduled").records
    assert len(records) == 5
    assert {record["state"] for record in records} == {"queued", "scheduled"}
    assert len(run("tasks", "list", "--tenant", HOSTILE, "--json").records) == 1
    assert len(run("tasks", "list", "--limit", "2", "--all", "--json").records) == 5
    assert "there are more: --after " in run("tasks", "list", "--limit", "2").err
    assert run("tasks", "--actor", "nobody").out == "no task matches\n"
    task = records[0]["id"]
    assert run("tasks", "show", task, "--json").record["id"] == task
    shown = run("tasks", "show", task).out
    assert f"id         {task}" in shown
    assert "timeline" in shown
    assert "'nonsense'" in run("tasks", "show", "nonsense", code=1).err


def test_tasks_are_canceled_by_id(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    task = run("tasks", "--json", "--tenant", "acme").records[0]["id"]
    assert "there is no such task" in run("tasks", "cancel", task, "--tenant", "other", code=1).err
    assert run("tasks", "cancel", task, "--json").record == {"id": task, "canceled": True, "problem": None}
    assert "it had canceled already" in run("tasks", "cancel", task, code=1).err
    assert "not both" in run("tasks", "cancel", task, "--actor", "bill", code=2).err


def test_tasks_are_retried_by_id(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    task = run("tasks", "--json", "--state", "scheduled").record["id"]
    assert run("tasks", "retry", task, "--json").record == {"id": task, "retried": True, "problem": None}
    assert run("stats", "--json").record["queued"] == 5
    said = run("tasks", "retry", task, code=1).err
    assert "it is queued; only tasks that wait for a time, or have failed, can be retried" in said
    prepare(fail_some, bill)
    dead = run("dead", "list", "--limit", "1", "--json").record["id"]
    assert run("tasks", "retry", dead).out == f"{dead} retried\n"


@needs("select")
def test_tasks_that_a_filter_selects_are_canceled_retried_and_moved(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    assert "--all-tenants" in run("tasks", "cancel", code=2).err
    assert run("tasks", "move", "fast", "--queue", "slow", "--yes").out == "1 task moved\n"
    assert len(run("tasks", "--queue", "fast", "--json").records) == 1
    assert run("tasks", "retry", "--state", "scheduled", "--yes").out == "1 task retried\n"
    assert run("tasks", "cancel", "--tenant", "acme", "--dry-run").out == "4 tasks would be canceled\n"
    assert run("tasks", "cancel", "--tenant", "acme", "--yes", "--json").record["canceled"] == 4


@pytest.mark.parametrize("since", ["2h", "2026-01-01", "2026-01-01T12:00:00+02:00"])
def test_times_are_read(since: str, run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    assert len(run("tasks", "--since", since, "--state", "queued", "--json").records) == 4
    assert "give how long ago" in run("tasks", "--since", "yesterday", code=2).err
    assert TaskState.QUEUED in {record["state"] for record in run("tasks", "--json").records}
