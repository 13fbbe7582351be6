"""TLS: certificates of servers and clients, and what is said at once if something is wrong with them."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from fairactor import Runtime, actor
from fairactor._server import tls
from fairactor._server.connection import connect
from fairactor.errors import ServerError, ServerUnavailable
from tests.support import servers
from tests.support.certificates import Certificates, tls_door, tls_proxy
from tests.support.cluster import free_ports
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio

AT_ONCE = 5.0
"""Seconds, less than a test's ``connect_timeout``: what can be said at once does not wait for that."""


HOW = {"days", "clients"}  # arguments of `Certificates.context`


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@actor
async def double(n: int) -> int:
    return 2 * n


async def use(url: str) -> None:
    async with Runtime(url, actors=[double]) as runtime:
        handles = await runtime.send_many([("user:1", double(n)) for n in range(20)])
        assert [await handle.result(PATIENCE) for handle in handles] == [2 * n for n in range(20)]


async def refused(url: str) -> str:
    """Returns the error with which a server is refused at once."""
    began = time.monotonic()
    with pytest.raises(ServerError) as caught:
        await connect(url, timeout=2 * AT_ONCE, answer=AT_ONCE)
    assert not isinstance(caught.value, ServerUnavailable)
    assert time.monotonic() - began < AT_ONCE
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_server_with_a_certificate(url: str, certificates: Certificates) -> None:
    async with tls_proxy(url, certificates.context()) as port:
        await use(f"rediss://localhost:{port}?{certificates.trust}")
        await use(f"valkeys://127.0.0.1:{port}/2?{certificates.trust}&ssl_min_version=TLSv1_3&ssl_cert_reqs=required")
        await use(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none")


async def test_a_server_that_asks_for_a_certificate(url: str, certificates: Certificates) -> None:
    async with tls_proxy(url, certificates.context(clients=True)) as port:
        await use(f"rediss://localhost:{port}?{certificates.trust}&{certificates.for_client()}")
        certificate, key = certificates.issue("locked", "client.example")
        locked = f"ssl_certfile={certificate}&ssl_keyfile={certificates.lock(key, 'sesame')}&ssl_password=sesame"
        await use(f"rediss://localhost:{port}?{certificates.trust}&{locked}")


@contextmanager
def tls_server(certificates: Certificates, *options: str, hosts: tuple[str, ...] = ()) -> Iterator[int]:
    """Yields the port of a real server with TLS, whose certificate is for these hosts."""
    try:
        path = servers.binary("redis")
    except FileNotFoundError:
        pytest.skip("no redis-server is installed")
    certificate, key = certificates.issue("real", *hosts)
    (port,) = free_ports(1)
    files = [
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificates.ca),
    ]
    checked = subprocess.run([path, "--tls-port", "nothing"], capture_output=True, text=True, check=False)
    if "into an integer" not in checked.stdout + checked.stderr:
        pytest.skip("this redis-server has no TLS")
    with servers.running(path, "--tls-port", str(port), *files, *options):
        yield port


async def test_a_real_server_with_tls(certificates: Certificates) -> None:
    with tls_server(certificates) as port:
        await use(f"rediss://localhost:{port}?{certificates.trust}&{certificates.for_client()}")
        assert "wants a certificate from its clients" in await refused(
            f"rediss://localhost:{port}?{certificates.trust}"
        )
        assert "speaks TLS; check the port, or give rediss://" in await refused(f"redis://:secret@localhost:{port}")


async def test_a_node_of_a_cluster_whose_certificate_is_for_another_name(certificates: Certificates) -> None:
    options = ("--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-announce-ip", "127.0.0.1")
    with tls_server(certificates, *options, "--tls-auth-clients", "no", hosts=("localhost",)) as port:
        with redis.Redis("localhost", port, ssl=True, ssl_ca_certs=str(certificates.ca)) as db:
            db.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        error = await refused(f"rediss://localhost:{port}?{certificates.trust}")
    assert_matches(r"is a cluster, and its node 127\.0\.0\.1:\d+ has a certificate .*cluster-announce-hostname", error)


