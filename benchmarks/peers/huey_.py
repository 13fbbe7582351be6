"""Huey. The variant is its kind of worker: thread or greenlet."""

from __future__ import annotations

import logging

import _peer

if _peer.VARIANT == "greenlet":
    from gevent import monkey

    monkey.patch_all()

from _peer import Call
from huey import RedisHuey
from huey.consumer import Consumer
from redis import ConnectionPool

logging.disable(logging.WARNING)

pool = ConnectionPool.from_url(_peer.URL, max_connections=_peer.CONNECTIONS)
huey = RedisHuey("peers", results=False, connection_pool=pool)
call = huey.task(name="call")(_peer.blocking_call)


def send(each: Call) -> None:
    call(each.number, each.seconds)


def work(workers: int) -> None:
    consumer = Consumer(
        huey, workers=workers, worker_type=_peer.VARIANT or "thread", periodic=False, check_worker_health=False
    )
    consumer.run()


if __name__ == "__main__":
    _peer.run_blocking(send, None, work)
