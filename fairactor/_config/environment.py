"""Environment variables that are settings, and those that look like misspelled ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from typed_settings.loaders import EnvLoader
from typed_settings.types import LoadedSettings, LoaderMeta, OptionList, SettingsClass

from fairactor._util.checks import shown
from fairactor._util.nearest import nearest
from fairactor.errors import ConfigurationError

from .files import VARIABLE
from .mistakes import Mistakes
from .options import OPTIONS, SECRETS, check_option, from_text
from .variables import Variables

logger: Final = logging.getLogger(__name__)
PREFIX: Final = "FAIRACTOR_"
WORKER: Final = "FAIRACTOR_WORKER"
"""Names the worker whose table to use."""
OTHERS: Final = (VARIABLE, WORKER, "FAIRACTOR_EMBEDDED")
"""Variables that are no settings."""
_NEAR: Final = 0.8


class Environment(EnvLoader):
    """Loads settings from variables: `FAIRACTOR_WORKERS` or `FAIRACTOR_URL_FILE`, for example.

    An empty variable counts as not set.
    """

    def __init__(self, variables: Variables, mistakes: Mistakes) -> None:
        super().__init__(PREFIX)
        self._variables = variables
        self._mistakes = mistakes

    def __call__(self, settings_cls: SettingsClass, options: OptionList) -> LoadedSettings:  # noqa: ARG002 - as in EnvLoader
        """Loads the options that are set."""
        found: dict[str, Any] = {}
        for option in options:
            name = self.get_envvar(option)
            text = self._mistakes.attempt(name, (), partial(self._variables.get, name))
            if text:
                value = from_text(option.path, text)
                self._check(name, option.path, value)
                found[option.path] = value
        return LoadedSettings(found, LoaderMeta("environment"))

    def _check(self, variable: str, option: str, value: Any) -> None:
        try:
            check_option(option, value)
        except ConfigurationError as error:
            from_file = f"{variable}_FILE" in self._variables.environ
            problem = "the value in the file cannot be used" if from_file and option not in SECRETS else str(error)
            self._mistakes.add(variable, problem)


def find_misspelled(environ: Mapping[str, str], mistakes: Mistakes) -> None:
    """Adds variables whose names look like misspelled settings. Other unknown ones may belong to something else."""
    known = [f"{PREFIX}{name.upper()}" for name in OPTIONS]
    accepted = {*known, *(f"{name}_FILE" for name in known), *OTHERS}
    for variable in environ:
        if not variable.upper().startswith(PREFIX) or variable in accepted:
            continue
        right = _nearest(variable, accepted)
        if right is not None:
            mistakes.add(shown(variable).strip("'"), f"there is no such variable; did you mean {right}?")
        else:
            logger.debug("the environment variable %s is no setting of fairactor", shown(variable))


def _nearest(variable: str, accepted: set[str]) -> str | None:
    names = {name.removeprefix(PREFIX).lower(): name for name in accepted}
    found = nearest(variable[len(PREFIX) :], names, near=_NEAR)
    return None if found is None else names[found]
