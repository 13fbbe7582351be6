"""Tests that each setting is checked where it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairactor import Runtime
from fairactor.errors import ConfigurationError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"worker": 3}, "no setting 'worker'; its settings are .*workers"),
        ({"workers": -1}, "workers=-1: give a whole number, 0 or more"),
        ({"workers": 2.5}, "workers=2.5: give a whole number"),
        ({"workers": True}, "workers=True: give a whole number"),
        ({"workers": None}, "workers=None: give a whole number"),
        ({"workers": "3"}, "workers='3': give a whole number"),
        ({"lease": 0}, "lease=0: give a finite number of seconds, more than 0"),
        ({"lease": -1}, "lease=-1: give a finite"),
        ({"lease": NAN}, "lease=nan: give a finite"),
        ({"lease": INF}, "lease=inf: give a finite"),
        ({"lease": 1e300}, "lease=1e\\+300: .* at most"),
        ({"lease": "5"}, "lease='5': give seconds as a number"),
        ({"lease": None}, "lease=None: give seconds"),
        ({"grace": -1}, "grace=-1: give a finite"),
        ({"connect_timeout": 0}, "connect_timeout=0: give a finite"),
        ({"shards": 0}, "shards=0: give a whole number, 1 or more"),
        ({"aging": -5}, "aging=-5: give a finite"),
        ({"aging": NAN}, "aging=nan: give a finite"),
        ({"result_ttl": -1}, "result_ttl=-1: give a finite"),
        ({"result_ttl": 1e17}, "result_ttl=1e\\+17: .* at most"),
        ({"failed_ttl": 1e17}, "failed_ttl=1e\\+17: .* at most"),
        ({"max_payload": 0}, "max_payload=0: give a whole number, 1 or more"),
        ({"max_deliveries": 0}, "max_deliveries=0: give a whole number from 1 to 255"),
        ({"max_deliveries": 1000}, "max_deliveries=1000: .*255"),
        ({"tracing": "children"}, "tracing='children': .*link.*parent"),
        ({"namespace": ""}, "namespace '' cannot be used"),
        ({"namespace": "a:b"}, "namespace 'a:b' cannot be used: give 1 to 64 letters"),
        ({"namespace": "a" * 65}, "give 1 to 64 letters"),
        ({"namespace": "a\n"}, "cannot be used"),
        ({"namespace": 5}, "namespace=5: give a string"),
        ({"namespace": None}, "namespace=None: give a string"),
        ({"url": "redis://localhost", "path": "folder"}, "url= .* or path= .* not both"),
        ({"path": 5}, "path=5: give the path of a folder"),
        ({"actors": 5}, "actors=.*5.*give a list"),
        ({"actors": [5]}, "actors= got 5: give functions with @actor, classes or instances"),
        ({"actors": [len]}, "actors= got .*len.*: give functions with @actor"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Runtime(**settings)


def test_an_actor_alone_is_refused_with_a_hint(recwarn: pytest.WarningsRecorder) -> None:
    from tests.support import service

    with pytest.raises(ConfigurationError, match=r"actors=.*give a list"):
        Runtime(actors=service.nap)
    with pytest.raises(ConfigurationError, match=r"actors=.*give a list"):
        Runtime(actors=service)  # type: ignore[arg-type]


def test_configuration_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="workers"):
        Runtime(workers=-1)


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0, "grace": 0, "aging": 0, "result_ttl": 0, "failed_ttl": 0},
        {"lease": 0.001, "connect_timeout": 1, "shards": 1, "max_payload": 1, "max_deliveries": 1},
        {"max_deliveries": 255, "result_ttl": 365 * 86400},
        {"namespace": "A-z_0.9" * 9},
        {"path": Path("folder")},
        {"actors": ()},
        {"actors": iter(())},
    ],
)
def test_settings_at_their_bounds_are_taken(settings: dict[str, Any]) -> None:
    Runtime(**settings)
