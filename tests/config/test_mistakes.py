"""Tests that every mistake is named, with file, line and what was expected, and all of them at once."""

from __future__ import annotations

import builtins
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairactor.config import Config, load
from fairactor.errors import ConfigurationError, InvalidConfig

Loaded = Callable[..., Config]


def mistakes_of(load: Callable[[], Any]) -> tuple[str, ...]:
    with pytest.raises(InvalidConfig) as raised:
        load()
    return raised.value.mistakes


def test_two_mistakes_are_both_named(loaded: Loaded) -> None:
    with pytest.raises(InvalidConfig) as raised:
        loaded("wokers = 5\n\n[tenants.acme]\nweight = -1\n")
    assert str(raised.value) == (
        "the configuration has 2 mistakes:\n"
        "  fairactor.toml:1: there is no setting 'wokers'; did you mean workers?\n"
        "  fairactor.toml:4: tenants.acme.weight=-1: give a number from 0.001 to 1e+06, or None"
    )
    assert isinstance(raised.value, ConfigurationError)
    assert len(raised.value.mistakes) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers = 'ten'", "1: workers='ten': give a whole number, 0 or more"),
        ("workers = -1", "1: workers=-1: give a whole number, 0 or more"),
        ("lease = nan", "1: lease=nan: give a finite number of seconds, more than 0"),
        ("namespace = 'a:b'", "1: namespace 'a:b' cannot be used: give 1 to 64 letters"),
        ("namespace = 5", "1: namespace=5: give a string"),
        ("url = 5", "1: url= is a int: give a string"),
        ("url = 'http://x'", "1: url cannot be used: give a URL that starts with redis://"),
        ("apply = 1", "1: apply must be True or False, got 1"),
        ("assigned = 'acme'", "1: assigned: 'acme' is not a list of tenants: give their names"),
        ("queues = []", "1: queues= names no queue"),
        ("priority = 'urgent'", "1: priority='urgent': give one of very_low (1)"),
        ("durability = 'disk'", "1: durability='disk': give one of 'server', 'replicated'"),
        ("[workers]\nn = 5", "1: workers: this is a table: give a single value; named workers have the"),
        ("tenants = 5", "1: tenants: 5: give a table"),
        ("tenants.acme = 5", "1: tenants.acme: 5: give a table of settings"),
        ("[tenants.acme]\nwieght = 5", "2: tenants.acme: there is no setting 'wieght'; did you mean weight?"),
        ("[tenants.'']\n", "1: tenants.''"),
        ("[tenants.a]\nrate = 'fast'", "2: tenants.a.rate='fast': give tasks per unit of time"),
        ("[tenants.a]\nburst = 5", "2: tenants.a.burst=5: give it together with rate="),
        ("[tenants.a]\nrate = '1/s'\nburst = 0", "3: tenants.a.burst=0: give a whole number"),
        ("[defaults]\ngroup = 'a'", "2: defaults: there is no setting 'group'; there are backlog"),
        ("[groups.gold]\nweight = 0", "2: groups.gold.weight=0: give a number from"),
        ("[groups.gold]\nrate = '1/s'", "2: groups.gold: there is no setting 'rate'; there are weight"),
        ("[limits.x]\nper = 'user'", "2: limits.x.per='user': give 'tenant'"),
        ("[limits.'a,b']\nconcurrency = 1", "1: limits.'a,b': limit 'a,b': contains a comma"),
        ("[worker.gpu]\nnamespace = 'x'", "2: worker.gpu.namespace is the same for all workers: move it"),
        ("[worker]\nworkers = 5", "2: worker.workers: 5: give a table of settings, as in [worker.gpu]; the number"),
        ("[worker.a]\nurl = 'redis://a'\npath = 'b'", "3: worker.a.path: give url (your server) or path"),
        ("[alerts]\nfull = 5", "2: alerts.full: 5: give a table with a rule, as in [alerts.slow]"),
        ("[schedules.n]\n", "1: schedules.n: give the actor = … that it calls"),
        ("[schedules.n]\nactor = 'a'\ntenant = 'b'\ncron = '0 25 * * *'", "4: schedules.n.cron: "),
        ("[schedules.n]\nactor = 'a'\ntenant = 'b'\nevery = 5\ncrn = 1", "5: schedules.n: there is no setting 'crn'"),
        ("[schedules.n]\nactor = 'a'\ntenant = 'b'\nat = 'soon'", "4: schedules.n.at='soon': give a time"),
        ("[schedules.n]\nactor = 'a'\ntenant = []\nevery = '5'", "4: schedules.n.every: '5': give a number of seconds"),
        ("[schedules.n]\nactor = 'a'\ntenant = 'b'\nevery = 5\noptions.queue = 5",
         "5: schedules.n.options.queue 5: "),
        ("[xcom]\ntl = 5", "2: xcom: there is no setting 'tl'; did you mean ttl?"),
        ("[xcom]\nttl = -1", "2: xcom.ttl=-1: give a finite number of seconds, 0 or more"),
        ("[tenant.acme]\nweight = 5", "1: there is no setting 'tenant'; did you mean tenants?"),
        ("x = 1\n", "1: there is no setting 'x'; there are "),
    ],
)  # fmt: skip
def test_each_kind_of_mistake(text: str, message: str, loaded: Loaded) -> None:
    found = mistakes_of(lambda: loaded(text))
    assert any(mistake.startswith(f"fairactor.toml:{message}") for mistake in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: 5\nlease: 1\nworkers: 6", "fairactor.yaml:3: workers was given before, in line 1: give it once"),
        ("tenants:\n  5: {weight: 1}", "fairactor.yaml:2: the key 5 in tenants is not a string: put it in quotes"),
        ("tenants:\n  acme:\n    weight: 0", "fairactor.yaml:3: tenants.acme.weight=0: give a number"),
        ("a: [1", "fairactor.yaml:1: this is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("- 1", "fairactor.yaml:1: this is 'list': give keys and values"),
        ("tenants: &a\n  acme: *a", "fairactor.yaml:1: tenants.acme contains itself"),
        ("a: !!python/object:os.system x", "fairactor.yaml:1: this is not YAML: could not determine a constructor"),
        ("timeout: 5 minutes", "fairactor.yaml:1: timeout='5 minutes': give seconds as a number"),
    ],
)
def test_mistakes_in_yaml(text: str, message: str, loaded: Loaded) -> None:
    found = mistakes_of(lambda: loaded(text, "fairactor.yaml"))
    assert any(mistake.startswith(message) for mistake in found), found


