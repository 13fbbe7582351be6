"""The command ``fairactor demo``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import whole_number


@click.command()
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Use the subfolders of DIR as tenants, and their .py files as tasks.",
)
@click.option(
    "--limit", type=whole_number(0), default=1000, show_default=True, help="Most files per tenant; 0 for all."
)
@click.option("--workers", type=whole_number(1), help="Number of worker processes; by default one per CPU.")
@click.option("--url", metavar="URL", help="The server; by default $FAIRACTOR_URL, else an embedded server.")
@click.option("--all", "every_tenant", is_flag=True, help="Show every tenant in the table.")
@click.option("--json", is_flag=True, help="Print only a JSON document.")
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="Save the table as an SVG picture.")
def demo(
    path: Path | None,
    limit: int,
    workers: int | None,
    url: str | None,
    every_tenant: bool,  # noqa: FBT001 - click gives options by name
    json: bool,  # noqa: FBT001 - as above
    svg: Path | None,
) -> int:
    """Watch one big tenant and many small ones share the workers.

    Makes each installed Python distribution a tenant, and each of its source files a task that reads, hashes and
    parses the file. All tasks are queued before the workers start, the largest tenant's first.
    """
    from fairactor.demo.command import Options, run

    return run(Options(path, limit, workers, url, every_tenant, json, svg))
