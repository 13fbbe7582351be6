"""The keeper: a program that runs one embedded server as long as somebody uses it. `embedded` starts it.

    python -I -S keeper.py LISTENER_FD FOLDER SERVER_PROGRAM kept|ephemeral

The keeper runs in a session of its own, so neither a Ctrl-C nor the death of the process that started it takes the
server away from other users. Every user holds a connection to ``keeper.sock``. The keeper inherits that socket with the
first user already in its queue. The kernel closes a connection however its user dies. The messages are:

- keeper to user: ``ready`` when the server answers, or the reason why it never will;
- user to keeper: none, but it closes its side when it leaves;
- keeper to leaving user: ``stays`` if other users remain. Otherwise the connection closes when the keeper exits, and
  by then the server has ended.

The folder contains ``start.lock`` (held while a keeper is started), ``data.lock`` (held by the keeper and, through
inheritance, by the server, so two servers never share the data), the two sockets and ``server.log``. Each start waits
for the imports of this file, so they are few and light.
"""

import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

if sys.platform != "win32":  # where `embedded` raises an error, but only when it is called
    import fcntl

READY = b"ready\n"
STAYS = b"stays\n"
KEEPER_SOCKET = "keeper.sock"
SERVER_SOCKET = "server.sock"
START_LOCK = "start.lock"
DATA_LOCK = "data.lock"
LOG = "server.log"

DATA_LOCK_TIMEOUT = 8.0  # seconds that the previous server in the folder gets to end
STOP_TIMEOUT = 5  # seconds that this server gets to end; an integer, for `signal.alarm`
LOG_END = 2000  # bytes of the log that are added to the report of a failed start


class Keeper:
    """The connections of the users, and the server that they share. The working directory is the folder."""

    def __init__(self, listener: socket.socket, folder: str, program: str, *, kept: bool) -> None:
        self.listener, self.folder, self.program, self.kept = listener, folder, program, kept
        self.users: set[socket.socket] = set()
        self.leaving: list[socket.socket] = []
        self.server = 0  # its process id; 0 if it does not run
        self.ready = self.stopped = False
        self.signals, self.signals_in = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        for source, callback in ((listener, self.accept_users), (self.signals, self.on_signal)):
            source.settimeout(0)
            self.selector.register(source, selectors.EVENT_READ, callback)
        # Signals, including SIGCHLD when the server ends, wake the loop instead of interrupting it anywhere.
        self.signals_in.settimeout(0)
        signal.set_wakeup_fd(self.signals_in.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # undoes what the starting process had blocked

    def run(self) -> None:
        """Starts the server; returns when it has no users any more, it has ended, or a SIGTERM or SIGINT came."""
        self.accept_users(self.listener)
        self.start_server(self.lock_data())
        wait = 0.001
        while self.users and not self.stopped:
            for key, _ in self.selector.select(None if self.ready else wait):
                key.data(key.fileobj)
            if not self.users:
                self.accept_users(self.listener)  # somebody may have connected just now
            if self.users:  # otherwise the leaving users are the last, and wait for this process to exit
                self.dismiss_leaving()
            if not (self.ready or self.stopped) and ask(b"PING").startswith(b"+PONG"):  # not -LOADING
                self.ready = True
                send_to(self.users, READY)
            wait = min(1.2 * wait, 0.05)

    def on_signal(self, _: socket.socket) -> None:
        """Stops after a SIGTERM or SIGINT, or when the server has ended by itself."""
        if {signal.SIGTERM, signal.SIGINT} & set(self.signals.recv(256)):
            self.stopped = True
        ended, status = os.waitpid(self.server, os.WNOHANG) if self.server else (0, 0)
        if ended:
            self.server, self.stopped = 0, True
            if not self.ready:
                self.report(f"it ended with exit status {os.waitstatus_to_exitcode(status)}")

    def accept_users(self, listener: socket.socket) -> None:
        """Accepts all users that have connected."""
        with suppress(OSError):  # no more users, or one that has disconnected already
            while True:
                user, _ = listener.accept()
                user.settimeout(0)
                self.users.add(user)
                self.selector.register(user, selectors.EVENT_READ, self.on_readable)
                if self.ready:
                    send_to([user], READY)

    def on_readable(self, user: socket.socket) -> None:
        """Notes that a user leaves. Users send nothing else."""
        with suppress(ConnectionError):  # also an end
            if user.recv(64):
                return
        self.selector.unregister(user)
        self.users.remove(user)
        self.leaving.append(user)

    def dismiss_leaving(self) -> None:
        """Tells the leaving users that the server stays, and closes their connections."""
        send_to(self.leaving, STAYS)
        for user in self.leaving:
            user.close()
        self.leaving.clear()

    def report(self, problem: str) -> None:
        """Reports to all users, and to the log, why the server does not run. The users also get the end of the log."""
        send_to(self.users, f"{problem}\n{read_end(LOG)}".encode(errors="replace"))
        os.write(2, f"keeper: {problem}\n".encode(errors="replace"))

    def lock_data(self) -> int:
        """Locks the data in the folder, once the previous server has ended."""
        lock = os.open(DATA_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + DATA_LOCK_TIMEOUT
        while not try_lock(lock):
            if time.monotonic() > deadline:
                raise TimeoutError(f"an earlier process still holds {self.folder}/{DATA_LOCK}: end it")
            ask(b"SHUTDOWN NOSAVE")  # in case it has outlived its keeper, see `die_with`; otherwise it ends anyway
            time.sleep(0.005)
        return lock

    def start_server(self, lock: int) -> None:
        """Forks the server, which inherits the lock. The lock lasts as long as one of the two processes lives."""
        keeper = os.getpid()
        self.server = os.fork()
        if self.server:
            return
        try:
            os.set_inheritable(lock, True)
            die_with(keeper)
            os.execv(self.program, [self.program, *self.options()])  # noqa: S606 - the user chose the program
        except BaseException as error:  # noqa: BLE001 - the child must not run the keeper's code
            os.write(2, f"cannot run {self.program}: {error}\n".encode(errors="replace"))
        finally:
            os._exit(127)

    def options(self) -> list[str]:
        """Returns the server's options. Redis 6.2 and all later servers know them."""
        options = ["--port", "0", "--unixsocket", f"{self.folder}/{SERVER_SOCKET}", "--unixsocketperm", "700"]
        options += ["--dir", self.folder, "--daemonize", "no", "--logfile", "", "--save", ""]
        return [*options, "--appendonly", "yes" if self.kept else "no", "--appendfsync", "everysec"]

    def finish(self) -> None:
        """Closes the socket, stops the server, and removes the folder if it is not kept."""
        with suppress(OSError):  # before it is closed: afterwards the name may belong to another keeper
            os.unlink(KEEPER_SOCKET)  # noqa: PTH108 - pathlib is slow to import
        self.listener.close()  # disconnects the users in its queue; they start over
        if self.server:
            self.stop_server()
        if not self.kept:
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)

    def stop_server(self) -> None:
        """Stops the server; waits for it for at most `STOP_TIMEOUT` seconds, and one more in `ask`."""
        if self.kept:
            ask(b"SHUTDOWN NOSAVE")  # writes the append-only file at once, while SIGTERM waits for a timer
            os.kill(self.server, signal.SIGTERM)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(self.server, signal.SIGKILL))
            signal.alarm(STOP_TIMEOUT)
        else:
            os.kill(self.server, signal.SIGKILL)  # nothing needs to be written
        os.waitpid(self.server, 0)


