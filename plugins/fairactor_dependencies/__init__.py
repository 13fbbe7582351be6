"""Dependencies: tasks that wait for other tasks.

``message.options(depends_on=[handle, …])`` makes a task wait for others of any tenant. ``extract() >> (transform() |
validate()) >> load()`` is a graph of messages, sent whole by ``runtime.send(tenant, graph)``, which returns a `Run`. A
step takes results of those before it as arguments: ``load(result_of(transformed))``, ``join(results())``.
"""

from fairactor.plugins import Graph, Run

from ._errors import GraphError, RunNotSent, UnknownParent
from ._graph import at, chain, graph, group
from ._map import each
from ._plugin import Dependencies
from ._results import parents, result_of, results

__all__ = [
    "Dependencies",
    "Graph",
    "GraphError",
    "Run",
    "RunNotSent",
    "UnknownParent",
    "at",
    "chain",
    "each",
    "graph",
    "group",
    "parents",
    "result_of",
    "results",
]
