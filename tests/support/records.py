"""Reads the stored records of tasks."""

from __future__ import annotations

from typing import Any

import redis

from fairactor import Handle
from fairactor._model import record


def untouched(db: redis.Redis, handle: Handle[Any]) -> bool:
    """Returns whether the record shows no attempt of the task and no crash during one."""
    packed = db.get(f"{{fairactor/0}}:task:{handle.id}")
    assert isinstance(packed, bytes)
    header, body = record.unpack(packed)
    return (header.attempt, header.deliveries, b"\n" in body) == (1, 0, False)
