"""Two pools of workers: tasks of the queue "gpu" run in one process, all others in another.

All processes have the same code and the same actors, and ``queues=`` says what each runs. So a handler of one pool can
send tasks for the other. While no process serves a queue, its tasks wait, and ``health()`` says so.

In production the processes would pass the URL of a server: Runtime("redis://…").

It prints::

    no running process has registered an actor 'embed' and serves the queue 'gpu', and tasks of tenant …
    acme: indexed by cpu, 3 pieces embedded by gpu
    globex: indexed by cpu, 3 pieces embedded by gpu
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from fairactor import Runtime, actor, current_task

POOLS = {"cpu": ["default"], "gpu": ["gpu"]}
pool = ""  # the one of this process


@actor(queue="gpu", max_retries=2)
async def embed(piece: str) -> str:
    """Embeds a piece of a text: sleeps in place of real work, and returns where it ran."""
    await asyncio.sleep(0.01 * len(piece))
    return pool


@actor
async def index(text: str) -> str:
    """Indexes a text. While it waits for the other pool, its worker runs other tasks."""
    task = current_task()
    assert task.runtime is not None  # it is None where a handler runs without a server
    handles = await task.runtime.send_many([(task.tenant, embed(piece)) for piece in text.split()])
    ran_on = await task.runtime.results(handles, timeout=30)
    return f"{task.tenant}: indexed by {pool}, {len(ran_on)} pieces embedded by {', '.join(sorted(set(ran_on)))}"


async def work(path: str) -> None:
    """Runs in a worker process: serves the queues of its pool until it is told to stop."""
    async with Runtime(path=path, actors=[embed, index], queues=POOLS[pool], workers=4) as runtime:
        await runtime.run()


async def about_gpu(runtime: Runtime) -> str:
    """Returns what is wrong with the queue "gpu"; '' if nothing is."""
    return next((problem for problem in (await runtime.health()).problems if "'gpu'" in problem), "")


async def main() -> None:
    """Starts the pool with the GPU only when its tasks wait already."""
    with tempfile.TemporaryDirectory(prefix="fairactor-example-") as folder:
        path = str(Path(folder) / "data")
        async with Runtime(path=path, workers=0) as runtime:
            handles = [await runtime.send(tenant, index("a small text")) for tenant in ("acme", "globex")]
            processes = [await asyncio.create_subprocess_exec(sys.executable, __file__, path, "cpu")]
            while not (problem := await about_gpu(runtime)):  # noqa: ASYNC110 - in production your monitoring asks
                await asyncio.sleep(0.05)
            print(problem)
            processes.append(await asyncio.create_subprocess_exec(sys.executable, __file__, path, "gpu"))
            for handle in handles:
                print(await handle.result(timeout=30))
            for process in processes:
                process.terminate()
                await process.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        pool = sys.argv[2]
        asyncio.run(work(sys.argv[1]))
    else:
        asyncio.run(main())
