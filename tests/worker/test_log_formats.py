"""Tests the filter and the formatters of `fairactor.logs`."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys

import pytest

from fairactor._actors.task import Task, enter_task
from fairactor.logs import JsonFormatter, TaskFilter, TextFormatter

HOSTILE = ["\x1b[2J", "a\u202eb", "a\nb", "\ud800", "x" * 65_536, "a b", "\x00", ""]


def made(tenant: str = "acme", **given: object) -> logging.LogRecord:
    record = logging.makeLogRecord({"msg": "hello %s", "args": ("you",), "name": "app", "levelname": "INFO"} | given)
    with enter_task(Task("t1", tenant, "bill", attempt=2)):
        assert TaskFilter().filter(record)
    return record


def test_a_line_ends_with_the_task() -> None:
    line = TextFormatter().format(made())
    assert line.endswith(" INFO app: hello you [task=t1 tenant=acme actor=bill attempt=2]")


def test_outside_tasks_there_are_no_names() -> None:
    record = logging.makeLogRecord({"msg": "hello"})
    TaskFilter().filter(record)
    assert (vars(record)["task_id"], vars(record)["attempt"]) == ("", 0)
    assert "task" not in TextFormatter().format(record)
    assert "tenant" not in json.loads(JsonFormatter().format(record))


@pytest.mark.parametrize("tenant", HOSTILE, ids=ascii)
def test_names_break_no_line(tenant: str) -> None:
    line = TextFormatter().format(made(tenant))
    assert line.isprintable()
    assert len(line) < 500
    written = JsonFormatter().format(made(tenant))
    assert written.isascii()
    assert "\n" not in written
    assert json.loads(written)["tenant"] == tenant


def test_json_has_what_was_given_and_the_traceback() -> None:
    try:
        int("wrong")
    except ValueError:
        record = made(exc_info=sys.exc_info(), order=7, odd={1}, message="mine")
    said = json.loads(JsonFormatter().format(record))
    assert (said["order"], said["odd"], said["message"]) == (7, "{1}", "hello you")
    assert said["traceback"].endswith("invalid literal for int() with base 10: 'wrong'")
    assert set(said) == {
        "time", "level", "logger", "message", "traceback", "task_id", "tenant", "actor", "attempt", "order", "odd",
    }  # fmt: skip


def test_what_a_value_does_breaks_nothing() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    assert json.loads(JsonFormatter().format(made(bad=Bad())))["bad"] == "<Bad>"


def test_a_record_that_goes_through_a_queue_keeps_its_task() -> None:
    passed: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = logging.handlers.QueueHandler(passed)
    handler.handle(made())
    record = passed.get()
    TaskFilter().filter(record)
    assert vars(record)["tenant"] == "acme"
