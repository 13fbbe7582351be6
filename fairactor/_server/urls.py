"""Reads the URLs of servers. No part of a URL that could be a password reaches an error.

So the errors below name options and say what to give, and never repeat what was given. A password that was not
percent-encoded may look like a host, a path or an option. Therefore a URL that could be read in two ways is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import attrs

from fairactor.errors import ConfigurationError

from .url_options import OPTIONS, REFUSED, SECRETS

SCHEMES: Final = {
    "redis": "redis", "rediss": "rediss", "unix": "unix",
    "valkey": "redis", "valkeys": "rediss", "valkey+unix": "unix",
    "sentinel": "redis", "sentinels": "rediss",
}  # fmt: skip
_SENTINEL_SCHEMES: Final = frozenset({"sentinel", "sentinels"})
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_PORTS: Final = 65_536

_ENCODE: Final = (
    "If the user or the password has special characters, percent-encode it, as urllib.parse.quote(password, safe='') "
    "does"
)
_AMBIGUOUS: Final = re.compile(r"[\s#\x00-\x1f\x7f\ud800-\udfff]|%(?![0-9A-Fa-f]{2})")
_HOST: Final = re.compile(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+(?:%25[\w.-]+)?\])?(?::(?P<port>[0-9]{1,5}))?")
_DATABASE: Final = re.compile(r"/?|/([0-9]{1,9})/?")
_PRIMARY: Final = re.compile(r"/([\w.-]{1,200})/?", re.ASCII)
_OPTION_NAME: Final = re.compile(r"[A-Za-z]\w{0,40}")


Host = tuple[str, int]
"""A host and a port."""


@attrs.frozen
class Address:
    """Where a server is, and how to connect to it."""

    kind: str
    """``redis``, ``rediss`` or ``unix``: how to connect."""
    where: str
    """The URL without user, password and options, for messages."""
    arguments: dict[str, Any] = attrs.field(repr=False)
    """The arguments for a connection of redis-py, without the host and the port."""
    hosts: tuple[Host, ...] = ()
    """The hosts that the URL names: servers, or sentinels. Empty for a socket."""
    connections: int | None = None
    """The most connections to each server, if the URL says so."""
    primary: str = ""
    """The name by which sentinels know the primary; '' if the hosts are servers."""
    sentinel_login: dict[str, Any] = attrs.field(factory=dict, repr=False)
    """The arguments with which to log in at sentinels."""

    @property
    def host(self) -> str:
        """The first host, or the path of the socket."""
        return self.hosts[0][0] if self.hosts else str(self.arguments["path"])

    @property
    def port(self) -> int | None:
        """The port; None for a socket."""
        return self.hosts[0][1] if self.hosts else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords."""
        return tuple(str(each["password"]) for each in (self.arguments, self.sentinel_login) if "password" in each)


def parse_url(url: str, source: str) -> Address:
    """Reads a URL.

    Args:
        url: the URL.
        source: where it was given, for messages: a setting, or an environment variable.

    Raises:
        ConfigurationError: the URL cannot be used. The message has no part of it that could be a password.
    """
    url = url.strip()  # a variable that was read from a file may end with a line break
    scheme, separator, rest = url.partition("://")
    kind = SCHEMES.get(scheme)
    if not separator or kind is None:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigurationError(f"{source} cannot be used: give a URL that starts with {known}")
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    path = slash + path
    if _AMBIGUOUS.search(url) or "@" in path + query or re.search(r"[\[\]]", authority.rpartition("@")[0]):
        raise _unreadable(source, "it has a character that must be percent-encoded")
    login, _, host_and_port = authority.rpartition("@")
    if "," in login and "@" in login:
        raise _unreadable(source, "give one login, before the first host")
    arguments = _login(login, source)
    if kind == "unix":
        address = _socket(host_and_port, path, arguments, source)
    elif scheme in _SENTINEL_SCHEMES:
        address = _sentinels(scheme, kind, host_and_port, path, arguments, source)
    else:
        address = _servers(kind, host_and_port, path, arguments, source)
    return _with_options(address, query, source)


