"""The keywords that are spelled out for editors and type checkers are those that exist."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import attrs
from fairactor_scheduling import Schedules, schedule
from fairactor_scheduling._options import RuleOptions, ScheduleChanges, ScheduleOptions

from fairactor._actors import plugin_options
from fairactor._actors.options import ActorOptions, AskOptions, Options, TaskOptions
from fairactor._client.policies import SETTINGS
from fairactor._model.policy import DefaultPolicy, TenantPolicy
from fairactor.plugins import installed_plugins
from fairactor.settings import RuntimeSettings, Settings

SHIPPED = {"fairactor_dependencies", "fairactor_scheduling", "fairactor_xcom"}


def accepted_by(field: attrs.Attribute[Any]) -> Any:
    """The type that a field takes: that of its converter's parameter, if it has one."""
    if field.converter is None:
        return field.type
    parameter, *_ = get_type_hints(field.converter).values()
    return parameter


def test_a_runtime_takes_each_setting() -> None:
    accepted = {field.name: accepted_by(field) for field in attrs.fields(attrs.resolve_types(Settings))}
    del accepted["url"]  # a parameter of its own
    assert get_type_hints(RuntimeSettings) == accepted


def test_actors_and_messages_take_each_option() -> None:
    installed_plugins()  # adds their options
    of_plugins = {
        name
        for name, option in plugin_options._known.items()
        if option.plugin in SHIPPED and not option.script  # one for scripts is made by its plugin
    }
    own = {field.name for field in attrs.fields(Options) if field.init} - {"plugin_options", "script_options"}
    assert get_type_hints(TaskOptions).keys() == own | of_plugins
    assert get_type_hints(ActorOptions).keys() == (own | of_plugins) - {"id"}
    assert get_type_hints(AskOptions).keys() == (own | of_plugins) - {"timeout"}


def test_tenants_and_defaults_take_each_policy() -> None:
    assert get_type_hints(TenantPolicy).keys() == set(SETTINGS)
    assert get_type_hints(DefaultPolicy).keys() == set(SETTINGS[:-1])


def test_a_keyword_has_one_type() -> None:
    for_tasks, for_ask = get_type_hints(TaskOptions), get_type_hints(AskOptions)
    assert get_type_hints(ActorOptions).items() <= for_tasks.items()
    assert for_ask.items() <= for_tasks.items()
    assert get_type_hints(DefaultPolicy).items() <= get_type_hints(TenantPolicy).items()


def test_schedules_are_added_and_changed_with_the_same_keywords() -> None:
    added = get_type_hints(Schedules.add)
    assert get_type_hints(ScheduleChanges) == {key: added[key] for key in added.keys() - {"id", "tenant", "return"}}
    assert get_type_hints(RuleOptions).items() <= get_type_hints(ScheduleChanges).items()
    assert not get_type_hints(ScheduleOptions).keys() & inspect.signature(schedule).parameters.keys()
