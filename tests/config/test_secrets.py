"""Tests the variables in files, and that what may be secret is never printed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from fairactor import Runtime
from fairactor.config import Config, load, shown_values
from fairactor.errors import ConfigurationError, InvalidConfig

Loaded = Callable[..., Config]
SECRET = "s3cr/t@x"


def test_a_variable_in_a_url_is_encoded(loaded: Loaded) -> None:
    text = "url = 'redis://${USER}:${PW}@${HOST:-db}:6379/${DB:-0}'"
    found = loaded(text, environ={"PW": SECRET, "USER": "app", "HOST": "cache"})
    assert found.settings.url == "redis://app:s3cr%2Ft%40x@cache:6379/0"
    assert loaded("url = '${REDIS}'", environ={"REDIS": "redis://:x@db"}).settings.url == "redis://:x@db"


def test_variables_in_other_values(loaded: Loaded) -> None:
    text = """
    namespace = "shop-${STAGE}"
    workers = "${WORKERS}"
    lease = "${LEASE:-5}"
    assigned = ["${TENANT}", "$${TENANT}", "$TENANT"]
    [worker.a]
    workers = "${WORKERS}"
    [alerts]
    webhook = "https://x/${TOKEN}"
    """
    environ = {"STAGE": "test", "WORKERS": "7", "TENANT": "acme", "TOKEN": "t"}
    found = loaded(text, environ=environ)
    assert (found.settings.namespace, found.settings.workers, found.settings.lease) == ("shop-test", 7, 5.0)
    assert found.settings.assigned == ("acme", "${TENANT}", "$TENANT")
    assert found.alerts["webhook"] == "https://x/t"
    assert loaded(text, environ=environ, worker="a").settings.workers == 7


def test_a_variable_that_is_missing_is_named_with_its_place(loaded: Loaded) -> None:
    with pytest.raises(InvalidConfig) as raised:
        loaded("url = 'redis://:${PW}@db'\n[alerts]\nhook = ['${A B}', '${C}']")
    assert raised.value.mistakes == (
        "fairactor.toml:1: url: the environment variable PW is not set; set it, or write ${PW:-default}",
        "fairactor.toml:3: alerts.hook[0]: ${A B} is no variable: write ${NAME} or ${NAME:-default}; $${ stands for ${",
        "fairactor.toml:3: alerts.hook[1]: the environment variable C is not set; set it, or write ${C:-default}",
    )


def test_a_file_with_a_secret(loaded: Loaded, folder: Path) -> None:
    (folder / "secret").write_text("redis://:x@db\n")
    assert load(environ={"FAIRACTOR_URL_FILE": "secret"}).settings.url == "redis://:x@db"
    assert loaded("url = '${REDIS}'", "a.toml", environ={"REDIS_FILE": "secret"}).settings.url == "redis://:x@db"
    (folder / "number").write_text("7\n")
    assert load(environ={"FAIRACTOR_WORKERS_FILE": "number"}).settings.workers == 7
    with pytest.raises(InvalidConfig, match="FAIRACTOR_URL and FAIRACTOR_URL_FILE are both set: set one of them"):
        load(environ={"FAIRACTOR_URL": "redis://a", "FAIRACTOR_URL_FILE": "secret"})
    with pytest.raises(InvalidConfig, match="FAIRACTOR_URL_FILE: the file 'none' cannot be read: No such file"):
        load(environ={"FAIRACTOR_URL_FILE": "none"})
    (folder / "bytes").write_bytes(b"\xff")
    with pytest.raises(InvalidConfig, match="PW_FILE: the file 'bytes' cannot be read: it is not text"):
        loaded("url = 'redis://:${PW}@db'", "a.toml", environ={"PW_FILE": "bytes"})


TEXT = """
url = "redis://:${PW}@db/0"
[worker.a]
url = "redis://:s3cr%2Ft%40x@other/0"
[alerts]
webhook = "https://user:s3cr%2Ft%40x@x"
headers = { Authorization = "s3cr/t@x", other = "${PW}", plain = "a" }
[schedules.n]
tenant = "acme"
actor = "report"
every = 60
kwargs = { api_key = "s3cr/t@x", pin = "${PW}", token = 53 }
"""


def test_a_secret_is_in_no_output(loaded: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    found = loaded(TEXT, environ={"PW": SECRET, "FAIRACTOR_LEASE": "7"})
    runtime = Runtime.from_config(found)
    outputs = [
        repr(found), str(found), repr(found.to_dict(secrets=False)), repr(list(shown_values(found, defaults=True))),
        caplog.text, repr(runtime.settings), repr(found.with_options("a").to_dict(secrets=False)),
        repr(found.settings), "\n".join(map(str, found.check())),
    ]  # fmt: skip
    for output in outputs:
        assert "s3cr" not in output
    assert found.settings.url == "redis://:s3cr%2Ft%40x@db/0"
    assert Config.from_dict(found.to_dict()) == found
    assert found.to_dict(secrets=False)["schedules"]["n"] == {
        "tenant": "acme", "actor": "report", "every": 60,
        "kwargs": {"api_key": "(hidden)", "pin": "(hidden)", "token": "(hidden)"},
    }  # fmt: skip
    assert found.to_dict(secrets=False)["alerts"] == {
        "webhook": "(hidden)", "headers": {"Authorization": "(hidden)", "other": "(hidden)", "plain": "a"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "workers = '${PW}'",
        "namespace = 'a:${PW}'",
        "url = 'http://${PW}'",
        "url = 'redis://:${PW}@db/x?y=z'",
        "url = 'redis://:s3cr/t@x@db'",
        "path = 5\nurl = ['s3cr']",
        "priority = '${PW}'",
        "[tenants.a]\nrate = '${PW}'",
        "[tenants.a]\nweight = '${PW}'",
        "[worker.a]\nworkers = 'x${PW}'",
        "[limits.a]\nper = '${PW}'",
        "[schedules.a]\ncron = '${PW}'",
        "[schedules.a]\noptions.queue = ['${PW}']",
        "[xcom]\nttl = '${PW}'",
        "alerts = '${PW}'",
        "alerts = ['${PW}']",
    ],
)
def test_a_secret_is_in_no_error(text: str, loaded: Loaded) -> None:
    with pytest.raises(ConfigurationError) as raised:
        loaded(text, environ={"PW": SECRET})
    assert "s3cr" not in str(raised.value)
    assert "s3cr" not in repr(raised.value)
    with pytest.raises(ConfigurationError) as raised:
        loaded("[a\nurl: x", "x.yaml", environ={"PW": SECRET})
    assert "s3cr" not in str(raised.value)


def test_what_a_variable_stands_for_is_not_shown_but_its_name_is(loaded: Loaded) -> None:
    with pytest.raises(InvalidConfig) as raised:
        loaded("workers = '${PW}'", environ={"PW": SECRET})
    assert raised.value.mistakes == (
        "fairactor.toml:1: workers: what '${PW}' stands for cannot be used here (it is not shown)",
    )


@pytest.mark.parametrize("text", ["a: 's3cr\n  b: c", "url: redis://:s3cr@db: x", "password: @s3cr", "a: {s3cr"])
def test_broken_yaml_is_not_shown(text: str, loaded: Loaded) -> None:
    with pytest.raises(InvalidConfig) as raised:
        loaded(text, "x.yaml")
    assert "s3cr" not in str(raised.value)


def test_a_url_in_the_environment_is_not_shown() -> None:
    with pytest.raises(InvalidConfig) as raised:
        load(environ={"FAIRACTOR_URL": "redis://:s3cr/t@x@db", "FAIRACTOR_PATH": "x"})
    assert "s3cr" not in str(raised.value)
    assert "s3cr" not in repr(load(environ={"FAIRACTOR_URL": "redis://:s3cr@db"}))
