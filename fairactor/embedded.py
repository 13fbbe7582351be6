"""The embedded server without a runtime: for tests, and for programs that connect several runtimes to it."""

from ._server.embedded import embedded_server

__all__ = ["embedded_server"]