def test_lines_in_a_pyproject(loaded: Loaded) -> None:
    text = "[project]\nname = 'x'\n[tool.fairactor]\nlease = 0\n[tool.fairactor.tenants.a]\nweight = 0"
    first, second = mistakes_of(lambda: loaded(text, "pyproject.toml"))
    assert first.startswith("pyproject.toml:4: lease=0: ")
    assert second.startswith("pyproject.toml:6: tenants.a.weight=0: ")
    assert mistakes_of(lambda: loaded("[tool]\nfairactor = 5", "pyproject.toml")) == (
        "pyproject.toml: tool.fairactor is 5: make it a table",
    )


def test_lines_of_odd_toml(loaded: Loaded) -> None:
    text = '''
    # [tenants.no]
    url = """redis://db\\
      """
    assigned = [  # a comment ]
      "a]", 'b', # another
      """
      c""",
    ]
    tenants."a.b".weight = 0
    tenants.inline = { weight = 0, rate = "1/s" }
    [tenants.'quoted "name"']
    weight = 0
    [ worker . "gpu" ]
      workers = -1
    '''
    lines = [mistake.split(": ")[0] for mistake in mistakes_of(lambda: loaded(text))]
    assert lines == [f"fairactor.toml:{line}" for line in (10, 11, 13, 15)]


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "bad.toml").write_bytes(b"\xff")
    (folder / "x.ini").write_text("")
    (folder / "broken.toml").write_text("workers = \n")
    with pytest.raises(ConfigurationError, match=r"^'bad.toml' is not encoded as UTF-8"):
        load("bad.toml", environ={})
    with pytest.raises(ConfigurationError, match=r"'x.ini': give a file that ends with .toml, .yaml or .yml"):
        load("x.ini", environ={})
    with pytest.raises(ConfigurationError, match=r"^there is no file 'none.toml'$"):
        load("none.toml", environ={})
    with pytest.raises(ConfigurationError, match="5: give the path of a configuration file"):
        load(5, environ={})  # type: ignore[arg-type]
    assert mistakes_of(lambda: load("broken.toml", environ={}))[0].startswith("broken.toml: this is not TOML: ")
    assert "line 1" in mistakes_of(lambda: load("broken.toml", environ={}))[0]


