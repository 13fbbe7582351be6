"""A sender and two worker processes share an embedded server under a path, and one worker is killed mid-run.

In production the processes would pass the URL of a server: Runtime("redis://…").

It prints::

    200 of 200 tasks done, by 2 processes, though one was killed
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from fairactor import Runtime, actor


@actor(max_retries=1)
async def resize(image: int) -> int:
    """Resizes an image: sleeps in place of real work, and returns the id of the process."""
    await asyncio.sleep(0.02)
    return os.getpid() + 0 * image


async def work(path: str) -> None:
    """Runs in a worker process: serves until it is told to stop."""
    async with Runtime(path=path, actors=[resize], workers=5, lease=2.0) as runtime:
        await runtime.run()


async def main() -> None:
    """Sends 200 tasks for 20 tenants, and kills one of two workers halfway."""
    with tempfile.TemporaryDirectory(prefix="fairactor-example-") as folder:
        path = str(Path(folder) / "data")
        async with Runtime(path=path, workers=0) as runtime:
            handles = await runtime.send_many([(f"user {n % 20}", resize(n)) for n in range(200)])
            workers = [await asyncio.create_subprocess_exec(sys.executable, __file__, path) for _ in range(2)]
            for handle in handles[:100]:
                await handle.result(timeout=30)
            workers[0].kill()  # no warning, no cleanup
            done_by = [await handle.result(timeout=30) for handle in handles]
            workers[1].terminate()
            await asyncio.gather(*(worker.wait() for worker in workers))
    print(f"{len(done_by)} of {len(handles)} tasks done, by {len(set(done_by))} processes, though one was killed")


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]) if len(sys.argv) > 1 else main())
