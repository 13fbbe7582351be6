"""Where the shards are: on one server, on the primary that sentinels name, or on the primaries of a cluster."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import anyio
import attrs
from redis.crc import key_slot

from .nodes import Node, Nodes, NoNode, ask_any
from .urls import Host

_UNKNOWN_HOST: Final = "?"  # what a node says of another whose host name it does not know


class Topology:
    """One server. The subclasses find the server of a key among several.

    Args:
        nodes: makes the nodes.
        first: the server.
    """

    cluster: bool = False
    """Whether the keys are spread over the nodes of a cluster."""

    looks_every: float = math.inf
    """The seconds after which to ask again where the keys are, though nothing failed; at most a heartbeat."""

    def __init__(self, nodes: Nodes, first: Node) -> None:
        self.nodes: Final = nodes
        self._first = first
        self.on_change: Callable[[], None] = lambda: None
        """Called when a key may have moved to another node, or connections were dropped."""

    def of(self, key: str) -> Node | None:  # noqa: ARG002 - of all keys
        """Returns the node of a key as far as it is known, without asking."""
        return self._first

    async def find(self, key: str) -> Node:
        """Returns the node of a key; asks other nodes if it is not known, or in doubt.

        Raises:
            NoNode: it cannot be found now.
        """
        return self.of(key) or self._first

    async def doubt(self, node: Node, *, demoted: bool) -> None:
        """Notes that a node did not answer or cannot serve.

        Args:
            node: the node.
            demoted: whether it says that it is a replica. Then its name may lead to another server by now.
        """
        node.fail()
        if demoted:
            await node.drop()
            self.on_change()

    def moved(self, key: str, host: Host, node: Node) -> None:
        """Notes that a node has named another one for a key."""

    async def look(self) -> None:
        """Asks again where the keys are.

        Raises:
            NoNode: nobody who could know answers.
        """

    def hosts(self, key: str) -> Sequence[Host | None]:
        """Returns the hosts to try for a key, the best first. Threads may call it."""
        node = self.of(key)
        return list(dict.fromkeys([*([node.host] if node else ()), *(each.host for each in self.nodes)]))

    async def close(self) -> None:
        """Closes all connections."""
        await self.nodes.close()


class _Changing(Topology):
    """Servers of which others know which one serves a key."""

    def __init__(self, nodes: Nodes, first: Node) -> None:
        super().__init__(nodes, first)
        self._doubted = True
        self._looking = anyio.Lock()
        self._looks = 0

    async def find(self, key: str) -> Node:
        node = self.of(key)
        if node is None or self._doubted:
            await self._look_once()
            node = self.of(key)
        if node is None:
            raise NoNode("no node serves this slot")
        return node

    async def doubt(self, node: Node, *, demoted: bool) -> None:
        self._doubted = True
        await super().doubt(node, demoted=demoted)

    async def look(self) -> None:
        await self._look_once()

    async def _look_once(self) -> None:
        """Looks, unless somebody else has done so meanwhile."""
        before = self._looks
        async with self._looking:
            if self._looks == before:
                await self._ask()
                self._doubted = False
                self._looks += 1

    async def _ask(self) -> None:
        raise NotImplementedError


class Sentinels(_Changing):
    """The primary that sentinels name.

    A primary that is replaced while it lives goes on accepting writes, which are lost, until sentinels demote it. So it
    asks them often.

    Args:
        nodes: makes the nodes.
        sentinels: the sentinels.
        name: the name of the primary.
    """

    looks_every = 1.0

    def __init__(self, nodes: Nodes, sentinels: Sequence[Node], name: str) -> None:
        super().__init__(nodes, sentinels[0])
        self._sentinels = sentinels
        self._name = name
        self._primary: Node | None = None

    def of(self, key: str) -> Node | None:  # noqa: ARG002 - of all keys
        return None if self._doubted else self._primary

    async def _ask(self) -> None:
        try:
            host = await ask_any(sorted(self._sentinels, key=lambda each: each.failed), self._ask_sentinel)
        except NoNode as error:
            raise NoNode(f"no sentinel names the primary ({error})") from error.__cause__
        await self._use(host)

    async def _ask_sentinel(self, sentinel: Node) -> Host:
        found = await sentinel.rare.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        if not found:  # it may have been restarted without its settings
            raise NoNode(f"it knows no primary of the name {self._name!r}")
        return found[0].decode(), int(found[1])

    async def _use(self, host: Host) -> None:
        node = self.nodes.at(host)
        if node is not self._primary:
            self._primary = node
            await self.nodes.keep([host])
            self.on_change()

    def sentinel_hosts(self) -> list[Host]:
        """Returns the hosts of the sentinels, the best first."""
        return [each.host for each in sorted(self._sentinels, key=lambda each: each.failed) if each.host]

    async def close(self) -> None:
        for sentinel in self._sentinels:
            await sentinel.close()
        await super().close()


@attrs.frozen
class _Range:
    """Slots with the same primary."""

    first: int
    last: int
    node: Node


class Cluster(_Changing):
    """The primaries of a cluster. Any node that lives says which of them has a slot.

    Args:
        nodes: makes the nodes.
        seeds: the hosts in the URL. Their names may lead to other nodes later, so they are always asked, too.
    """

    cluster = True

    def __init__(self, nodes: Nodes, seeds: Sequence[Host]) -> None:
        super().__init__(nodes, nodes.at(seeds[0]))
        self._seeds = seeds
        self._ranges: list[_Range] = []
        self._of: dict[str, Node] = {}  # the nodes of the keys that were asked for
        self._guide: Node | None = None  # the node that answered last

    def of(self, key: str) -> Node | None:
        if self._doubted:
            return None
        node = self._of.get(key)
        if node is None and (node := self._in_ranges(key_slot(key.encode()))):
            self._of[key] = node
        return node

    def _in_ranges(self, slot: int) -> Node | None:
        place = bisect_right(self._ranges, slot, key=lambda each: each.first) - 1
        return self._ranges[place].node if place >= 0 and slot <= self._ranges[place].last else None

    async def doubt(self, node: Node, *, demoted: bool) -> None:
        if self._guide is not None:
            self._guide.fail()  # what it knows may be old, so another one is asked
        await super().doubt(node, demoted=demoted)

    def moved(self, key: str, host: Host, node: Node) -> None:
        if node.host is not None and not host[0]:  # an unknown host is that of the node which says so
            host = node.host[0], host[1]
        self._of[key] = self.nodes.at(host)
        self.on_change()

    async def _ask(self) -> None:
        try:
            node, reply = await ask_any(self._guides(), self._ask_node)
        except NoNode as error:
            raise NoNode(f"no node of the cluster answers ({error})") from error.__cause__
        self._guide = node
        await self._use(reply, node)

    async def _ask_node(self, node: Node) -> tuple[Node, list[Any]]:
        reply = await node.rare.execute_command("CLUSTER", "SLOTS")
        if not reply:
            raise NoNode("it is in no cluster")
        return node, reply

    def _guides(self) -> Iterable[Node]:
        """Returns the nodes to ask: the last one that answered, unless it has failed since."""
        for host in self._seeds:
            self.nodes.at(host)
        return sorted(self.nodes, key=lambda node: (node.failed, node is not self._guide))

    async def _use(self, reply: Sequence[Any], node: Node) -> None:
        found = [(first, last, _host(others[0], node)) for first, last, *others in reply]
        ranges = [_Range(first, last, self.nodes.at(host)) for first, last, host in found if host]
        before, self._of = self._of, {}
        self._ranges = sorted(ranges, key=lambda each: each.first)
        changed = any(self._in_ranges(key_slot(key.encode())) is not node for key, node in before.items())
        named = {host for _, _, *others in reply for each in others if (host := _host(each, node))}
        await self.nodes.keep([*self._seeds, *named])
        if changed:
            self.on_change()


def _host(described: Sequence[Any], node: Node) -> Host | None:
    """Reads how a node describes a host. One without a name is that of the node itself."""
    name = (described[0] or b"").decode()
    if name == _UNKNOWN_HOST or node.host is None:
        return None
    return name or node.host[0], int(described[1])