def test_yaml_needs_an_extra_and_toml_does_not(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return genuine(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    assert loaded("workers = 5").settings.workers == 5
    with pytest.raises(ConfigurationError, match=r"install PyYAML: pip install 'fairactor\[config\]'"):
        loaded("workers: 5", "fairactor.yaml")


def test_variables_that_look_like_misspelled_settings(caplog: pytest.LogCaptureFixture) -> None:
    found = mistakes_of(
        lambda: load(
            environ={
                "FAIRACTOR_WROKERS": "5", "FAIRACTOR_QUEUE": "gpu", "FAIRACTOR_URL_FIEL": "x", "FAIRACTOR_LEASE": "x",
                "fairactor_workers": "5",
            }
        )
    )  # fmt: skip
    assert found == (
        "FAIRACTOR_WROKERS: there is no such variable; did you mean FAIRACTOR_WORKERS?",
        "FAIRACTOR_QUEUE: there is no such variable; did you mean FAIRACTOR_QUEUES?",
        "FAIRACTOR_URL_FIEL: there is no such variable; did you mean FAIRACTOR_URL_FILE?",
        "fairactor_workers: there is no such variable; did you mean FAIRACTOR_WORKERS?",
        "FAIRACTOR_LEASE: lease='x': give seconds as a number, more than 0",
    )


def test_variables_of_others_are_left_alone() -> None:
    load(
        environ={
            "FAIRACTOR_EMBEDDED": "1", "FAIRACTOR_CHAOS_NOTES": "x", "FAIRACTOR_VALUES": "x",
            "FAIRACTOR_SERVICE_HOST": "10.0.0.1", "FAIRACTOR_PORT": "tcp://10.0.0.1:80", "OTHER_WORKERS": "x",
            "FAIRACTOR_PORT_80_TCP_ADDR": "10.0.0.1", "_FAIRACTOR_COMPLETE": "bash_source",
        }
    )  # fmt: skip


def test_a_worker_that_is_not_there(loaded: Loaded) -> None:
    assert mistakes_of(lambda: loaded("[worker.gpu]\n", worker="gpus")) == (
        "there is no worker 'gpus'; did you mean gpu?",
    )
    assert mistakes_of(lambda: loaded("[worker.gpu]\n", worker=["gpu"]))[0].startswith("there is no worker ['gpu']")
    assert mistakes_of(lambda: loaded("workers = 1", environ={"FAIRACTOR_WORKER": "gpu"})) == (
        "FAIRACTOR_WORKER: there is no worker 'gpu': the configuration has no [worker.NAME]",
    )


def test_hostile_names_are_shown_escaped(loaded: Loaded) -> None:
    (mistake,) = mistakes_of(lambda: loaded('[tenants."\\u202Eevil\\n\\u001b[31m"]\nx = 1'))
    assert mistake.isprintable()
    (mistake,) = mistakes_of(lambda: loaded(f"{'x' * 70_000} = 1"))
    assert len(mistake) < 2000


def test_a_table_without_keys_is_none_in_yaml(loaded: Loaded) -> None:
    found = loaded("tenants:\n  acme:\n  globex:\nschedules:\nworker:\n  gpu:\n", "fairactor.yaml", worker="gpu")
    assert (found.tenants, found.schedules, found.workers) == ({"acme": {}, "globex": {}}, {}, {"gpu": {}})


def test_the_error_can_be_copied_and_pickled() -> None:
    error = pickle.loads(pickle.dumps(InvalidConfig(["a", "b"])))
    assert error.mistakes == copy.copy(error).mistakes == ("a", "b")
    assert str(error) == "the configuration has 2 mistakes:\n  a\n  b"


def test_from_dict_names_mistakes_without_a_file() -> None:
    assert mistakes_of(lambda: Config.from_dict({"workers": -1})) == ("workers=-1: give a whole number, 0 or more",)
    assert mistakes_of(lambda: Config.from_dict({5: 1})) == ("the key 5 is not a string",)  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="give a dict"):
        Config.from_dict([])  # type: ignore[arg-type]
