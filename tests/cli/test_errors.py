"""Tests what commands say when something is wrong, and their exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click
import pytest
import redis

from fairactor import Runtime, cli
from fairactor._cli.group import main
from fairactor._cli.table import COMMANDS

from .conftest import Run


async def nothing(_: Runtime) -> None: ...


def there() -> set[str]:
    """Returns the commands whose modules are here."""
    return {
        name for name, row in COMMANDS.items() if find_spec(f"fairactor._cli.{row.place.partition(':')[0]}") is not None
    }


@pytest.mark.parametrize("name", sorted(there()))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: fairactor {name}")


def commands(command: click.Command, context: click.Context, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    found = []
    missing = set(COMMANDS) - there() if command is main else set()
    for name in set(command.list_commands(context)) - missing:
        inner = command.get_command(context, name)
        assert inner is not None
        found += commands(inner, context, (*path, name))
    return found


def test_all_options_have_help_and_every_command_a_first_line(of_plugins: None) -> None:
    context = click.Context(main)
    for path in commands(main, context):
        command: Any = main
        for name in path:
            command = command.get_command(context, name)
        assert command.get_short_help_str(200).endswith((".", "?")), path
        assert all(each.help for each in command.params if isinstance(each, click.Option)), path


def test_unknown_names_get_a_suggestion(run: Run, of_plugins: None) -> None:
    assert "there is no command 'stast'; did you mean 'stats'" in run("stast", code=2).err
    assert "did you mean 'pause'" in run("tenants", "pasue", "acme", code=2).err
    assert "did you mean 'schedules'?" in run("schedule", code=2).err
    assert "--namespace" in run("stats", "--namespac", "x", code=2).err


def test_without_a_server(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRACTOR_URL")
    said = run("stats", code=2).err
    assert "give the server: --url redis://HOST, or the variable FAIRACTOR_URL" in said
    said = run("stats", "--url", "nonsense://:secret@x", code=2).err
    assert "redis://" in said
    assert "secret" not in said


def test_a_server_that_is_away(run: Run) -> None:
    said = run("health", "--ready", "--timeout", "0.2", "--url", "redis://user:secret@127.0.0.1:1", code=3).err
    assert said.startswith("fairactor health: no answer from redis://127.0.0.1:1")
    assert "Is it running" in said
    assert "secret" not in said


def test_a_namespace_that_does_not_exist_is_not_created(run: Run, db: redis.Redis) -> None:
    for arguments in (["stats"], ["send", "acme", "bill"], ["health", "--ready"], ["tenants", "pause", "acme"]):
        said = run(*arguments, "--namespace", "typo", code=3).err
        assert "there is no namespace 'typo'" in said
    assert not list(db.scan_iter())


def test_the_aging_of_the_namespace_is_taken_from_it(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(nothing, aging=5.0, shards=3, namespace="other")
    assert run("stats", "--namespace", "other", "--json").record["namespace"] == "other"


def test_another_data_model(run: Run, db: redis.Redis, prepare: Callable[..., Any]) -> None:
    prepare(nothing)
    db.hset("{fairactor/0}", "version", "999")
    assert "data model 999" in run("stats", code=3).err
    db.hset("{fairactor/0}", "step", "nonsense")
    assert "damaged" in run("stats", code=2).err


def test_a_user_without_rights(run: Run, db: redis.Redis, url: str, prepare: Callable[..., Any]) -> None:
    prepare(nothing)
    db.acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+ping", "+info", "+hget"], keys=["*"])
    try:
        said = run("stats", "--url", url.replace("://", "://reader:secret@"), code=3).err
        assert "reader" in said
        assert "secret" not in said
    finally:
        db.acl_deluser("reader")


def test_without_click_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in list(sys.modules):
        if module.startswith("fairactor._cli") or module == "click":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "click", None)
    assert cli.main(["stats"]) == 1
    assert 'pip install "fairactor[cli]"' in capsys.readouterr().err


def test_a_broken_command_of_a_plugin_breaks_no_other(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    class Entry:
        name = "broken"
        value = "nowhere:command"

        def load(self) -> Any:
            raise ImportError("no module nowhere")

    monkeypatch.setattr(main, "_plugins", {"broken": Entry()})
    assert "broken" in run("--help").out
    said = run("broken", "--anything", code=1).err
    assert "the command 'broken' of a plugin is broken: nowhere:command cannot be imported: ImportError" in said