def _unreadable(source: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{source} cannot be used: {problem}. {_ENCODE}")


def _decoded(text: str) -> str | None:
    """Decodes percent-encoded text; returns None if it is not UTF-8. An error would contain the text."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None


def _login(text: str, source: str) -> dict[str, Any]:
    user, _, password = text.partition(":")
    found = {"username": _decoded(user), "password": _decoded(password)}
    if None in found.values():
        raise _unreadable(source, "its user or password is not UTF-8")
    return {name: value for name, value in found.items() if value}


def _socket(host: str, path: str, arguments: dict[str, Any], source: str) -> Address:
    decoded = _decoded(path)
    if host or not decoded:
        raise ConfigurationError(
            f"{source} cannot be used: give the path of a socket, with three slashes, as in unix:///run/server.sock"
        )
    return Address("unix", f"unix://{path}", arguments | {"path": decoded})


def _servers(kind: str, text: str, path: str, arguments: dict[str, Any], source: str) -> Address:
    hosts = _hosts(text, _PORT, "redis://host:port", source)
    database = _DATABASE.fullmatch(path)
    if database is None:
        raise _unreadable(source, "only the number of a database may follow the host, as in redis://host:port/0")
    if database[1]:
        arguments["db"] = int(database[1])
    return Address(kind, f"{kind}://{text}{path}", arguments, hosts)


def _sentinels(scheme: str, kind: str, text: str, path: str, arguments: dict[str, Any], source: str) -> Address:
    hosts = _hosts(text, _SENTINEL_PORT, "sentinel://host:port,host:port/mymaster", source)
    primary = _PRIMARY.fullmatch(path)
    if primary is None:
        raise _unreadable(
            source, "the name of the primary must follow the sentinels, as in sentinel://host:port,host:port/mymaster"
        )
    return Address(kind, f"{scheme}://{text}{path}", arguments, hosts, primary=primary[1])


def _hosts(text: str, usual_port: int, form: str, source: str) -> tuple[Host, ...]:
    """Reads hosts and ports, separated by commas."""
    found: dict[Host, None] = {}
    parts = text.split(",")
    for part in parts:
        match = _HOST.fullmatch(part)
        if match is None or int(match["port"] or 0) >= _PORTS or (len(parts) > 1 and not match["host"]):
            raise _unreadable(source, f"its host or its port cannot be read: give {form}")
        host = (match["host"] or "localhost").strip("[]").replace("%25", "%")
        found[host, int(match["port"] or usual_port)] = None
    return tuple(found)


def _with_options(address: Address, query: str, source: str) -> Address:
    source = f"{source}, for {address.where},"
    arguments = dict(address.arguments)
    names = [part.partition("=")[0] for part in query.split("&") if part]
    for name, text in _pairs(query, source):
        option = OPTIONS.get(name)
        if option is None:
            refused = REFUSED.get(name)
            if refused is None:
                raise _unknown(name, source, secret=not SECRETS.isdisjoint(names))
            if text.lower() not in refused.harmless:
                raise ConfigurationError(f"{source} has {name}=: {refused.advice}")
            continue
        if name in arguments:
            raise ConfigurationError(f"{source} gives {name}= twice: once before the '?' and once after it")
        if not {address.kind, "sentinel" if address.primary else ""}.intersection(option.kinds):
            schemes = " and ".join(f"{kind}://" for kind in option.kinds)
            raise ConfigurationError(f"{source} has {name}=, which only URLs with {schemes} may have")
        value = option.read(text)
        if value is None:
            raise ConfigurationError(f"{source} has {name}= with a value that cannot be used: give {option.expected}")
        arguments[name] = value
    connections = arguments.pop("max_connections", None)
    login = {name: arguments.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    login = {name: value for name, value in login.items() if value}
    return attrs.evolve(address, arguments=arguments, connections=connections, sentinel_login=login)


def _pairs(query: str, source: str) -> Iterator[tuple[str, str]]:
    """Yields the options and their texts.

    Raises:
        ConfigurationError: an option is given twice, or is empty.
    """
    seen = set[str]()
    for part in filter(None, query.split("&")):
        name, _, given = part.partition("=")
        text = _decoded(given.replace("+", " "))
        known = name in OPTIONS or name in REFUSED
        about = f"{name}=" if known else "an option"
        if text is None:
            raise ConfigurationError(f"{source} has {about} with a value that is not UTF-8")
        if known and name in seen:
            raise ConfigurationError(f"{source} gives {about} twice: give it once")
        if known and not text:
            raise ConfigurationError(f"{source} has {about} without a value: give one, or leave it out")
        seen.add(name)
        yield name, text


def _unknown(name: str, source: str, *, secret: bool) -> ConfigurationError:
    """Returns the error for an unknown option. It may be what follows an unencoded ``&`` in a password."""
    options = ", ".join(OPTIONS)
    if secret:
        return ConfigurationError(
            f"{source} has an option that is unknown. If it is part of the password, write %26 for '&'. The options "
            f"are {options}"
        )
    shown = repr(name) if _OPTION_NAME.fullmatch(name) else "of this name"
    return ConfigurationError(f"{source} has an option {shown}, which is unknown; the options are {options}")
