"""An actor whose module takes a second to import in a worker process."""

import time

from fairactor import actor
from tests.support.process_actors import IN_PROCESS

if IN_PROCESS:
    time.sleep(1)


@actor(process=True)
def slow() -> float:
    """Returns when it began."""
    return time.monotonic()
