"""Real certificates for tests, made when they run, and a proxy with TLS before a server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)


@attrs.frozen
class Certificates:
    """An authority, and the certificates that it issues, as files in a folder."""

    folder: Path
    authority: trustme.CA = attrs.field(factory=trustme.CA)

    def __attrs_post_init__(self) -> None:
        self.authority.cert_pem.write_to_path(self.ca)

    @property
    def ca(self) -> Path:
        """The certificate of the authority."""
        return self.folder / "ca.pem"

    @property
    def trust(self) -> str:
        """The option of a URL that trusts the authority."""
        return f"ssl_ca_certs={self.ca}"

    def issue(self, name: str, *hosts: str, days: tuple[int, int] = (-1, 9)) -> tuple[Path, Path]:
        """Returns the files of a new certificate and its key; it holds from one day to the other, from today on."""
        now = datetime.now(UTC)
        since, until = (now + timedelta(days=number) for number in days)
        made = self.authority.issue_cert(*hosts or ("localhost", "127.0.0.1"), not_before=since, not_after=until)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        return certificate, key

    def for_client(self, name: str = "client", **how: Any) -> str:
        """Returns the options of a URL for the certificate of a client."""
        certificate, key = self.issue(name, "client.example", **how)
        return f"ssl_certfile={certificate}&ssl_keyfile={key}"

    def lock(self, key: Path, password: str) -> Path:
        """Encrypts a key; returns the file with it."""
        unlocked = load_pem_private_key(key.read_bytes(), None)
        encryption = BestAvailableEncryption(password.encode())
        locked = key.with_suffix(".locked")
        locked.write_bytes(unlocked.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption))
        return locked

    def context(self, *hosts: str, days: tuple[int, int] = (-1, 9), clients: bool = False) -> ssl.SSLContext:
        """Returns the context of a server, with a new certificate.

        Args:
            hosts: what the certificate is for.
            days: from when until when it holds.
            clients: whether clients must have a certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server", *hosts, days=days))
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context


@asynccontextmanager
async def tls_proxy(url: str, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Yields a port with TLS before the server at a Unix socket."""
    running = set[asyncio.Task[None]]()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())  # type: ignore[arg-type]  # it runs in one
        to_reader, to_writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as proxy:
        yield proxy.sockets[0].getsockname()[1]
        await asyncio.gather(*running, return_exceptions=True)


@contextmanager
def tls_door(context: ssl.SSLContext) -> Iterator[int]:
    """Yields a port where handshakes are answered, and nothing else. asyncio's server does not send all alerts."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            with suppress(OSError):  # the door was shut
                while True:
                    connection, _ = door.accept()
                    connection.settimeout(1)
                    with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as encrypted:
                        encrypted.recv(65536)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()
