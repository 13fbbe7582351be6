"""Configurations: a checker finds a misspelled keyword of `Runtime.from_config`, and a plugin's wrong hook."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_type

from fairactor import Runtime
from fairactor.config import Change, Config, Finding, load
from fairactor.plugins import Configurable
from fairactor.settings import Settings


class Plugin:
    name = "mine"
    section = "mine"

    def check_section(self, table: Mapping[str, Any]) -> Iterable[tuple[tuple[str | int, ...], str]]:
        return [((key,), "give nothing") for key in table]


class Wrong:
    section = "wrong"

    def check_section(self, table: Mapping[str, Any]) -> int:
        return len(table)


async def use() -> None:
    config = load("fairactor.toml", worker="gpu", environ={}, flags={"workers": 5}, lease=5)
    assert_type(config, Config)
    assert_type(config.settings, Settings)
    assert_type(Config.from_dict(config.to_dict()), Config)
    assert_type(config.check(), list[Finding])
    async with Runtime.from_config(config, worker="gpu", url="redis://localhost", workers=5) as runtime:
        assert_type(await runtime.apply(config, dry_run=True, prune=True), Sequence[Change])
    Runtime.from_config("fairactor.toml", plugins=[Plugin()])
    Runtime.from_config(wokers=5)  # flagged
    Runtime.from_config(workers="5")  # flagged
    Runtime.from_config(5)  # flagged
    load(worker=5)  # flagged
    config.settings = Settings()  # flagged


right: Configurable = Plugin()
wrong: Configurable = Wrong()  # flagged