@pytest.mark.parametrize(
    ("server", "options", "words"),
    [
        ({}, "", "cannot be trusted: .*; give the certificate of its authority with ssl_ca_certs="),
        ({"hosts": ["db.example"]}, "TRUST", "not valid for 'localhost'; give a host that the certificate names"),
        ({"days": (-9, -1)}, "TRUST", "has expired; renew it on the server, or correct the clock"),
        ({"days": (1, 9)}, "TRUST", "not yet valid; renew it on the server, or correct the clock"),
        ({"clients": True}, "TRUST", "wants a certificate from its clients; give one .*ssl_certfile="),
        ({"clients": True}, "TRUST&EXPIRED", "does not accept the certificate of this client; give one"),
        ({"clients": True}, "TRUST&STRANGER", "does not accept the certificate of this client; give one"),
        ({"clients": True, "newest": ssl.TLSVersion.TLSv1_2}, "TRUST", "refused the TLS handshake. If it wants"),
        ({"newest": ssl.TLSVersion.TLSv1_2}, "TRUST&ssl_min_version=TLSv1_3", "no version of TLS that is accepted"),
    ],
)
async def test_what_is_wrong_is_said_at_once(
    certificates: Certificates, tmp_path: Path, server: dict[str, Any], options: str, words: str
) -> None:
    stranger = Certificates(tmp_path).for_client("stranger")
    options = options.replace("TRUST", certificates.trust).replace("STRANGER", stranger)
    options = options.replace("EXPIRED", certificates.for_client("expired", days=(-9, -1)))
    context = certificates.context(*server.get("hosts", ()), **{name: server[name] for name in server.keys() & HOW})
    context.maximum_version = server.get("newest", ssl.TLSVersion.MAXIMUM_SUPPORTED)
    with tls_door(context) as port:
        error = await refused(f"rediss://:topsecret@localhost:{port}?{options}")
    assert_matches(words, error)


def assert_matches(words: str, error: str) -> None:
    assert re.search(words, error), error
    assert "topsecret" not in error


async def test_a_port_without_tls_is_found_out_at_once(server_binary: str, certificates: Certificates) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with servers.running(server_binary, "--port", str(port)):  # it waits for the end of what it takes for a command
        error = await refused(f"rediss://:topsecret@127.0.0.1:{port}?{certificates.trust}")
    assert_matches("does not speak TLS; check the port, or give redis:// instead of rediss://", error)


async def test_a_port_with_tls_is_found_out_at_once(certificates: Certificates) -> None:
    with tls_door(certificates.context(clients=True)) as port:
        error = await refused(f"redis://:topsecret@localhost:{port}")
    assert_matches("speaks TLS; check the port, or give rediss:// instead of redis://", error)


async def test_a_port_that_answers_nothing_is_tried_for_as_long_as_was_said(certificates: Certificates) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for scheme in ("redis", "rediss"):
            with pytest.raises(ServerUnavailable, match=r"tried for 0\.6 s"):
                await connect(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", timeout=0.6, answer=5)


async def test_connections_share_what_is_slow_to_make(url: str, certificates: Certificates) -> None:
    async with tls_proxy(url, certificates.context(clients=True)) as port:
        options = f"{certificates.trust}&{certificates.for_client('renewed')}"
        server = await connect(f"rediss://localhost:{port}?{options}", timeout=PATIENCE, answer=PATIENCE)
        try:
            pool: Any = (await server.calls.find("")).pool
            first, second = (tls.shared_context(pool.make_connection().ssl_context) for _ in range(2))
            assert first is second
            file = certificates.folder / "renewed.pem"
            certificates.for_client("renewed")
            os.utime(file, ns=(1, 1))
            assert tls.shared_context(pool.make_connection().ssl_context) is not first, "the files are read again"
        finally:
            await server.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error", None),
        ("[SSL: SSL/TLS_ALERT_HANDSHAKE_FAILURE] ssl/tls alert handshake failure", "refused the TLS handshake"),
        ("[SSL: RECORD_LAYER_FAILURE] record layer failure", "does not speak TLS"),
        ("[SSL: TLSV1_UNRECOGNIZED_NAME] tlsv1 unrecognized name", "does not know the host"),
        ("[SSL: TLSV1_ALERT_NO_RENEGOTIATION] tlsv1 alert no renegotiation", "refused the TLS handshake: "),
        ("[SSL: SOMETHING_ELSE] something else", None),
    ],
)
def test_what_openssl_says(text: str, words: str | None) -> None:
    problem = tls.problem_of(ssl.SSLError(1, text))
    assert (problem is None) if words is None else (problem is not None and problem.startswith(words))
    assert tls.problem_of(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")) is None
