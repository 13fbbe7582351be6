"""Reads YAML, with the lines of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError, InvalidConfig

from .document import Document
from .mistakes import Mistakes, Path, shown_path


def read_yaml(name: str, text: str) -> Document:
    """Reads a configuration in YAML.

    Raises:
        ConfigurationError: it is not YAML, has a key twice, or PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(
            f"{name}: to read YAML, install PyYAML: pip install 'fairactor[config]'. TOML needs nothing more"
        ) from None
    lines: dict[Path, int] = {}
    mistakes = Mistakes()
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            _Walk(yaml, name, lines, mistakes).visit(node, (), ())
        mistakes.raise_all()
        data = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark  # the rest of the error would show a part of the file
        place = f"{name}:{mark.line + 1}" if mark else name
        raise InvalidConfig([f"{place}: this is not YAML: {error.problem or error.context}"]) from None
    except InvalidConfig:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidConfig([f"{name}: this is not YAML: {type(error).__name__}"]) from None
    finally:
        loader.dispose()
    if not isinstance(data, Mapping):
        raise InvalidConfig([f"{name}:1: this is {shown(type(data).__name__)}: give keys and values"])
    return Document(name, data, lines)


class _Walk:
    """Notes the line of each key; finds keys that are given twice, or are no strings."""

    def __init__(self, yaml: Any, name: str, lines: dict[Path, int], mistakes: Mistakes) -> None:
        self._yaml = yaml
        self._name = name
        self._lines = lines
        self._mistakes = mistakes

    def visit(self, node: Any, path: Path, above: tuple[int, ...]) -> None:
        if id(node) in above:  # an alias of what contains it
            self._mistakes.add(f"{self._name}:{node.start_mark.line + 1}", f"{shown_path(path)} contains itself")
            return
        above = (*above, id(node))
        if isinstance(node, self._yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._lines.setdefault((*path, number), item.start_mark.line + 1)
                self.visit(item, (*path, number), above)
        elif isinstance(node, self._yaml.MappingNode):
            self._visit_mapping(node, path, above)

    def _visit_mapping(self, node: Any, path: Path, above: tuple[int, ...]) -> None:
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            where = f"{self._name}:{line}"
            if key.tag == "tag:yaml.org,2002:merge":
                self.visit(value, path, above)
                continue
            if key.tag != "tag:yaml.org,2002:str":
                within = f" in {shown_path(path)}" if path else ""
                written = shown(str(getattr(key, "value", ""))[:100]).strip("'\"")
                self._mistakes.add(where, f"the key {written}{within} is not a string: put it in quotes")
                continue
            if key.value in seen:
                self._mistakes.add(
                    where, f"{shown_path((*path, key.value))} was given before, in line {seen[key.value]}: give it once"
                )
            seen.setdefault(key.value, line)
            self._lines[*path, key.value] = line
            self.visit(value, (*path, key.value), above)
