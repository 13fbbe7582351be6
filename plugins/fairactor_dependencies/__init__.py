"""Dependencies: tasks that run after other tasks.

``message.options(depends_on=[handle, …])`` makes a task wait for other tasks, of any tenant. ``a() >> b() >> c()`` is a
graph of messages; ``runtime.send(tenant, graph)`` sends it whole and returns a `Run`. A step takes the results of
earlier steps as arguments: ``extract() >> load(result())``, ``[a(), b()] >> join(results())``,
``load(result_of(transformed))``.
"""

from fairactor.plugins import Graph, Run

from ._each import each
from ._errors import GraphError, ResultsExpired, RunNotSent, UnknownParent
from ._found import FoundRun, FoundStep, find_run
from ._graph import at, chain, graph, group
from ._plugin import Dependencies
from ._results import parents, result, result_of, results

__all__ = [
    "Dependencies",
    "FoundRun",
    "FoundStep",
    "Graph",
    "GraphError",
    "ResultsExpired",
    "Run",
    "RunNotSent",
    "UnknownParent",
    "at",
    "chain",
    "each",
    "find_run",
    "graph",
    "group",
    "parents",
    "result",
    "result_of",
    "results",
]
