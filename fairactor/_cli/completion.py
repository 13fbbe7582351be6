"""The command ``completion``: prints what a shell needs to complete commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .names import COMPLETE, PROGRAM


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print what completes commands in a shell.

    \b
    bash  echo 'eval "$(fairactor completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(fairactor completion zsh)"' >> ~/.zshrc
    fish  fairactor completion fish > ~/.config/fish/completions/fairactor.fish
    """
    from .group import main

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    script = kind(main, {}, PROGRAM, COMPLETE)
    click.echo(script.source_template % script.source_vars())  # `source` would start bash to ask for its version
