"""dramatiq, with no middleware: that is fastest. Variants: how many messages it fetches ahead."""

from __future__ import annotations

import logging
import os

import _peer

os.environ["dramatiq_queue_prefetch"] = _peer.VARIANT or "0"  # noqa: SIM112 - it is spelt so
os.environ["dramatiq_worker_timeout"] = "5"  # noqa: SIM112 - ms between two looks at an empty queue, at most

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
