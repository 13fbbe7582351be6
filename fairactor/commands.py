"""Tools for plugins that add commands to ``fairactor``: options, connection and output as the other commands have them.

A plugin contributes a click command by an entry point in the group ``fairactor.commands``. docs/write-a-plugin.md shows
one. This module needs click: ``pip install "fairactor[cli]"``. Import it only from the module of the command.
"""

from __future__ import annotations

from ._cli.bulk import change_many
from ._cli.connect import Connection
from ._cli.exits import OK, PROBLEM
from ._cli.group import Group, ListGroup, meant
from ._cli.options import (
    Bulk,
    Page,
    ago,
    bulk_options,
    connection_options,
    duration,
    output_options,
    page_options,
    watch_options,
    whole_number,
)
from ._cli.output import Column, Facts, Output, Table, Text, to_record
from ._cli.text import duration as shown_duration
from ._cli.text import moment, plain, state_style, visible

__all__ = [
    "OK",
    "PROBLEM",
    "Bulk",
    "Column",
    "Connection",
    "Facts",
    "Group",
    "ListGroup",
    "Output",
    "Page",
    "Table",
    "Text",
    "ago",
    "bulk_options",
    "change_many",
    "connection_options",
    "duration",
    "meant",
    "moment",
    "output_options",
    "page_options",
    "plain",
    "shown_duration",
    "state_style",
    "to_record",
    "visible",
    "watch_options",
    "whole_number",
]
