"""dramatiq without middleware, which is fastest. The variant is how many messages it prefetches."""

from __future__ import annotations

import logging
import os

import _peer

os.environ["dramatiq_queue_prefetch"] = _peer.VARIANT or "0"  # noqa: SIM112 - dramatiq spells it in lower case
os.environ["dramatiq_worker_timeout"] = "5"  # noqa: SIM112 - ms between two polls of an empty queue, at most

import dramatiq
import redis
from _peer import Call
from dramatiq.brokers.redis import RedisBroker

logging.disable(logging.WARNING)

client = redis.Redis.from_url(_peer.URL, max_connections=_peer.CONNECTIONS)
broker = RedisBroker(client=client, middleware=[])
dramatiq.set_broker(broker)
call = dramatiq.actor(actor_name="call", queue_name="peers")(_peer.blocking_call)


def send(each: Call) -> None:
    call.send(each.number, each.seconds)


def work(workers: int) -> None:
    worker = dramatiq.Worker(broker, worker_threads=workers)
    worker.start()
    _peer.forever()


if __name__ == "__main__":
    _peer.run_blocking(send, None, work)
