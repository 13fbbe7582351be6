"""Carries exceptions from a worker process to its runtime.

An exception is pickled. One that cannot be pickled, or not be rebuilt, arrives as a `RemoteError` that knows the names
of its types. So does everything that is no `Exception`: it must not end the runtime.
"""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from fairactor._util.failures import exception_names
from fairactor.errors import RemoteError

_LARGEST: Final = 256 * 1024  # bytes of a pickled exception
_LONGEST: Final = 20_000  # characters of a message or a traceback


class _Packed(msgspec.Struct, array_like=True):
    names: Sequence[str]
    message: str
    traceback: str
    pickled: bytes


def pack_error(error: BaseException) -> bytes:
    """Packs what a handler has raised. The code of its class may be broken: nothing that it raises gets out of here."""
    try:
        names = [_plain(name) for name in exception_names(error)]
        packed = _Packed(names, _text(error), _traceback(error), _pickle(_portable(error)))
    except BaseException as broken:  # noqa: BLE001 - see above
        text = f"(it cannot be read: {type(broken).__name__})"
        packed = _Packed([_plain(type(error).__qualname__)], text, "", b"")
    return msgspec.msgpack.encode(packed)


def unpack_error(body: bytes, where: str = "In the process of the handler") -> Exception:
    """Unpacks an exception. Its traceback there is a note."""
    packed = msgspec.msgpack.decode(body, type=_Packed)
    error = _unpickle(packed.pickled) or RemoteError(packed.message, packed.names)
    try:
        error.add_note(f"{where}:\n{packed.traceback}")
    except BaseException:  # noqa: BLE001 - a class may forbid that
        return RemoteError(packed.message, packed.names)
    return error


def _unpickle(pickled: bytes) -> Exception | None:
    try:
        error = _Unpickler(io.BytesIO(pickled)).load() if pickled else None
    except BaseException:  # noqa: BLE001 - it calls code of the exception's class
        return None
    return error if isinstance(error, Exception) else None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Finds a class that is loaded already: nothing is imported because of an exception."""
        module = "__main__" if module == "__mp_main__" else module
        if module not in sys.modules:
            raise pickle.UnpicklingError(f"{module} is not loaded here")
        return super().find_class(module, name)


def _portable(error: BaseException) -> BaseException:
    """Returns the error, or what to raise for it in the runtime."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        if _pickle(error):
            return error
        if isinstance(error, ExceptionGroup):
            group: ExceptionGroup[Exception] = error
            parts = [part for each in group.exceptions if isinstance(part := _portable(each), Exception)]
            return ExceptionGroup(_text_of(group.message), parts)
    return RemoteError(_text(error), exception_names(error))


def _pickle(error: BaseException) -> bytes:
    """Pickles an exception; returns nothing if it would not arrive as it is."""
    try:
        pickled = pickle.dumps(error)
        again = pickle.loads(pickled)  # noqa: S301 - pickled in the line above
        same = type(again) is type(error) and str(again) == str(error)
    except BaseException:  # noqa: BLE001 - many exceptions cannot be rebuilt from their arguments
        return b""
    return pickled if same and len(pickled) <= _LARGEST else b""


def _text(error: BaseException) -> str:
    try:
        return _text_of(str(error))
    except BaseException as broken:  # noqa: BLE001 - its own __str__ may raise anything
        return f"(its message cannot be read: {type(broken).__name__})"


def _text_of(text: str) -> str:
    return _plain(text[:_LONGEST])


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - likewise
        text = "".join(traceback.format_tb(error.__traceback__))
    return _plain(text[-_LONGEST:].replace("__mp_main__.", "__main__."))


def _plain(text: str) -> str:
    """Escapes characters that UTF-8 cannot encode."""
    return text.encode(errors="backslashreplace").decode()
