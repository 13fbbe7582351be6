"""An HTTP service that answers 429 with Retry-After: the tasks come back later, and no attempt is lost.

It prints::

    put off for 1 s: HTTP Error 429: Too Many Requests
    put off for 1 s: HTTP Error 429: Too Many Requests
    put off for 1 s: HTTP Error 429: Too Many Requests
    alpha done in attempt 1
    beta done in attempt 1
    gamma done in attempt 1
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.error import HTTPError
from urllib.request import urlopen

from fairactor import Retry, Runtime, actor, current_task


def seconds_in(retry_after: str | None, default: float = 5.0) -> float:
    """Returns the seconds that a Retry-After header asks for: it has a number or a date."""
    try:
        return max(0.0, float(retry_after or default))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after or "") - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return default


@actor(max_retries=0, expires=60)
def fetch(url: str, word: str) -> str:
    """Asks the service, in a thread; a refusal because of its limit is no attempt."""
    try:
        with urlopen(f"{url}/{word}", timeout=10) as answer:  # noqa: S310 - the URL is that of the service below
            return f"{answer.read().decode()} in attempt {current_task().attempt}"
    except HTTPError as error:
        with error:
            if error.code in {429, 503}:
                delay = seconds_in(error.headers["Retry-After"])
                print(f"put off for {delay:g} s: {error}")
                raise Retry(str(error), delay=delay, count=False) from error
            raise


class Service(BaseHTTPRequestHandler):
    """Serves one word a second."""

    free_at = 0.0

    def do_GET(self) -> None:
        """Answers a request."""
        now = time.monotonic()
        refused = now < Service.free_at
        if not refused:
            Service.free_at = now + 0.9
        self.send_response(429 if refused else 200)
        if refused:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if not refused:
            self.wfile.write(f"{self.path[1:]} done".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Logs nothing."""


@contextmanager
def serving() -> Iterator[str]:
    """Runs the service on a free port of this machine; yields its URL."""
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def main() -> None:
    """Sends three tasks at once to a service that serves one a second."""
    with serving() as url:
        async with Runtime(actors=[fetch], workers=1) as runtime:
            words = ["alpha", "beta", "gamma"]
            handles = await runtime.send_many([("acme", fetch(url, word)) for word in words])
            for result in sorted(await runtime.results(handles, timeout=30)):
                print(result)


if __name__ == "__main__":
    asyncio.run(main())
