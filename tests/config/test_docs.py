"""Tests that docs/settings.md says what is true: its file can be read, and its table has each setting."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import attrs

from fairactor._config.options import OF_NAMESPACE, OPTIONS, plain
from fairactor._config.sections import CHECKS
from fairactor.config import Config
from fairactor.plugins import installed_plugins
from fairactor.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def test_the_file_of_the_page_can_be_read(loaded: Callable[..., Config]) -> None:
    text = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
    found = loaded(text, environ={"REDIS_PASSWORD": "x"})
    assert found.check() == []
    assert found.settings.workers == 200
    assert set(found.workers) == {"gpu", "acme", "rest"}
    assert (len(found.schedules), found.xcom, found.apply) == (1, {"ttl": 3600}, True)
    for worker in found.workers:
        loaded(text, environ={"REDIS_PASSWORD": "x"}, worker=worker)


def test_the_table_has_each_setting_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*?) \| ", PAGE.partition("## Settings")[2].partition("\n## ")[0], re.MULTILINE)
    )
    assert list(rows) == list(OPTIONS)
    for field in attrs.fields(Settings):
        if field.name != "processes":
            default = plain(getattr(Settings(), field.name))
            shown = "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
            shown = shown.lower() if isinstance(default, bool) else shown
            assert rows[field.name] == shown, field.name


def test_the_page_names_each_table_and_the_settings_of_a_namespace() -> None:
    sections = [*CHECKS, *(plugin.section for plugin in installed_plugins() if hasattr(plugin, "section"))]
    for section in sections:
        assert f"| `[{section}" in PAGE
    for name in OF_NAMESPACE:
        assert f"`{name}`" in PAGE.partition("## Settings")[2].partition("| setting |")[0]
