"""The options at the top of a configuration: the settings of a runtime, and a few more. Here text becomes values."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin

import attrs
from typed_settings.cls_utils import deep_options

from fairactor._model.keys import Keys
from fairactor._server.urls import parse_url
from fairactor._util.checks import check_bool, shown
from fairactor.settings import Priority, Settings


@attrs.frozen(kw_only=True)
class Options(Settings):
    """All options. typed-settings reads names and types from this class."""

    apply: bool = False
    """Whether runtimes apply the policies, limits and schedules of the configuration when they are entered."""


OPTIONS: Final[Mapping[str, Any]] = {option.path: option.cls for option in deep_options(Options)}
"""The types of the options by name."""
SETTINGS: Final = tuple(field.name for field in attrs.fields(Settings))
OF_NAMESPACE: Final = ("namespace", "shards", "aging", "fair_by", "apply")
"""What is the same for all workers of a namespace."""
OF_WORKER: Final = tuple(name for name in OPTIONS if name not in OF_NAMESPACE)
"""What the table of a worker may have."""
SECRETS: Final = ("url",)
"""The options that may contain a password."""
_LISTS: Final = ("assigned", "steal", "queues")
_TRUTH: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_NONE: Final = ("none", "null")


def check_option(name: str, value: Any) -> Any:
    """Accepts the value of an option; returns it in plain types.

    Raises:
        ConfigurationError: the value cannot be used.
    """
    if name == "apply":
        return check_bool(name, value)
    settings = Settings(**{name: value})
    if name == "namespace":
        Keys(value)
    elif name == "url" and isinstance(value, str):
        parse_url(value, "url")
    return plain(getattr(settings, name))


def plain(value: Any) -> Any:
    """Returns a value of a setting as JSON and TOML have it."""
    if isinstance(value, Priority):
        return value.name.lower()
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def from_text(name: str, text: str) -> Any:
    """Converts the text of an environment variable to what an option takes, or leaves it as it is."""
    kinds = _kinds(OPTIONS[name])
    word = text.strip().lower()
    if type(None) in kinds and word in _NONE:
        return None
    if name in _LISTS:
        if bool in kinds and word in ("true", "false"):
            return word == "true"
        return [part.strip() for part in text.split(",") if part.strip()]
    if bool in kinds:
        return _TRUTH.get(word, text)
    for kind in (int, float):
        if kind in kinds or (kind is int and Priority in kinds):
            try:
                return kind(word)
            except ValueError:
                continue
    return text


def hidden(url: Any) -> str:
    """Returns a URL without its user, password and options."""
    try:
        return f"{parse_url(url, 'url').where} (login and options hidden)" if isinstance(url, str) else shown(url)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it must not be shown
        return "(hidden)"


def _kinds(declared: Any) -> set[Any]:
    if get_origin(declared) in (Union, types.UnionType):
        return set().union(*(_kinds(each) for each in get_args(declared)))
    return {declared}
