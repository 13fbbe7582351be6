"""Keep one embedded server for as long as somebody uses it: a program of its own, started by `embedded`.

    python -I -S _keeper.py LISTENER_FD FOLDER SERVER_PROGRAM kept|ephemeral

It runs in its own session, so that neither a Ctrl-C nor the death of the process that started it takes the
server away from others. Every user holds a connection to ``keeper.sock``; this program inherits that socket,
with the first user already in its queue. The kernel ends a connection however its user dies. What is said:

- keeper to user: ``ready`` when the server answers, or else the reason why it never will;
- user to keeper: only the end of its side, when it leaves;
- keeper to the leaving user: ``stays`` if others remain. If not, the connection ends when this process does,
  and by then the server is gone.

The folder holds ``start.lock`` (taken while a keeper is started), ``data.lock`` (held by the keeper and,
through inheritance, by the server: no two servers ever share the data), the two sockets and ``server.log``.
Every start waits for the imports of this file, so they are few and light.
"""

import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

if sys.platform != "win32":  # for which `embedded` says no, but only when it is asked
    import fcntl

READY = b"ready\n"
STAYS = b"stays\n"
KEEPER_SOCKET = "keeper.sock"
SERVER_SOCKET = "server.sock"
START_LOCK = "start.lock"
DATA_LOCK = "data.lock"
LOG = "server.log"

DATA_LOCK_TIMEOUT = 8.0  # seconds that the folder's earlier server gets to end
STOP_TIMEOUT = 5  # seconds that our server gets to end; whole ones, for `signal.alarm`
LOG_TAIL = 2000  # bytes of the log that the report of a failed start carries


class Keeper:
    """The users' connections and the server that they share. The working directory is the folder."""

    def __init__(self, listener: socket.socket, folder: str, program: str, *, kept: bool) -> None:
        self.listener, self.folder, self.program, self.kept = listener, folder, program, kept
        self.users: set[socket.socket] = set()
        self.leaving: list[socket.socket] = []
        self.server = 0  # its process id; 0: none
        self.ready = self.stopped = False
        self.signals, self.signals_in = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        for source, callback in ((listener, self.admit), (self.signals, self.on_signal)):
            source.settimeout(0)
            self.selector.register(source, selectors.EVENT_READ, callback)
        # Signals, the one of the server's death too, wake the loop rather than interrupt it anywhere.
        self.signals_in.settimeout(0)
        signal.set_wakeup_fd(self.signals_in.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whatever our starter had blocked

    def run(self) -> None:
        """Start the server; return when nobody uses it any more, it has ended, or a SIGTERM came."""
        self.admit(self.listener)
        self.start_server(self.lock_data())
        wait = 0.001
        while self.users and not self.stopped:
            for key, _ in self.selector.select(None if self.ready else wait):
                key.data(key.fileobj)
            if not self.users:
                self.admit(self.listener)  # somebody may have come just now
            if self.users:  # else those who leave are the last, and wait for our end
                self.see_off()
            if not (self.ready or self.stopped) and ask(b"PING").startswith(b"+PONG"):  # and not -LOADING
                self.ready = True
                say(self.users, READY)
            wait = min(1.2 * wait, 0.05)

    def on_signal(self, _: socket.socket) -> None:
        """Stop when told so, or when the server has ended by itself."""
        if {signal.SIGTERM, signal.SIGINT} & set(self.signals.recv(256)):
            self.stopped = True
        ended, status = os.waitpid(self.server, os.WNOHANG) if self.server else (0, 0)
        if ended:
            self.server, self.stopped = 0, True
            if not self.ready:
                self.report(f"it ended with exit status {os.waitstatus_to_exitcode(status)}")

    def admit(self, listener: socket.socket) -> None:
        """Accept all who have connected."""
        with suppress(OSError):  # nobody left, or one that has given up
            while True:
                user, _ = listener.accept()
                user.settimeout(0)
                self.users.add(user)
                self.selector.register(user, selectors.EVENT_READ, self.hear)
                if self.ready:
                    say([user], READY)

    def hear(self, user: socket.socket) -> None:
        """Note that a user leaves. There is nothing else that a user could have to say."""
        with suppress(ConnectionError):  # an end, too
            if user.recv(64):
                return
        self.selector.unregister(user)
        self.users.remove(user)
        self.leaving.append(user)

    def see_off(self) -> None:
        """Let those go who leave while others stay."""
        say(self.leaving, STAYS)
        for user in self.leaving:
            user.close()
        self.leaving.clear()

    def report(self, problem: str) -> None:
        """Tell all users why there is no server, and what it has logged; log it, too."""
        say(self.users, f"{problem}\n{tail(LOG)}".encode(errors="replace"))
        os.write(2, f"keeper: {problem}\n".encode(errors="replace"))

    def lock_data(self) -> int:
        """Take the folder's data for our server, once the server before it has ended."""
        lock = os.open(DATA_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + DATA_LOCK_TIMEOUT
        while not try_lock(lock):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a process from before still holds {self.folder}/{DATA_LOCK}: end it")
            ask(b"SHUTDOWN NOSAVE")  # in case it has outlived its keeper, see `die_with`; else it ends anyway
            time.sleep(0.005)
        return lock

    def start_server(self, lock: int) -> None:
        """Fork the server. It inherits the lock, which so holds for as long as either process lives."""
        keeper = os.getpid()
        self.server = os.fork()
        if self.server:
            return
        try:
            os.set_inheritable(lock, True)
            die_with(keeper)
            os.execv(self.program, [self.program, *self.options()])  # noqa: S606 - the program was asked for
        except BaseException as error:  # noqa: BLE001 - nothing may return into the keeper's code
            os.write(2, f"cannot run {self.program}: {error}\n".encode(errors="replace"))
        finally:
            os._exit(127)

    def options(self) -> list[str]:
        """The server's command line; Redis 6.2 and all that followed know every option."""
        options = ["--port", "0", "--unixsocket", f"{self.folder}/{SERVER_SOCKET}", "--unixsocketperm", "700"]
        options += ["--dir", self.folder, "--daemonize", "no", "--logfile", "", "--save", ""]
        return [*options, "--appendonly", "yes" if self.kept else "no", "--appendfsync", "everysec"]

    def finish(self) -> None:
        """Close the door, end the server and remove what is not kept."""
        with suppress(OSError):  # in this order: once it is closed the name may be another keeper's
            os.unlink(KEEPER_SOCKET)  # noqa: PTH108 - pathlib is slow to import
        self.listener.close()  # who is in its queue is cut off, and starts over
        if self.server:
            self.stop_server()
        if not self.kept:
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)

    def stop_server(self) -> None:
        """End the server and wait for that, for `STOP_TIMEOUT` seconds plus the one that `ask` takes."""
        if self.kept:
            ask(b"SHUTDOWN NOSAVE")  # writes the append-only file out, at once: SIGTERM waits for a timer
            os.kill(self.server, signal.SIGTERM)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(self.server, signal.SIGKILL))
            signal.alarm(STOP_TIMEOUT)
        else:
            os.kill(self.server, signal.SIGKILL)  # there is nothing to write out
        os.waitpid(self.server, 0)