def send_to(users: set[socket.socket] | list[socket.socket], message: bytes) -> None:
    """Sends a message to users. Some of them may have disconnected."""
    for user in users:
        with suppress(OSError):
            user.send(message)


def ask(command: bytes) -> bytes:
    """Sends a command to the server; returns the start of the reply, empty if none comes within a second."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(SERVER_SOCKET)
        connection.sendall(command + b"\r\n")
        return connection.recv(64)
    return b""


def read_end(path: str | os.PathLike[str]) -> str:
    """Returns the end of a log; empty if the file is missing."""
    with suppress(OSError), open(path, "rb") as log:  # noqa: PTH123 - pathlib is slow to import
        log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_END))
        return log.read().decode(errors="replace").strip()
    return ""


def try_lock(lock: int) -> bool:
    """Tries to lock an open file exclusively. The kernel drops the lock with the last copy of its descriptor."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(lock: int) -> None:
    """Releases a lock, even if a fork has copied its descriptor."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def die_with(parent: int) -> None:
    """Makes the kernel kill this process when its parent dies, which only Linux can.

    On other systems a server whose keeper was killed runs on until the next keeper in the folder stops it.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGKILL))  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has died before the call above
            os._exit(127)


def main() -> None:
    """Runs the keeper with the arguments of the command line."""
    _, listener, folder, program, mode = sys.argv
    os.umask(0o077)
    inherited = socket.socket(fileno=int(listener))
    inherited.set_inheritable(False)
    keeper = Keeper(inherited, folder, program, kept=mode == "kept")
    try:
        keeper.run()
    except Exception as error:  # noqa: BLE001 - the users must learn of any error
        keeper.report(f"{type(error).__name__}: {error}")
    finally:
        keeper.finish()
        os._exit(0)  # ends everything at once: the last user's connection, the lock and this process


if __name__ == "__main__":
    main()
