"""The options of a server's URL: those that are honoured, and those that are refused because fairactor decides them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

LEAST_CONNECTIONS: Final = 3
"""A runtime needs a connection that receives messages, one for rare commands, and one for calls."""
MOST_CONNECTIONS: Final = 1000

_ALL: Final = ("redis", "rediss", "unix")
_NETWORK: Final = ("redis", "rediss")
_TLS: Final = ("rediss",)
_SENTINEL: Final = ("sentinel",)

_TRUE: Final = frozenset({"true", "yes", "on", "1", "t", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "0", "f", "n"})
_WHOLE: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_NAME: Final = re.compile(r"[!-~]{1,200}")


@attrs.frozen
class Option:
    """An option that is honoured."""

    read: Callable[[str], Any]
    """Reads the text of a value; returns None if it cannot be used."""
    expected: str
    """What to give, for messages."""
    kinds: tuple[str, ...] = _ALL
    """The kinds of URLs that may have it."""


@attrs.frozen
class Refused:
    """An option of redis-py that is refused."""

    advice: str
    harmless: frozenset[str] = frozenset()
    """The values that are accepted, in lower case, because they ask for what happens anyway."""


def _text(text: str) -> str:
    return text


def _whole(least: int, most: int, why: str = "") -> Option:
    def read(text: str) -> int | None:
        return number if _WHOLE.fullmatch(text) and least <= (number := int(text)) <= most else None

    return Option(read, f"a whole number from {least} to {most}{why}")


def _seconds(text: str) -> float | None:
    return float(text) or None if _SECONDS.fullmatch(text) else None


def _boolean(text: str) -> bool | None:
    return True if text.lower() in _TRUE else False if text.lower() in _FALSE else None


def _client_name(text: str) -> str | None:
    return text if _NAME.fullmatch(text) else None


def _one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    return values.get


def _verify_flags(text: str) -> list[ssl.VerifyFlags] | None:
    names = [name.strip() for name in text.strip("[]").split(",")]
    found = [ssl.VerifyFlags.__members__.get(name) for name in names]
    return None if None in found else [flag for flag in found if flag is not None]


_FLAGS: Final = Option(_verify_flags, "names of ssl.VerifyFlags, separated by commas, such as VERIFY_X509_STRICT", _TLS)
_FILE: Final = Option(_text, "the path of a file", _TLS)
_VERSIONS: Final = {
    "TLSv1_2": ssl.TLSVersion.TLSv1_2, "TLSv1_3": ssl.TLSVersion.TLSv1_3,
    "771": ssl.TLSVersion.TLSv1_2, "772": ssl.TLSVersion.TLSv1_3,
}  # fmt: skip

OPTIONS: Final[Mapping[str, Option]] = {
    "db": _whole(0, 10**9 - 1),
    "username": Option(_text, "a name"),
    "password": Option(_text, "a password"),
    "sentinel_username": Option(_text, "a name", _SENTINEL),
    "sentinel_password": Option(_text, "a password", _SENTINEL),
    "client_name": Option(_client_name, "a name of visible ASCII characters, without spaces"),
    "protocol": Option(_one_of({"2": 2, "3": 3}), "2 or 3"),
    "max_connections": _whole(
        LEAST_CONNECTIONS,
        MOST_CONNECTIONS,
        ": one receives messages, one is for rare commands, the others are for calls",
    ),
    "socket_timeout": Option(_seconds, "seconds, more than 0"),
    "socket_connect_timeout": Option(_seconds, "seconds, more than 0"),
    "socket_read_size": _whole(1024, 1 << 26),
    "socket_keepalive": Option(_boolean, "true or false", _NETWORK),
    "ssl_cert_reqs": Option(
        _one_of({name: name for name in ("required", "optional", "none")}),
        "'required', 'optional' or 'none', in lower case and without CERT_",
        _TLS,
    ),
    "ssl_check_hostname": Option(_boolean, "true or false", _TLS),
    "ssl_ca_certs": _FILE,
    "ssl_ca_path": Option(_text, "the path of a folder", _TLS),
    "ssl_ca_data": Option(_text, "certificates in PEM format", _TLS),
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
    "ssl_password": Option(_text, "the password of the key", _TLS),
    "ssl_min_version": Option(_one_of(_VERSIONS), "TLSv1_2 or TLSv1_3", _TLS),
    "ssl_ciphers": Option(_text, "ciphers, as OpenSSL lists them", _TLS),
    "ssl_include_verify_flags": _FLAGS,
    "ssl_exclude_verify_flags": _FLAGS,
}

SECRETS: Final = frozenset({"password", "sentinel_password", "ssl_password"})
"""The options whose values are secret."""

_BYTES: Final = "leave it out, because fairactor reads bytes and decodes them itself"
_REPEATS: Final = "leave it out, because fairactor repeats calls itself, for connect_timeout= seconds"
_OBJECT: Final = "leave it out, because it is an object of redis-py, which no URL can give"
_BEFORE: Final = "give it before the '?', as in redis://host:port or unix:///path"
_REPLICAS: Final = "leave it out, because replicas may lag behind"
_CLUSTER: Final = "leave it out, because fairactor decides it"

REFUSED: Final[Mapping[str, Refused]] = {
    "decode_responses": Refused(_BYTES, _FALSE),
    "encoding": Refused(_BYTES, frozenset({"utf-8", "utf8"})),
    "encoding_errors": Refused(_BYTES, frozenset({"strict"})),
    "legacy_responses": Refused(_BYTES),
    "retry_on_timeout": Refused(_REPEATS, _FALSE),
    "retry_on_error": Refused(_REPEATS),
    "cluster_error_retry_attempts": Refused(_REPEATS),
    "timeout": Refused("leave it out, and set connect_timeout= of the Runtime"),
    "health_check_interval": Refused(
        "leave it out, because a runtime checks its connections itself, three times in each lease=", frozenset({"0"})
    ),
    "ssl": Refused("give a URL that starts with rediss:// for TLS, and with redis:// otherwise"),
    **dict.fromkeys(("host", "port", "path"), Refused(_BEFORE)),
    **dict.fromkeys(
        ("lib_name", "lib_version", "driver_info"), Refused("leave it out; client_name= names the connections")
    ),
    **dict.fromkeys(("read_from_replicas", "load_balancing_strategy"), Refused(_REPLICAS)),
    **dict.fromkeys(
        ("require_full_coverage", "dynamic_startup_nodes", "reinitialize_steps", "single_connection_client"),
        Refused(_CLUSTER),
    ),
    **dict.fromkeys(
        (
            *("retry", "connection_class", "parser_class", "encoder_class", "queue_class", "credential_provider"),
            *("redis_connect_func", "event_dispatcher", "socket_type", "socket_keepalive_options", "startup_nodes"),
            *("maint_notifications_config", "address_remap", "policy_resolver", "himport_registry", "connection_pool"),
        ),
        Refused(_OBJECT),
    ),
}
"""The options of redis-py that are refused by name, each with what to do instead."""