def say(users: set[socket.socket] | list[socket.socket], what: bytes) -> None:
    """Send something to users, who may be gone."""
    for user in users:
        with suppress(OSError):
            user.send(what)


def ask(command: bytes) -> bytes:
    """The start of the server's reply to a command; empty if there is none within a second."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(SERVER_SOCKET)
        connection.sendall(command + b"\r\n")
        return connection.recv(64)
    return b""


def tail(path: str | os.PathLike[str]) -> str:
    """The last lines of a log; empty if there is none."""
    with suppress(OSError), open(path, "rb") as log:  # noqa: PTH123 - pathlib is slow to import
        log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL))
        return log.read().decode(errors="replace").strip()
    return ""


def try_lock(lock: int) -> bool:
    """Take an exclusive lock on an open file, which the kernel drops with the last copy of its descriptor."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(lock: int) -> None:
    """Release a lock for good, also where a fork has made a copy of its descriptor."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, as only Linux can.

    Elsewhere a server whose keeper gets a SIGKILL lives on until the folder's next keeper ends it.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGKILL))  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before we could ask
            os._exit(127)


def main() -> None:
    """Run the keeper that the command line describes."""
    _, listener, folder, program, mode = sys.argv
    os.umask(0o077)
    door = socket.socket(fileno=int(listener))
    door.set_inheritable(False)
    keeper = Keeper(door, folder, program, kept=mode == "kept")
    try:
        keeper.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the users must learn of it
        keeper.report(f"{type(error).__name__}: {error}")
    finally:
        keeper.finish()
        os._exit(0)  # ends everything at once: the last user's connection, the lock and this process


if __name__ == "__main__":
    main()
