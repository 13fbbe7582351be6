"""Messages combine to a graph, and sending it gives a run."""

from typing import Any, assert_type

from fairactor_dependencies import Dependencies, Graph, Run, at, chain, each, graph, group, result, result_of, results
from fairactor_scheduling import Scheduling
from fairactor_xcom import XCom

from fairactor import Handle, Message, Runtime, TaskState, actor


@actor
async def extract(source: str) -> list[int]:
    return [len(source)]


@actor
async def convert(row: int, rate: float = 1.0) -> float:
    return row * rate


@actor
async def load(rows: list[int]) -> None:
    print(rows)


@actor
async def report() -> str:
    return ""


def graphs() -> None:
    assert_type(extract("a") >> report(), Graph[str])
    assert_type(extract("a") | report(), Graph[list[list[int] | str]])
    assert_type(report() << extract("a"), Graph[str])
    assert_type(extract("a") >> (report() | report()) >> report(), Graph[str])
    assert_type(extract("a") >> [report(), report() | report()], Graph)
    assert_type((extract("a") | extract("b")) >> report(), Graph[str])
    assert_type([extract("a"), extract("b")] >> (report() >> report()), Graph[str])
    assert_type(graph(extract("a"), [report(), report()]), Graph)
    assert_type(group(extract("a"), extract("b")), Graph)
    assert_type(chain(extract("a"), group(report(), report())), Graph)
    assert_type(at("globex", extract("a") >> report()), Graph)
    extracted = extract("a")
    assert_type(result_of(extracted), list[int])
    assert_type(load(result_of(extracted)), Message[None])
    assert_type([extract("a"), extract("b")] >> report(), Graph[str])
    assert_type([extract("a")] | report(), Graph)
    extract("a") >> each(convert, rate=2.0) >> load(results())
    extract("a") >> each(convert, rate=2.0).options(trigger_rule="all_done") >> load(result())
    each(convert, result_of(extracted))
    each(convert, [1, 2], 3.0)

    extract("a") >> 3  # flagged
    extract("a") >> report  # flagged
    extract("a") + report()  # flagged
    convert(result_of(extracted))  # flagged
    each(convert, ["a"])  # flagged
    each(convert, rates=2.0)  # flagged
    each(convert, [1]).options(trigger_rule="all")  # flagged


async def runs(runtime: Runtime) -> None:
    run = await runtime.send("acme", extract("a") >> report())
    assert_type(run, Run[str])
    assert_type(run.id, str)
    assert_type(run.attempt, int)
    assert_type(run.handles["report"], Handle[Any])
    assert_type(await run.result(timeout=5), str)
    assert_type(await run.wait(), dict[str, TaskState | None])
    assert_type(await run.retry(), Run[str])
    assert_type(await runtime.tenant("acme").send(extract("a") >> report()), Run[str])
    await run.cancel()
    assert_type(await run.items(), dict[str, Handle[Any]])
    assert_type(await runtime.ask("acme", extract("a") >> report(), timeout=5), str)
    assert_type(await runtime.tenant("acme").ask(extract("a") | report()), list[list[int] | str])
    for sent in await runtime.send_many([("acme", extract("a")), ("acme", extract("a") >> report())]):
        assert_type(sent, Handle[Any] | Run)

    await runtime.send("acme", extract("a") >> report(), delay=5)  # flagged
    await runtime.ask("acme", extract("a") >> report(), delay=5)  # flagged
    await run.result(timeout="5")  # flagged
    await run.results()  # flagged


def runtimes() -> None:
    Runtime(plugins=[Dependencies(), Scheduling(), XCom()])
