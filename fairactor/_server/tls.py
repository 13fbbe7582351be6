"""TLS: connections, what is wrong with a certificate or a handshake, and whether a port speaks TLS at all."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from redis.asyncio import SSLConnection

from .urls import Address

_SOON: Final = 0.25
"""Seconds after which a server that has not answered is asked whether it speaks what the URL says."""
_AGAIN: Final = 1.0
"""Seconds for which the answer to that is awaited, and after which it is asked again: another server may be there."""

_RENEW: Final = "renew it on the server, or correct the clock of this machine"
_NAMES: Final = (
    "give a host that the certificate names, or ssl_check_hostname=false if it names none that can be reached"
)
_AUTHORITY: Final = "give the certificate of its authority with ssl_ca_certs= in the URL"
_STRICT: Final = (
    "renew the certificate of the server or of its authority, or give ssl_exclude_verify_flags=VERIFY_X509_STRICT"
)
_UNVERIFIED: Final = {9: _RENEW, 10: _RENEW, 62: _NAMES, 64: _NAMES} | dict.fromkeys(range(80, 95), _STRICT)
"""What to do about a certificate, by OpenSSL's number of the problem. The last are the checks of RFC 5280."""

_PLAIN: Final = "does not speak TLS; check the port, or give redis:// instead of rediss://"
_ENCRYPTED: Final = "speaks TLS; check the port, or give rediss:// instead of redis://"
_CLIENTS: Final = "give one that the server's authority has issued, with ssl_certfile= and ssl_keyfile= in the URL"
_REFUSED: Final = (
    ("certificate required", f"wants a certificate from its clients; {_CLIENTS}"),
    (
        "unknown ca|(bad|unsupported) certificate|certificate (expired|revoked|unknown)|decrypt error|access denied",
        f"does not accept the certificate of this client; {_CLIENTS}",
    ),
    (
        "protocol version|unsupported protocol|no protocols available|version too low",
        "has no version of TLS that is accepted here; see ssl_min_version= in the URL",
    ),
    (
        "handshake failure|insufficient security",
        f"refused the TLS handshake. If it wants a certificate from its clients, {_CLIENTS}. If not, see ssl_ciphers=",
    ),
    ("unrecognized name", "does not know the host of the URL; give the name that its certificate has"),
    (
        "wrong version number|record layer failure|packet length|http request|bad record type|unexpected message",
        _PLAIN,
    ),
)
"""What OpenSSL says, and what it means."""

_contexts: Final[dict[str, ssl.SSLContext]] = {}
_MOST_CONTEXTS: Final = 16


class TLSConnection(SSLConnection):
    """A connection by TLS. Those with the same options share a context: to make one can block the loop for 0.1 s.

    A new connection reads the files of its options again if they have changed, so certificates can be renewed.
    """

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = shared_context(self.ssl_context)
        return super()._connection_arguments()


def shared_context(options: Any) -> ssl.SSLContext:
    """Returns the context for these options, a `redis.asyncio.connection.RedisSSLContext`.

    Raises:
        OSError: a file cannot be read, or has no certificate or key; this includes `ssl.SSLError`.
    """
    files = (options.ca_certs, options.certfile, options.keyfile)
    given = [getattr(options, name) for name in type(options).__slots__ if name != "context"]
    key = repr((given, [Path(file).stat().st_mtime_ns for file in files if file]))
    context = _contexts.get(key)
    if context is None:
        options.context = None  # it would be returned again
        context = options.get()
        while len(_contexts) >= _MOST_CONTEXTS:
            del _contexts[next(iter(_contexts))]
        _contexts[key] = context
    return context


def problem_of(error: BaseException | None) -> str | None:
    """Says what is wrong with TLS and what to do, to follow the name of the server. None if trying again may help."""
    found = _ssl_error(error)
    if found is None or isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        advice = _UNVERIFIED.get(found.verify_code, _AUTHORITY)
        return f"has a certificate that cannot be trusted: {found.verify_message.rstrip('.')}; {advice}"
    text = re.sub(r"[_\W]+", " ", str(found)).lower()
    for pattern, problem in _REFUSED:
        if re.search(pattern, text):
            return f"{problem} ({found.strerror or found})"
    if " alert " in text and "internal error" not in text:
        return f"refused the TLS handshake: {found.strerror or found}; check the ssl_…= options in the URL"
    return None


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """Returns the error of TLS that an error came from."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


async def watch_protocol(address: Address, found: Callable[[str], None]) -> None:
    """Calls ``found`` if a port speaks TLS and the URL says that it does not, or the other way round.

    A server that gets the wrong protocol may close the connection, or wait for the rest of a command. So the ports are
    asked in the other protocol, once a second until the answer is clear. They get no password.
    """
    await anyio.sleep(_SOON)
    async with anyio.create_task_group() as group:
        for host, port in address.hosts:  # a socket has none, and no TLS
            group.start_soon(_watch_port, host, port, address.kind == "rediss", found)


async def _watch_port(host: str, port: int, expected: bool, found: Callable[[str], None]) -> None:  # noqa: FBT001 - see above
    ask, problem = (_speaks_plainly, _PLAIN) if expected else (_speaks_tls, _ENCRYPTED)
    differs = False
    while not differs:
        with anyio.move_on_after(_AGAIN) as patience:
            differs = await ask(host, port)
            if differs:
                found(problem)
        await anyio.sleep(max(patience.deadline - anyio.current_time(), 0))


async def _speaks_plainly(host: str, port: int) -> bool:
    """Whether a port answers to a command without TLS."""
    try:
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(b"PING\r\n")
            return (await stream.receive(1)) in {b"+", b"-"}
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether a port answers to a TLS handshake, be it with an alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent over this connection
    stream: ByteStream
    try:
        async with await anyio.connect_tcp(host, port) as stream:
            await TLSStream.wrap(stream, hostname=host, ssl_context=context, standard_compatible=False)
            return True
    except ssl.SSLError as error:
        return "alert" in str(error).lower()
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        cause = _ssl_error(error)
        return cause is not None and "alert" in str(cause).lower()
