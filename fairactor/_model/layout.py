"""The layout of a namespace: how many shards it has, and which tenants are on which."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Self
from zlib import crc32

import attrs

from .keys import shard_of

_NAME: Final = "{}|{}"  # hashed anew for each growth, so that each takes tenants of all shards alike


@attrs.frozen
class Layout:
    """How many shards a namespace has, and has had.

    A namespace is created with some shards, and grows to more of them. A growth moves tenants to new shards only, and
    no more of them than need to move: each with the probability ``new / all``, as in jump consistent hashing (Lamping
    and Veach 2014). So the place of a tenant follows from its name and these counts, in every process and version.
    """

    counts: Sequence[int]
    """The number of shards at the beginning, and after each growth."""
    growing: bool = False
    """Whether tenants still move because of the last growth."""

    @property
    def shards(self) -> int:
        """The number of shards."""
        return self.counts[-1]

    @property
    def epoch(self) -> int:
        """The number of the layout: 0 at the beginning, odd while tenants move."""
        return 2 * (len(self.counts) - 1) - self.growing

    def grown(self, shards: int) -> Self:
        """Returns the layout with which a growth begins."""
        return type(self)((*self.counts, shards), growing=True)

    def settled(self) -> Self:
        """Returns the layout with which it ends."""
        return type(self)(self.counts)

    def place(self, tenant: str) -> int:
        """Returns the number of the shard on which a tenant belongs, from 0."""
        return _place(tenant, self.counts)

    def source(self, tenant: str) -> int:
        """Returns the number of the shard from which a tenant moves, or has moved; the same as `place` if it stays."""
        return _place(tenant, self.counts[:-1] or self.counts)

    def places(self, tenant: str) -> list[int]:
        """Returns the shard on which a tenant belongs, and those on which it was, the latest first."""
        if len(self.counts) == 1:
            return [self.place(tenant)]
        return list(dict.fromkeys(_place(tenant, self.counts[:end]) for end in range(len(self.counts), 0, -1)))

    def pack(self) -> str:
        """Packs it for META."""
        return f"{self.epoch}:{','.join(map(str, self.counts))}"

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Unpacks it.

        Raises:
            ValueError: it is damaged.
        """
        epoch, _, counts = packed.decode().partition(":")
        return cls(tuple(map(int, counts.split(","))), growing=int(epoch) % 2 == 1)


def _place(tenant: str, counts: Sequence[int]) -> int:
    place = shard_of(tenant, counts[0])
    for before, after in pairwise(counts):
        drawn = crc32(_NAME.format(after, tenant).encode()) % after
        if drawn >= before:
            place = drawn
    return place
