"""Groups of commands: the main one, which imports a command when it runs, and those with subcommands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from .table import COMMANDS, Row

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS: Final = "fairactor.commands"
"""The group of entry points by which plugins contribute commands."""
_OF_PLUGINS: Final = "Of plugins"
_CONTEXT: Final = {"help_option_names": ["-h", "--help"]}
_ANYTHING: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


class Group(click.Group):
    """A group that says what was probably meant if a command is unknown."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that the first argument names."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command {args[0]!r}{meant(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


class ListGroup(Group):
    """A group that lists if no subcommand is given: ``tenants --json`` is ``tenants list --json``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the arguments."""
        lists = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        return super().parse_args(ctx, ["list", *args] if lists and not ctx.resilient_parsing else args)


class Main(Group):
    """The command line itself."""

    def __init__(self, commands: Mapping[str, Row], **settings: Any) -> None:
        super().__init__(**settings)
        self._rows = commands
        self._plugins: dict[str, EntryPoint] | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click gives it
        """Returns the names of all commands."""
        return sorted({*self._rows, *self.of_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Imports a command; returns None if there is none with this name."""
        row = self._rows.get(cmd_name)
        if row is not None:
            module, _, name = row.place.partition(":")
            found: click.Command = getattr(import_module(f"{__package__}.{module}"), name)
            return found
        entry = self.of_plugins().get(cmd_name)
        return None if entry is None else _load(entry)

    def of_plugins(self) -> Mapping[str, EntryPoint]:
        """Returns the commands that installed plugins contribute."""
        if self._plugins is None:
            from importlib.metadata import entry_points  # slow to import

            self._plugins = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
        return self._plugins

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Lists the commands by their headings, and imports only those of plugins."""
        listed: dict[str, list[tuple[str, str]]] = {}
        for name, row in sorted(self._rows.items()):
            listed.setdefault(row.heading, []).append((name, row.help))
        for name, entry in sorted(self.of_plugins().items()):
            if name not in self._rows:
                listed.setdefault(_OF_PLUGINS, []).append((name, _load(entry).get_short_help_str(60)))
        for heading in sorted(listed, key=lambda heading: (heading == _OF_PLUGINS, heading)):
            with formatter.section(heading):
                formatter.write_dl(listed[heading])


def meant(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: what was probably meant."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _load(entry: EntryPoint) -> click.Command:
    """Imports a plugin's command; one that cannot be imported says so when it is called."""
    try:
        found = entry.load()
        if isinstance(found, click.Command):
            return found
        problem = f"{entry.value} is a {type(found).__name__}, not a click command"
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and the other commands still work
        problem = f"{entry.value} cannot be imported: {type(error).__name__}: {error}"
    message = f"the command {entry.name!r} of a plugin is broken: {problem}"

    def fail(**_: object) -> None:
        raise click.ClickException(message)

    return click.Command(entry.name, callback=fail, help=message, context_settings=_ANYTHING)


def _version(ctx: click.Context, _: click.Parameter, value: object) -> None:
    if value and not ctx.resilient_parsing:
        from fairactor import __version__

        click.echo(f"fairactor {__version__}")
        ctx.exit()


main: Final = Main(
    COMMANDS,
    name="fairactor",
    help="Operates fairactor, an actor-style asyncio runtime for services with many tenants.",
    epilog="Each command has a --help of its own.",
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings=_CONTEXT,
    no_args_is_help=False,
    params=[
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
        )
    ],
)
