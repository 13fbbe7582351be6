"""URLs of servers: each option is honoured or refused by name, and no password reaches an error."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import connection as redis_connections

from fairactor import Runtime, actor
from fairactor._server.connection import connect
from fairactor._server.url_options import LEAST_CONNECTIONS, OPTIONS, REFUSED
from fairactor._server.urls import parse_url
from fairactor.errors import ConfigurationError, ServerError
from fairactor.settings import Settings
from tests.support import servers
from tests.support.certificates import Certificates
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio


@actor
async def double(n: int) -> int:
    return 2 * n


async def use(url: str) -> None:
    async with Runtime(url, actors=[double]) as runtime:
        handles = await runtime.send_many([("user:1", double(n)) for n in range(20)])
        assert [await handle.result(PATIENCE) for handle in handles] == [2 * n for n in range(20)]


@pytest.mark.parametrize(
    "options",
    [
        f"max_connections={LEAST_CONNECTIONS}", "max_connections=50", "protocol=2", "protocol=3", "db=3",
        "socket_timeout=1.5", "socket_connect_timeout=2", "socket_read_size=4096", "client_name=billing",
        "decode_responses=false", "encoding=utf-8", "encoding_errors=strict", "retry_on_timeout=no",
        "health_check_interval=0", "protocol=2&max_connections=4&db=1", "",
    ],
)  # fmt: skip
async def test_an_option_is_honoured(url: str, options: str) -> None:
    await use(f"{url}?{options}")


async def test_options_reach_the_connections(url: str) -> None:
    server = await connect(
        f"{url}?max_connections=5&client_name=billing&db=2&socket_timeout=1.5&protocol=2", timeout=5, answer=2
    )
    try:
        info: Any = await server.calls.execute("", "CLIENT", "INFO")
        assert {b"name=billing", b"db=2"} <= set(info.split())
        pool = (await server.calls.find("")).pool
        assert pool.max_connections == 5
        made: Any = pool.make_connection()  # type: ignore[no-untyped-call]
        assert (made.socket_timeout, made.socket_connect_timeout, made.protocol) == (1.5, 2, 2)
    finally:
        await server.close()


async def test_a_timeout_longer_than_fairactors_own_is_refused(url: str) -> None:
    for name in ("socket_timeout", "socket_connect_timeout"):
        with pytest.raises(ConfigurationError, match=rf"{name}= of more than 2\.5 s.*connect_timeout="):
            await use(f"{url}?{name}=30")


async def test_a_password_with_every_character_works_once_it_is_encoded(server_binary: str) -> None:
    password = "".join(map(chr, range(33, 127))) + "ü€"
    encoded = quote(password, safe="")
    with servers.running(server_binary) as url:
        with servers.client(url) as db:
            db.config_set("requirepass", password)
        await use(url.replace("unix://", f"unix://:{encoded}@"))
        await use(f"{url}?password={encoded}&username=default")
        with pytest.raises(ServerError, match="refused the login"):
            await use(url)


REFUSED_VALUES = {
    "decode_responses": "true", "encoding": "latin-1", "encoding_errors": "replace", "retry_on_timeout": "true",
    "health_check_interval": "30", "ssl": "true",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_option_of_redis_py_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"url=.*has {name}=: .*(leave it out|give)"):
        parse_url(f"redis://localhost?{name}={REFUSED_VALUES.get(name, '5')}", "url=")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("max_connections=2", "max_connections=.*from 3 to 1000"),
        ("max_connections=0", "max_connections=.*from 3"),
        ("max_connections=-1", "max_connections=.*from 3"),
        ("max_connections=many", "max_connections=.*from 3"),
        ("max_connections=" + "9" * 5000, "max_connections=.*from 3"),
        ("db=x", "db=.*a whole number"),
        ("db=1.5", "db=.*a whole number"),
        ("db=٣", "db=.*a whole number"),
        ("db=-1", "db=.*a whole number"),
        ("db=1&db=2", "db= twice"),
        ("protocol=4", "protocol=.*2 or 3"),
        ("protocol=1", "protocol=.*2 or 3"),
        ("socket_timeout=0", "socket_timeout=.*seconds"),
        ("socket_timeout=nan", "socket_timeout=.*seconds"),
        ("socket_timeout=inf", "socket_timeout=.*seconds"),
        ("socket_timeout=1e400", "socket_timeout=.*seconds"),
        ("socket_keepalive=perhaps", "socket_keepalive=.*true or false"),
        ("client_name=two%20words", "client_name=.*without spaces"),
        ("client_name=", "client_name= without a value"),
        ("client_name", "client_name= without a value"),
        ("db=%FF", "db= with a value that is not UTF-8"),
        ("ssl_ca_certs=/tmp/ca.pem", "ssl_ca_certs=, which only URLs with rediss://"),
        ("nothing=1", "'nothing', which is unknown; the options are db, username"),
        ("Max_Connections=5", "'Max_Connections', which is unknown"),
        ("=5", "unknown"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(options: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_url(f"redis://localhost:6379?{options}", "url=")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=.*'required', 'optional' or 'none', in lower case"),
        ("ssl_cert_reqs=None", "ssl_cert_reqs=.*'none', in lower case"),
        ("ssl_min_version=TLSv1", "ssl_min_version=.*TLSv1_2 or TLSv1_3"),
        ("ssl_check_hostname=perhaps", "ssl_check_hostname=.*true or false"),
        ("ssl_include_verify_flags=VERIFY_NOTHING", "ssl_include_verify_flags=.*VERIFY_X509_STRICT"),
        ("ssl_ca_certs=/no/such/file", "options that cannot be used: .*No such file"),
        ("LOCKED", "options that cannot be used"),
        ("LOCKED&ssl_password=topsecret", "options that cannot be used"),
        ("ssl_ciphers=NOTHING", "options that cannot be used"),
    ],
)  # fmt: skip
async def test_tls_options_that_cannot_be_used(options: str, words: str, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificate, key = certificates.issue("locked")
    options = options.replace("LOCKED", f"ssl_certfile={certificate}&ssl_keyfile={certificates.lock(key, 'sesame')}")
    with pytest.raises(ConfigurationError, match=words) as caught:
        await connect(f"rediss://localhost:1?{options}", timeout=1, answer=1)
    assert_hides("topsecret", caught.value)


# No password in an error


def assert_hides(secret: str, error: BaseException) -> None:
    """Checks that neither an error, nor one that it came from, nor their tracebacks contain a secret."""
    seen: list[BaseException] = [error]
    for each in seen:
        assert secret not in str(each)
        assert secret not in repr(each)
        assert secret not in repr(each.args)
        assert secret not in "".join(traceback.format_exception(each))
        seen += [other for other in (each.__cause__, each.__context__) if other is not None]


SECRET = "Zq7Xw"
TEXT = st.text(st.sampled_from(list("#?[]@/:%& =+;\n\t\\'\"é\udc80a1.-")), max_size=6)
SHAPES = (
    "redis://:{}@localhost:6379/0", "redis://user:{}@127.0.0.1:1", "rediss://{}@host", "redis://{}", "unix://:{}@/run/s",
    "redis://host?password={}", "redis://host:1/0?password={}&db=1", "redis://host?username=u&password={}&nothing=1",
    "redis://:{}@[::1]:6379", "valkey://:{}@host:99999", "http://:{}@host", "{}", "redis://:{}@host/path",
    "redis:/:{}@host",
    "unix:///run/s?password={}&password={}", "redis://:{}@host?password={}", "rediss://h?ssl_password={}&x=1",
    "redis://:{}@host?db=x", "redis://:{}@?max_connections=1", "redis://host,:{}@other",
)  # fmt: skip


@given(st.sampled_from(SHAPES), TEXT, TEXT)
def test_no_part_of_a_password_is_in_an_error(shape: str, before: str, after: str) -> None:
    url = shape.replace("{}", f"{before}{SECRET}{after}")
    try:
        address = parse_url(url, "url=")
    except ConfigurationError as error:
        assert_hides(SECRET, error)
    else:
        if shape != "redis://{}":  # there it is the host
            assert SECRET not in repr(address)
            assert SECRET not in address.where


@pytest.mark.parametrize("character", ["#", "?", "/", "[", "]", "://", " ", "\n", "%", "%zz", "\ud800"])
def test_an_unencoded_character_is_explained(character: str) -> None:
    with pytest.raises(ConfigurationError, match=r"percent-encode it, as urllib\.parse\.quote") as caught:
        parse_url(f"redis://:{SECRET}{character}{SECRET}@localhost", "FAIRACTOR_URL")
    assert "FAIRACTOR_URL cannot be used" in str(caught.value)
    assert_hides(SECRET, caught.value)


def test_an_at_sign_and_colons_in_a_password_are_unambiguous() -> None:
    address = parse_url("redis://user:p@ss:word@localhost:6379/1", "url=")
    assert address.arguments == {
        "username": "user", "password": "p@ss:word", "db": 1,
    }  # fmt: skip
    assert address.hosts == (("localhost", 6379),)
    assert address.where == "redis://localhost:6379/1"


def test_a_url_may_name_several_hosts() -> None:
    address = parse_url("rediss://u:pw@a:7000,b,[::1]:7002/0?max_connections=4", "url=")
    assert address.hosts == (("a", 7000), ("b", 6379), ("::1", 7002))
    assert (address.kind, address.where, address.connections) == ("rediss", "rediss://a:7000,b,[::1]:7002/0", 4)


def test_a_url_may_name_sentinels() -> None:
    address = parse_url("sentinel://u:pw@a,b:7001/my-master?db=2&sentinel_password=other", "url=")
    assert (address.hosts, address.primary) == ((("a", 26379), ("b", 7001)), "my-master")
    assert address.arguments == {"username": "u", "password": "pw", "db": 2}
    assert address.sentinel_login == {"password": "other"}
    assert address.where == "sentinel://a,b:7001/my-master"
    assert parse_url("sentinels://a/m", "url=").kind == "rediss"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://a,,b", "its host or its port cannot be read"),
        ("redis://a,b:x", "its host or its port cannot be read"),
        (f"redis://:{SECRET}@a,:{SECRET}@b", "give one login, before the first host"),
        ("sentinel://a,b", "the name of the primary must follow the sentinels"),
        ("sentinel://a,b/", "the name of the primary must follow the sentinels"),
        ("redis://a?sentinel_password=pw", "which only URLs with sentinel:// may have"),
    ],
)
def test_hosts_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_url(url, "url=")
    assert_hides(SECRET, caught.value)


class SecretString:
    def __str__(self) -> str:
        return f"redis://:{SECRET}@localhost"

    __repr__ = __str__


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@h".encode(), [f"redis://:{SECRET}@h"], SecretString(), PurePosixPath(f"redis://{SECRET}@h"),
        {"url": SECRET}, (SECRET,), 5,
    ],
)  # fmt: skip
def test_a_url_that_is_not_a_string_is_not_shown(url: object) -> None:
    with pytest.raises(ConfigurationError, match=f"url= is a {type(url).__name__}: give a string") as caught:
        Runtime(url)  # type: ignore[arg-type]
    assert_hides(SECRET, caught.value)


async def test_no_password_is_logged_or_raised_when_the_server_is_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for url in (f"redis://:{SECRET}@127.0.0.1:1", f"redis://127.0.0.1:1?password={SECRET}", f"unix://:{SECRET}@/no/s"):
        with pytest.raises(ServerError) as caught:
            await connect(url, timeout=0.1, answer=0.1)
        assert_hides(SECRET, caught.value)
        assert SECRET not in repr(Settings(url=url))
    assert SECRET not in caplog.text


async def test_what_a_server_repeats_of_the_password_is_hidden() -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(1000)  # as Redis 5 does: it does not know HELLO
        words = asked.split(b"\r\n")[2::2]
        writer.write(b"-ERR unknown command, with args beginning with: %s\r\n" % b" ".join(words))
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as old:
        port = old.sockets[0].getsockname()[1]
        with pytest.raises(ServerError, match="unknown command") as caught:
            await connect(f"redis://:{SECRET}@127.0.0.1:{port}", timeout=1, answer=0.5)
    assert_hides(SECRET, caught.value)


def test_a_line_break_at_the_end_is_no_part_of_a_url() -> None:
    assert parse_url("redis://localhost:6379/1?\n", "FAIRACTOR_URL").where == "redis://localhost:6379/1"


def test_every_option_of_redis_py_is_known_here() -> None:
    parsers = set(redis_connections.URL_QUERY_ARGUMENT_PARSERS)
    assert parsers <= OPTIONS.keys() | REFUSED.keys()
    assert not OPTIONS.keys() & REFUSED.keys()
