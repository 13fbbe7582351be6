"""Converts configurations of fairque, a fair queue that fairactor can replace.

fairque has three forms of files: one with ``redis``, ``worker`` (or a list of ``workers``) and ``queue``; one for all
processes, with ``redis`` and the settings of the queue beside it; and one for each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs

from fairactor._util.checks import shown
from fairactor._util.nearest import unknown

from .document import Document
from .mistakes import Mistakes, Path, about, shown_path
from .variables import Filled


@attrs.frozen
class Converted:
    """What became of a key of another system's configuration."""

    key: str
    """The key, with the tables that contain it."""
    became: str | None
    """The setting that it became; None if it has no meaning here."""
    reason: str
    """Why, if that is not plain."""

    def __str__(self) -> str:
        if self.became is None:
            return f"{self.key}: dropped; {self.reason}"
        return f"{self.key}: became {self.became}" + (f"; {self.reason}" if self.reason else "")


Rule = tuple[str | None, str]
_SCRIPTS: Final = "scripts are loaded into the server once, and never expire"
_BATCHED: Final = "concurrent sends are always joined into one call"
REDIS: Final[Mapping[str, Rule]] = {
    "host": ("url", ""),
    "port": ("url", ""),
    "db": ("url", ""),
    "username": ("url", ""),
    "password": ("url", ""),
    "socket_connect_timeout": ("connect_timeout", ""),
    "socket_timeout": (None, "a call waits as long as connect_timeout says"),
    "health_check_interval": (None, "lost connections are noticed by every turn"),
    "decode_responses": (None, "replies are read as bytes"),
}
WORKER: Final[Mapping[str, Rule]] = {
    "id": (
        "worker.NAME",
        "with one worker, its settings stand at the top; each runtime makes a unique name of its own",
    ),
    "assigned_users": ("assigned", ""),
    "steal_targets": ("steal", ""),
    "max_concurrent_tasks": ("workers", ""),
    "task_timeout_seconds": ("timeout", ""),
    "graceful_shutdown_timeout": ("grace", ""),
    "poll_interval_seconds": (None, "nothing polls: the server wakes idle runtimes"),
}
QUEUE: Final[Mapping[str, Rule]] = {
    "stats_prefix": ("namespace", "keys of both never meet, because they are named differently"),
    "default_max_retries": ("max_retries", ""),
    "default_task_timeout": ("timeout", "unless the worker has task_timeout_seconds"),
    "max_retry_attempts": (None, "max_retries comes from default_max_retries; calls to the server are repeated anyway"),
    "lua_script_cache_size": (None, _SCRIPTS),
    "enable_pipeline_optimization": (None, _BATCHED),
    "pipeline_batch_size": (None, _BATCHED),
    "pipeline_timeout": (None, _BATCHED),
    "queue_cleanup_interval": (None, "records expire by themselves"),
    "stats_aggregation_interval": (None, "statistics are always up to date"),
}
PROCESS: Final[Mapping[str, Rule]] = {
    "log_level": (None, "configure the logger named fairactor"),
    "log_format": (None, "configure the logger named fairactor"),
}
_SIGNS: Final = frozenset({"assigned_users", "steal_targets", "max_concurrent_tasks", "stats_prefix"})
_TABLES: Final = frozenset({"redis", "worker", "workers", "queue"})


def is_fairque(data: Mapping[str, Any]) -> bool:
    """Whether this is a configuration of fairque."""
    worker = data.get("worker")
    return (
        isinstance(data.get("redis"), Mapping)
        or isinstance(data.get("workers"), list)
        or not _SIGNS.isdisjoint(data)
        or (isinstance(worker, Mapping) and not _SIGNS.isdisjoint(worker))
    )


def convert(
    document: Document, filled: Filled, mistakes: Mistakes
) -> tuple[Document, Mapping[Path, str], tuple[Converted, ...]]:
    """Returns a configuration of fairque as one of fairactor, the values from variables, and what became of each key.

    Args:
        document: the configuration.
        filled: which values of it came from variables.
        mistakes: gets what is wrong.
    """
    conversion = _Conversion(document, filled, mistakes)
    conversion.run()
    converted = attrs.evolve(document, data=conversion.data, lines=conversion.lines)
    return converted, conversion.written, tuple(conversion.converted)


