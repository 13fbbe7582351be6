"""A runtime without a server: it warns that its tasks end with the process, and the environment can forbid it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fairactor import Runtime, actor
from fairactor.errors import ConfigurationError
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio


@actor
async def double(n: int) -> int:
    return 2 * n


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRACTOR_EMBEDDED", raising=False)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "private server" in record.getMessage()]


async def test_a_private_server_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Runtime(actors=[double]) as runtime:
        assert await runtime.ask("t", double(1), timeout=PATIENCE) == 2
    (warning,) = warnings_in(caplog)
    assert "lost when this process ends" in warning
    assert "FAIRACTOR_URL" in warning
    assert [record.levelno for record in caplog.records if "private" in record.getMessage()] == [logging.WARNING]


async def test_a_server_that_was_given_is_not_warned_about(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAIRACTOR_EMBEDDED", "0")
    async with Runtime(url), Runtime(path=tmp_path / "data"):
        pass
    monkeypatch.setenv("FAIRACTOR_URL", url)
    async with Runtime():
        pass
    assert not warnings_in(caplog)


@pytest.mark.parametrize("value", ["1", "true", "Yes", " on "])
async def test_it_may_be_allowed(value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FAIRACTOR_EMBEDDED", value)
    async with Runtime():
        pass
    assert not warnings_in(caplog)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", r"FAIRACTOR_EMBEDDED=0 forbids .*give url= or path= to the Runtime, or set FAIRACTOR_URL"),
        ("False", "forbids"),
        ("perhaps", r"FAIRACTOR_EMBEDDED='perhaps': set it to 0 .*or to 1"),
    ],
)
async def test_it_may_be_forbidden(value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRACTOR_EMBEDDED", value)
    with pytest.raises(ConfigurationError, match=words):
        async with Runtime():
            raise AssertionError
