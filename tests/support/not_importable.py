"""An actor whose module cannot be imported in a worker process."""

import sys

from fairactor import actor
from tests.support.process_actors import IN_PROCESS

if IN_PROCESS:
    sys.exit("there is no licence on this machine")


@actor(process=True)
def never() -> None:
    """Never runs."""