class _Conversion:
    def __init__(self, document: Document, filled: Filled, mistakes: Mistakes) -> None:
        self._document = document
        self._filled = filled
        self.written: dict[Path, str] = {}
        self._mistakes = mistakes
        self._url: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.lines: dict[Path, int] = {}
        self.converted: list[Converted] = []

    def run(self) -> None:
        data = self._document.data
        flat = {key: value for key, value in data.items() if key not in _TABLES}
        self._table(data.get("redis", {}), ("redis",), REDIS, self._to_url)
        self._table(data.get("queue", {}), ("queue",), QUEUE, self._to_top)
        self._table(flat, (), {**QUEUE, **PROCESS, **WORKER}, self._to_top)
        if isinstance(workers := data.get("workers"), list):
            if "worker" in data:
                self._mistake(("workers",), "give worker or workers, not both")
            for number, worker in enumerate(workers):
                self._worker(worker, ("workers", number))
        elif "workers" in data:
            self._mistake(("workers",), "give a list of workers")
        else:
            self._table(data.get("worker", {}), ("worker",), WORKER, self._to_top)
        if self._url:
            self._set(("url",), _url_of(self._url), ("redis",))

    def _worker(self, worker: Any, path: Path) -> None:
        name = worker.get("id") if isinstance(worker, Mapping) else None
        if not isinstance(name, str) or not name:
            self._mistake(path, "give a table with an id, which is a string")
            return
        self.data.setdefault("worker", {})[name] = {}

        def to_worker(setting: str, value: Any, given: Path) -> None:
            if setting != "worker.NAME":
                self._set(("worker", name, setting), value, given)

        self._table(worker, path, WORKER, to_worker)

    def _table(self, table: Any, path: Path, rules: Mapping[str, Rule], use: Callable[[str, Any, Path], None]) -> None:
        if not isinstance(table, Mapping):
            self._mistake(path, f"{shown(table)}: give a table")
            return
        for key, value in table.items():
            if key not in rules:
                self._mistake((*path, key), unknown(key, rules, "key of fairque's"))
                continue
            became, reason = rules[key]
            self.converted.append(Converted(shown_path((*path, key)), became, reason))
            if became is not None and value is not None:
                use(key if use == self._to_url else became, value, (*path, key))

    def _to_url(self, key: str, value: Any, given: Path) -> None:
        if key == "socket_connect_timeout":
            self._set(("connect_timeout",), value, given)
        elif key in ("port", "db") and (isinstance(value, bool) or not str(value).isdecimal()):
            self._mistake(given, f"{shown(value)}: give a whole number")
        elif key not in ("port", "db") and not isinstance(value, str):
            self._mistake(given, "give a string")
        else:
            self._url[key] = value

    def _to_top(self, setting: str, value: Any, given: Path) -> None:
        if setting == "worker.NAME" or (
            setting == "timeout" and given[-1] != "task_timeout_seconds" and self._own_timeout()
        ):
            return
        self._set((setting,), value, given)

    def _own_timeout(self) -> bool:
        worker = self._document.data.get("worker")
        return any(
            isinstance(table, Mapping) and "task_timeout_seconds" in table for table in (worker, self._document.data)
        )

    def _set(self, path: Path, value: Any, given: Path) -> None:
        table = self.data
        for key in path[:-1]:
            table = table.setdefault(str(key), {})
        table[str(path[-1])] = value
        for variable, written in self._filled.written.items():
            if variable[: len(given)] == given:
                self.written[*path, *variable[len(given) :]] = written
        for end in range(len(given), 0, -1):
            if (line := self._document.lines.get(given[:end])) is not None:
                self.lines[path] = line
                break

    def _mistake(self, path: Path, problem: str) -> None:
        for variable, written in self._filled.written.items():
            if variable[: len(path)] == path:
                problem = f"what {shown(written)} stands for cannot be used here (it is not shown)"
        self._mistakes.add(self._document.where(path), about(path, problem))


def _url_of(redis: Mapping[str, Any]) -> str:
    """Returns the URL for a table of fairque's."""
    login = ""
    if redis.get("username") or redis.get("password"):
        login = f"{quote(redis.get('username', ''), safe='')}:{quote(redis.get('password', ''), safe='')}@"
    host = redis.get("host", "localhost")
    host = f"[{host}]" if ":" in host else host
    return f"redis://{login}{host}:{redis.get('port', 6379)}/{redis.get('db', 0)}"
