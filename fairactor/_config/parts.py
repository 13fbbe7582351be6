"""Puts a configuration together: the file, the environment, flags and keywords, each checked, and merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
from typed_settings.cls_utils import deep_options
from typed_settings.dict_utils import merge_settings
from typed_settings.types import LoadedSettings, LoaderMeta

from fairactor._util.checks import shown
from fairactor._util.nearest import unknown
from fairactor.errors import ConfigurationError
from fairactor.plugins import Plugin, installed_plugins
from fairactor.settings import Settings

from .document import Document
from .environment import PREFIX, Environment, find_misspelled
from .fairque import Converted, convert, is_fairque
from .mistakes import Mistakes, Path, about, shown_path
from .options import OPTIONS, SETTINGS, Options, check_option, from_text
from .sections import CHECKS, section_problems
from .variables import Filled, Variables, fill

Tables = Mapping[str, Mapping[str, Any]]
_SHOWN: Final = 4  # characters of a value by which it is recognised in a message
_FILE, _WORKER, _ENVIRONMENT, _FLAG, _KEYWORD = "file", "worker", "environment", "flag", "keyword"  # the layers


@attrs.frozen(kw_only=True, repr=False)  # it may contain passwords
class Parts:
    """A configuration, merged and checked."""

    worker: str | None
    """The worker whose table was used."""
    base: Mapping[str, Any]
    """The options that were given, without those in the table of a worker."""
    settings: Settings
    apply: bool
    sections: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, str]
    """Where each option was given: the file and the line, a variable, a flag, or a keyword."""
    hidden: frozenset[Path]
    """The values that came from variables, and may be secret."""
    converted: tuple[Converted, ...]


@attrs.frozen(kw_only=True, repr=False)  # likewise
class Given:
    """What a configuration is made of."""

    document: Document
    worker: str | None = None
    variables: Variables | None = None
    """None reads no environment."""
    flags: Mapping[str, Any] = attrs.field(factory=dict)
    keywords: Mapping[str, Any] = attrs.field(factory=dict)
    plugins: Sequence[Plugin] = ()
    """Plugins in addition to those that are installed."""


def put_together(given: Given) -> Parts:
    """Merges and checks a configuration.

    Raises:
        InvalidConfig: it has mistakes; the error names all of them.
    """
    mistakes = Mistakes()
    document = given.document
    converted: tuple[Converted, ...] = ()
    filled = Filled(document.data, {}) if given.variables is None else fill(document, given.variables, mistakes)
    document = attrs.evolve(document, data=filled.data)
    if is_fairque(document.data):
        document, written, converted = convert(document, filled, mistakes)
        filled = attrs.evolve(filled, data=document.data, written=written)
    reader = _Reader(document, filled, mistakes)
    base = reader.options()
    sections = reader.sections(_sections_of_plugins(document.data, given.plugins))
    merged = _Merger(given, reader, mistakes).merge(base, sections)
    mistakes.raise_all()
    return attrs.evolve(merged, hidden=frozenset(filled.written), converted=converted)


def _sections_of_plugins(data: Mapping[str, Any], plugins: Iterable[Plugin]) -> Mapping[str, Any]:
    """Returns the plugins that have a section, by its name. Plugins are only looked for if the data needs one."""
    if not any(key not in OPTIONS and key not in CHECKS for key in data):
        return {}
    found = {plugin.name: plugin for plugin in (*installed_plugins(), *plugins)}
    return {section: plugin for plugin in found.values() if (section := getattr(plugin, "section", None)) is not None}


class _Reader:
    """Checks what stands in a file."""

    def __init__(self, document: Document, filled: Filled, mistakes: Mistakes) -> None:
        self.document = document
        self._written = filled.written
        self._failed = filled.failed
        self._mistakes = mistakes
        self.plugins: Mapping[str, Any] = {}

    def options(self) -> dict[str, Any]:
        """Returns the options at the top of the file."""
        found = {}
        for name, value in self.document.data.items():
            if name in OPTIONS and not self._is_misplaced(name, value):
                found[name] = self._value((name,), name, value)
        return found

    def sections(self, plugins: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Returns the tables of the file."""
        self.plugins = plugins
        found: dict[str, Mapping[str, Any]] = {}
        for name, given in self.document.data.items():
            if name in OPTIONS:
                continue
            check = CHECKS.get(name) or getattr(plugins.get(name), "check_section", None)
            if check is None:
                known = [*OPTIONS, *CHECKS, *plugins]
                self._add((name,), unknown(name, known, "setting"))
                continue
            table = _without_none(given)  # YAML has None for a table without keys
            if name == "worker" and isinstance(table, Mapping):
                table = self._workers(table)
            for path, problem in section_problems(table, check):
                self._add((name, *path), problem)
            if isinstance(table, Mapping):
                found[name] = table
        return found

    def _workers(self, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Converts text that came from variables, in the tables of workers."""
        return {
            worker: {
                option: self._converted(("worker", worker, option), option, value) if option in OPTIONS else value
                for option, value in settings.items()
            }
            if isinstance(settings, Mapping)
            else settings
            for worker, settings in table.items()
        }

    def _value(self, path: Path, name: str, value: Any) -> Any:
        value = self._converted(path, name, value)
        try:
            return check_option(name, value)
        except ConfigurationError as error:
            self._add(path, str(error))
            return None

    def _converted(self, path: Path, name: str, value: Any) -> Any:
        return from_text(name, value) if path in self._written and isinstance(value, str) else value

    def _is_misplaced(self, name: str, value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        hint = "; named workers have the tables [worker.NAME]" if name == "workers" else ""
        self._add((name,), f"this is a table: give a single value{hint}")
        return True

    def _add(self, path: Path, problem: str) -> None:
        """Adds a mistake. If the value came from a variable, the message shows what the file says instead."""
        if any(path[: len(each)] == each or each[: len(path)] == path for each in self._failed):
            return  # that was said
        for variable, written in self._written.items():
            above = path[: len(variable)] == variable
            if above or (variable[: len(path)] == path and _is_part_of(self._value_at(variable), problem)):
                problem = f"{shown_path(path)}: what {shown(written)} stands for cannot be used here (it is not shown)"
                self._mistakes.add(self.document.where(path), problem)
                return
        self._mistakes.add(self.document.where(path), about(path, problem))

    def _value_at(self, path: Path) -> str:
        value: Any = self.document.data
        for key in path:
            value = value[key]
        return str(value)


def _without_none(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {name: {} if table is None else table for name, table in given.items()}
    return {} if given is None else given


def _is_part_of(value: str, message: str) -> bool:
    """Whether a message may show a value, or its beginning or end."""
    return any(part in message for part in (value[:_SHOWN], value[-_SHOWN:], repr(value)[1 : 1 + _SHOWN]))


class _Merger:
    """Merges what was given: the file, its table for the worker, the environment, flags and keywords."""

    def __init__(self, given: Given, reader: _Reader, mistakes: Mistakes) -> None:
        self._given = given
        self._reader = reader
        self._mistakes = mistakes
        self._options = deep_options(Options)

    def merge(self, base: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> Parts:
        above = [self._environment(), self._flags(), self._keywords()]
        worker = self._worker(sections.get("worker", {}))
        table = {} if worker is None else sections["worker"][worker]
        document = self._reader.document
        layers = [
            LoadedSettings(dict(base), LoaderMeta(_FILE)),
            LoadedSettings(dict(table), LoaderMeta(_WORKER)),
            *above,
        ]
        merged = merge_settings(self._options, layers)
        values = {name: found.value for name, found in merged.items()}
        sources = {name: self._source(name, found.loader_meta.name, worker) for name, found in merged.items()}
        _drop_lower(values, {name: len(layers) - _rank(layers, name) for name in ("url", "path")})
        settings = None
        if not self._mistakes.found:
            given = {name: value for name, value in values.items() if name in SETTINGS}
            settings = self._mistakes.attempt(document.name, (), lambda: Settings(**given))
        over = {name: value for layer in above for name, value in layer.settings.items()}
        return Parts(
            worker=worker,
            base=_one_server({**base, **over}, over),
            settings=settings or Settings(),
            apply=bool(values.get("apply", False)),
            sections=_over(sections, worker, over),
            sources={name: sources[name] for name in values} | _places(document, sections),
            hidden=frozenset(),
            converted=(),
        )

    def _source(self, name: str, layer: str, worker: str | None) -> str:
        """Returns where an option was given."""
        if layer not in (_FILE, _WORKER):
            return _where_above(layer, name)
        path: Path = ("worker", worker, name) if layer == _WORKER and worker is not None else (name,)
        return self._reader.document.where(path)

    def _environment(self) -> LoadedSettings:
        variables = self._given.variables
        if variables is None:
            return LoadedSettings({}, LoaderMeta(_ENVIRONMENT))
        find_misspelled(variables.environ, self._mistakes)
        return Environment(variables, self._mistakes)(Options, self._options)

    def _flags(self) -> LoadedSettings:
        return self._checked(self._given.flags, _FLAG)

    def _keywords(self) -> LoadedSettings:
        return self._checked(self._given.keywords, _KEYWORD)

    def _checked(self, values: Mapping[str, Any], source: str) -> LoadedSettings:
        found = {}
        for name, value in values.items():
            where = _where_above(source, name)
            if name not in OPTIONS:
                self._mistakes.add(where, unknown(name, OPTIONS, "setting"))
                continue
            found[name] = self._mistakes.attempt(where, (), partial(check_option, name, value))
        return LoadedSettings(found, LoaderMeta(source))

    def _worker(self, tables: Tables) -> str | None:
        from .environment import WORKER

        worker, where = self._given.worker, ""
        if worker is None and self._given.variables is not None:
            worker, where = self._given.variables.environ.get(WORKER) or None, WORKER
        if worker is None or (isinstance(worker, str) and isinstance(tables.get(worker), Mapping)):
            return worker
        if tables:
            self._mistakes.add(where, unknown(worker, tables, "worker"))
        else:
            self._mistakes.add(where, f"there is no worker {shown(worker)}: the configuration has no [worker.NAME]")
        return None


def _where_above(source: str, name: str) -> str:
    """Returns the name of a variable, a flag or a keyword, as messages have it."""
    if source == _ENVIRONMENT:
        return f"{PREFIX}{name.upper()}"
    return f"--{name.replace('_', '-')}" if source == _FLAG else f"{name}="


def _places(document: Document, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns the file and the line of each value in the tables, by its shown path."""
    return {shown_path(path): document.where(path) for path, _ in leaves(sections, ())}


def leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yields the values in nested tables, each with its path. An empty table is a value."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif path:
        yield path, value


def _rank(layers: Sequence[LoadedSettings], name: str) -> int:
    return max((place for place, layer in enumerate(layers) if layer.settings.get(name) is not None), default=-1)


def _drop_lower(values: dict[str, Any], ranks: Mapping[str, int]) -> None:
    """Drops ``url`` or ``path``, whichever was given in a lower place: one replaces the other."""
    if values.get("url") is None or values.get("path") is None or ranks["url"] == ranks["path"]:
        return
    del values["url" if ranks["url"] > ranks["path"] else "path"]


def _one_server(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for name, other in (("url", "path"), ("path", "url")):
        if over.get(name) is not None and over.get(other) is None:
            base.pop(other, None)
    return base


def _over(
    sections: Mapping[str, Mapping[str, Any]], worker: str | None, over: Mapping[str, Any]
) -> Mapping[str, Mapping[str, Any]]:
    """Writes what stands above the file into the worker's table, so that the table says what holds."""
    if worker is None:
        return sections
    table = {
        name: over.get(name, value)
        for name, value in sections["worker"][worker].items()
        if not (name in ("url", "path") and any(over.get(each) is not None for each in ("url", "path")))
    }
    return {**sections, "worker": {**sections["worker"], worker: table}}
