"""Celery. The variant is its pool: solo, threads or gevent."""

from __future__ import annotations

import logging
import threading

import _peer

if _peer.VARIANT == "gevent":
    from gevent import monkey

    monkey.patch_all()

from _peer import Call
from celery import Celery

logging.disable(logging.WARNING)

app = Celery("peers", broker=_peer.URL)
app.conf.update(
    task_ignore_result=True,
    broker_pool_limit=100,
    worker_prefetch_multiplier=16,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    worker_redirect_stdouts=False,
)
local = threading.local()
call = app.task(name="call", ignore_result=True)(_peer.blocking_call)


def send(each: Call) -> None:
    if not hasattr(local, "producer"):
        local.producer = app.producer_pool.acquire()
    call.apply_async((each.number, each.seconds), producer=local.producer, retry=False)


def work(workers: int) -> None:
    app.worker_main(
        [
            "worker",
            f"--pool={_peer.VARIANT or 'solo'}",
            f"--concurrency={workers}",
            "--loglevel=CRITICAL",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    _peer.run_blocking(send, None, work)
