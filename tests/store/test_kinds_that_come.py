"""When a kind of runtimes comes, actors get lanes of their own as if all kinds had been compared."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.shard.driver import item, open_shard
from tests.support.shard.model_lanes import Kind

ACTORS = "abcd"
KINDS = st.builds(
    lambda actors, queues: Kind(dict.fromkeys(sorted(actors), "1"), queues),
    st.sets(st.sampled_from(ACTORS), min_size=1),
    st.none() | st.frozensets(st.sampled_from(["default", "gpu"]), min_size=1),
)


def lacking(kinds: Sequence[Kind]) -> set[str]:
    """Returns the actors that one kind with the common lane lacks, and another kind has."""
    common = [kind for kind in kinds if kind.queues is None or "default" in kind.queues]
    known = set().union(*(kind.actors for kind in kinds))
    return {actor for actor in known if any(actor not in kind.actors for kind in common)}


@given(kinds=st.lists(KINDS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_actors_that_a_kind_lacks_get_lanes(url: str, kinds: list[Kind]) -> None:
    with open_shard(url) as shard:
        shard.send(*[item(f"{actor} 0", body=f'["{actor}",[],{{}}]'.encode()) for actor in ACTORS])
        for number, kind in enumerate(kinds):
            shard.join(f"r{number}", kind=kind)
            routes = {actor.decode() for actor in shard.db.hkeys(shard.keys.fixed("ROUTES"))}
            assert routes == lacking(kinds[: number + 1])
            shard.check()
