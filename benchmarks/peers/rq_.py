"""RQ's SimpleWorker. It runs one task at a time, so several workers are as many processes."""

from __future__ import annotations

import logging
import os

import _peer
from _peer import Call
from redis import Redis
from rq import Queue, SimpleWorker

logging.disable(logging.WARNING)

SIZE = 1000
FUNCTION = "_peer.blocking_call"  # a worker imports it, so it cannot be in this file


def _queue() -> Queue:
    return Queue("peers", connection=Redis.from_url(_peer.URL))


queue = _queue()


def send(each: Call) -> None:
    queue.enqueue_call(FUNCTION, (each.number, each.seconds), result_ttl=0)


def send_many(calls: list[Call]) -> None:
    for some in _peer.chunks(calls, SIZE):
        queue.enqueue_many([Queue.prepare_data(FUNCTION, (each.number, each.seconds), result_ttl=0) for each in some])


def work(workers: int) -> None:
    for _ in range(workers - 1):
        if os.fork() == 0:
            break
    own = _queue()
    worker = SimpleWorker([own], connection=own.connection)
    worker.work(logging_level="CRITICAL")


if __name__ == "__main__":
    _peer.run_blocking(send, send_many, work)
