"""Tests which plugins a runtime uses: those that are installed, those it is given, and not those that it leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from fairactor_xcom import XCom

from fairactor import Runtime
from fairactor.errors import ConfigurationError

INSTALLED = ["fairactor_alerts", "fairactor_dependencies", "fairactor_scheduling", "fairactor_xcom"]


class Mine:
    name = "mine"

    def started(self, task: Any) -> None: ...


def names(**given: Any) -> list[str]:
    return list(Runtime("redis://nowhere", **given)._plugins.by_name)


def test_plugins_are_added_to_those_that_are_installed() -> None:
    assert names() == INSTALLED
    assert names(plugins=[Mine()]) == [*INSTALLED, "mine"]
    assert names(plugins=iter([Mine()])) == [*INSTALLED, "mine"]


def test_one_that_is_given_replaces_the_installed_one_of_its_name() -> None:
    xcom = XCom()
    runtime = Runtime("redis://nowhere", plugins=[xcom, Mine()])
    assert list(runtime._plugins.by_name) == [*INSTALLED, "mine"]
    assert runtime._plugins.by_name["fairactor_xcom"] is xcom


def test_plugins_are_left_out_by_name() -> None:
    assert names(without_plugins=["fairactor_xcom"]) == INSTALLED[:3]
    assert names(without_plugins=iter(["fairactor_xcom"]), plugins=[Mine()]) == [*INSTALLED[:3], "mine"]
    assert names(without_plugins=True) == []
    assert names(without_plugins=True, plugins=[Mine()]) == ["mine"]
    assert names(without_plugins=["fairactor_xcom"], plugins=[XCom()]) == INSTALLED
    assert names(without_plugins=False) == INSTALLED


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("fairactor_xcom", "without_plugins='fairactor_xcom': give a list of names, or True for all"),
        (5, "without_plugins=5: give a list"),
        (["xcom"], f"names 'xcom', which is not installed; installed are {', '.join(INSTALLED)}"),
        ([XCom], "which is not installed"),
        ([[]], "which is not installed"),
    ],
)
def test_what_cannot_be_left_out_is_refused(without: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Runtime("redis://nowhere", without_plugins=without)
