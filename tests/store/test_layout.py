"""Layouts: which tenant is on which shard, before and after shards were added."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairactor._model.keys import shard_of
from fairactor._model.layout import Layout

TENANTS: Final = [f"customer {n}" for n in range(20_000)]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Draws a layout that has grown up to four times."""
    first = draw(st.integers(1, 40))
    added = draw(st.lists(st.integers(1, 30), max_size=4))
    counts = [first]
    for more in added:
        counts.append(counts[-1] + more)
    return Layout(tuple(counts), growing=bool(added) and draw(st.booleans()))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(layouts(), names)
def test_a_layout_is_the_same_after_it_was_stored(layout: Layout, tenant: str) -> None:
    stored = Layout.unpack(layout.pack().encode())
    assert stored == layout
    assert stored.place(tenant) == layout.place(tenant)


@given(layouts(), names)
def test_a_tenant_is_on_a_shard_that_exists_and_was_on_others_of_fewer(layout: Layout, tenant: str) -> None:
    places = layout.places(tenant)
    assert places[0] == layout.place(tenant)
    assert len(places) == len(set(places))
    assert places == sorted(places, reverse=True), "each growth moves tenants to new shards only"
    assert all(0 <= place < layout.shards for place in places)
    assert layout.source(tenant) in places
    assert places[-1] < layout.counts[0]


@given(layouts(), st.integers(1, 30), names)
def test_a_growth_moves_a_tenant_to_a_new_shard_or_not_at_all(layout: Layout, more: int, tenant: str) -> None:
    before = layout.settled()
    grown = before.grown(before.shards + more)
    assert grown.source(tenant) == before.place(tenant)
    assert grown.place(tenant) == before.place(tenant) or grown.place(tenant) >= before.shards
    assert grown.settled().place(tenant) == grown.place(tenant)
    assert grown.places(tenant)[-1:] == before.places(tenant)[-1:]


@given(layouts(), st.integers(1, 30))
def test_the_epoch_only_grows_and_is_odd_while_tenants_move(layout: Layout, more: int) -> None:
    before = layout.settled()
    grown = before.grown(before.shards + more)
    assert before.epoch % 2 == 0
    assert grown.epoch == before.epoch + 1
    assert grown.settled().epoch == before.epoch + 2
    assert grown.growing
    assert not grown.settled().growing


@given(st.integers(1, 100), names)
def test_without_a_growth_tenants_are_where_they_always_were(shards: int, tenant: str) -> None:
    layout = Layout((shards,))
    assert layout.epoch == 0
    assert layout.places(tenant) == [layout.place(tenant)] == [layout.source(tenant)] == [shard_of(tenant, shards)]


def test_places_are_the_same_in_every_release() -> None:
    """Stored tasks depend on these: whoever changes the function loses them."""
    layout = Layout((2, 3, 6))
    assert [layout.places(f"t{n}") for n in range(8)] == PLACES
    assert layout.pack() == "4:2,3,6"


PLACES: Final = [[1], [3, 1], [3, 1], [2, 1], [4, 0], [4, 0], [2, 0], [4, 0]]


@pytest.mark.parametrize("counts", [(1, 2), (2, 3), (4, 6), (16, 24), (16, 17), (2, 3, 6), (1, 2, 4, 8, 16)])
def test_tenants_are_spread_evenly_and_no_more_move_than_must(counts: tuple[int, ...]) -> None:
    layout, before = Layout(counts), Layout(counts[:-1])
    found = Counter(map(layout.place, TENANTS))
    expected = len(TENANTS) / layout.shards
    chi_square = sum((found[shard] - expected) ** 2 / expected for shard in range(layout.shards))
    freedom = layout.shards - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom), found
    moved = [tenant for tenant in TENANTS if layout.place(tenant) != before.place(tenant)]
    share = (layout.shards - before.shards) / layout.shards
    error = math.sqrt(share * (1 - share) / len(TENANTS))
    assert abs(len(moved) / len(TENANTS) - share) < 5 * error
    sources = Counter(map(before.place, moved))
    left = [sources[shard] / (len(moved) / before.shards) for shard in range(before.shards)]
    assert 0.7 < min(left) <= max(left) < 1.3, "each shard gives the same part"


@pytest.mark.parametrize("packed", [b"", b"1", b"1:", b"x:1,2", b"1:1,,2", b"1:a"])
def test_a_damaged_layout_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each part that is damaged has its own message
        Layout.unpack(packed)
