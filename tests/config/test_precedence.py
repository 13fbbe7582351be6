"""Tests where values come from: files, the tables of workers, the environment, flags and keywords."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from fairactor import Runtime
from fairactor.config import Config, load
from fairactor.errors import ConfigurationError, InvalidConfig
from fairactor.settings import Priority, Settings

FILE = """
workers = 1
lease = 5
[worker.gpu]
workers = 2
queues = ["gpu"]
[worker.mail]
workers = 3
"""


def test_file_worker_environment_flags_keywords(loaded: Callable[..., Config]) -> None:
    environ = {"FAIRACTOR_WORKERS": "4"}
    assert loaded(FILE).settings.workers == 1
    assert loaded(FILE, worker="gpu").settings.workers == 2
    assert loaded(FILE, worker="gpu", environ=environ).settings.workers == 4
    assert loaded(FILE, worker="gpu", environ=environ, flags={"workers": 5}).settings.workers == 5
    found = loaded(FILE, worker="gpu", environ=environ, flags={"workers": 5}, workers=6)
    assert (found.settings.workers, found.settings.queues, found.settings.lease) == (6, ("gpu",), 5.0)
    assert found.sources["workers"] == "workers="
    assert found.sources["queues"] == "fairactor.toml:6"
    assert found.sources["lease"] == "fairactor.toml:3"
    assert loaded(FILE, worker="gpu", environ=environ).sources["workers"] == "FAIRACTOR_WORKERS"
    assert loaded(FILE, flags={"workers": 5}).sources["workers"] == "--workers"


def test_other_options_keep_where_the_rest_came_from(loaded: Callable[..., Config]) -> None:
    found = loaded(FILE, environ={"FAIRACTOR_GRACE": "4"}).with_options("gpu", {"lease": 3})
    assert found.sources["lease"] == "lease="
    assert found.sources["workers"] == "fairactor.toml:5"
    assert found.sources["grace"] == "FAIRACTOR_GRACE"
    assert found.source == "fairactor.toml"
    assert (found.worker, found.settings.workers, found.settings.lease) == ("gpu", 2, 3.0)


def test_the_environment_names_the_worker(loaded: Callable[..., Config]) -> None:
    found = loaded(FILE, environ={"FAIRACTOR_WORKER": "mail"})
    assert (found.worker, found.settings.workers) == ("mail", 3)
    assert loaded(FILE, environ={"FAIRACTOR_WORKER": "mail"}, worker="gpu").settings.workers == 2


def test_without_a_file_there_are_the_defaults() -> None:
    assert load(environ={}).settings == Settings()
    assert load(environ={}).source == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fairactor.toml", "workers = 7"),
        ("fairactor.yaml", "workers: 7"),
        ("fairactor.yml", "workers: 7"),
        ("pyproject.toml", "[tool.fairactor]\nworkers = 7"),
    ],
)
def test_a_file_in_the_current_folder_is_found(name: str, text: str, folder: Path) -> None:
    (folder / name).write_text(text)
    found = load(environ={})
    assert found.settings.workers == 7
    assert found.source == name
    assert found.sources["workers"] == f"{name}:{1 + text.count(chr(10))}"


def test_a_pyproject_without_the_table_is_passed_over(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'")
    assert load(environ={}).source == ""
    assert load("pyproject.toml", environ={}).settings == Settings()


def test_the_environment_names_the_file(folder: Path) -> None:
    (folder / "other.toml").write_text("workers = 8")
    (folder / "fairactor.toml").write_text("workers = 7")
    assert load(environ={"FAIRACTOR_CONFIG": "other.toml"}).settings.workers == 8
    with pytest.raises(ConfigurationError, match=r"^FAIRACTOR_CONFIG: there is no file 'none.toml'$"):
        load(environ={"FAIRACTOR_CONFIG": "none.toml"})


@pytest.mark.parametrize(
    ("variable", "text", "setting", "value"),
    [
        ("URL", "redis://db", "url", "redis://db"),
        ("PATH", "folder", "path", "folder"),
        ("NAMESPACE", "shop", "namespace", "shop"),
        ("WORKERS", " 5 ", "workers", 5),
        ("THREADS", "none", "threads", None),
        ("LEASE", "2.5", "lease", 2.5),
        ("TIMEOUT", "None", "timeout", None),
        ("FAIR_BY", "time", "fair_by", "time"),
        ("ASSIGNED", "acme, globex", "assigned", ("acme", "globex")),
        ("STEAL", "true", "steal", True),
        ("STEAL", "initech", "steal", ("initech",)),
        ("QUEUES", "gpu,mail", "queues", ("gpu", "mail")),
        ("QUEUES", "none", "queues", None),
        ("PRIORITY", "high", "priority", Priority.HIGH),
        ("PRIORITY", "6", "priority", Priority.CRITICAL),
        ("MAX_PAYLOAD", "1000", "max_payload", 1000),
        ("WORKERS", "", "workers", 100),
    ],
)
def test_variables_become_values(variable: str, text: str, setting: str, value: Any) -> None:
    assert getattr(load(environ={f"FAIRACTOR_{variable}": text}).settings, setting) == value


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Settings)])
def test_every_setting_has_a_variable(field: str) -> None:
    default = getattr(Settings(), field)
    text = {"url": "redis://db", "path": "folder", "priority": "low", "fair_by": "time", "queues": "a"}.get(field)
    text = text or (
        "x" if default in ((), None) and field not in ("threads", "shards", "timeout") else str(default or 5)
    )
    text = text.lower() if field == "steal" else text
    assert field in load(environ={f"FAIRACTOR_{field.upper()}": text}).sources


def test_apply_has_a_variable_too() -> None:
    assert load(environ={"FAIRACTOR_APPLY": "yes"}).apply
    assert not load(environ={}).apply
    with pytest.raises(InvalidConfig, match="FAIRACTOR_APPLY: apply must be True or False, got 'perhaps'"):
        load(environ={"FAIRACTOR_APPLY": "perhaps"})


def test_a_url_replaces_a_path_from_below_and_the_other_way_round(loaded: Callable[..., Config]) -> None:
    found = loaded("path = 'folder'\n[worker.a]", environ={"FAIRACTOR_URL": "redis://db"}, worker="a")
    assert (found.settings.url, found.settings.path) == ("redis://db", None)
    assert Config.from_dict(found.to_dict(), worker="a") == found
    found = loaded("url = 'redis://db'\n[worker.a]\npath = 'x'", worker="a")
    assert (found.settings.url, found.settings.path) == (None, "x")
    with pytest.raises(InvalidConfig, match=r"give url= \(your server\) or path= \(an embedded server\), not both"):
        loaded("url = 'redis://db'\npath = 'x'")


def test_a_runtime_of_a_configuration(loaded: Callable[..., Config], folder: Path) -> None:
    found = loaded(FILE)
    assert Runtime.from_config(found).settings.workers == 1
    assert Runtime.from_config(found, worker="gpu").settings.queues == ("gpu",)
    assert Runtime.from_config(found, worker="gpu", workers=9, url="redis://db").settings.workers == 9
    assert Runtime.from_config("fairactor.toml", worker="mail").settings.workers == 3
    assert Runtime.from_config(folder / "fairactor.toml").settings.lease == 5.0
    assert Runtime.from_config(lease=1.0).settings.lease == 1.0
    with pytest.raises(InvalidConfig, match="there is no worker 'gpus'; did you mean gpu"):
        Runtime.from_config(found, worker="gpus")
    with pytest.raises(InvalidConfig, match="workers=: workers=-1: give a whole number, 0 or more"):
        Runtime.from_config(found, workers=-1)
    with pytest.raises(InvalidConfig, match="wokers=: there is no setting 'wokers'; did you mean workers"):
        Runtime.from_config(found, wokers=1)  # type: ignore[call-arg]


def test_settings_of_plugins(loaded: Callable[..., Config]) -> None:
    from fairactor_xcom import XCom

    found = loaded("[xcom]\nttl = 60")
    plugins = Runtime.from_config(found)._plugins.by_name
    assert plugins["fairactor_xcom"].ttl == 60.0
    assert found.xcom == {"ttl": 60}
    assert Runtime.from_config(found, plugins=[XCom(ttl=5)])._plugins.by_name["fairactor_xcom"].ttl == 5.0
    assert "fairactor_xcom" not in Runtime.from_config(found, without_plugins=["fairactor_xcom"])._plugins.by_name
    assert not Runtime.from_config(found, without_plugins=True)._plugins.by_name
