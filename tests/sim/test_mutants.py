"""Planted bugs fit the code, and some are found here; ``make plant`` shows that all of them are."""

from __future__ import annotations

import pytest
from mutants import MUTATIONS
from mutation import FIRST_CLUSTER, ROOT, Edit, Mutation, NoLongerApplies, mutate
from plant import try_out

SEEDS_MAX = 10
QUICK = {"journal not synced": 0, "watermark before the sync": 0, "leader epoch not raised at open": 0}
"""Mutations that die at once, with a seed at which they did. A change of the simulator may give a seed another story, so a few more
are tried."""
STORIES = [mutation for mutation in MUTATIONS if mutation.stories and not mutation.first_seed]
"""Those of a cluster are too many for here."""
BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_every_mutation_still_applies(mutation: Mutation) -> None:
    changed = mutate(mutation, ROOT)

    assert changed
    assert all(text != (ROOT / "zmqmq" / file).read_text(encoding="utf-8") for file, text in changed.items())


def test_there_are_enough_mutations_and_their_names_differ() -> None:
    assert len(BY_NAME) == len(MUTATIONS)
    assert len(STORIES) < sum(not mutation.first_seed for mutation in MUTATIONS) >= 25
    assert sum(mutation.first_seed == FIRST_CLUSTER for mutation in MUTATIONS) >= 30


@pytest.mark.parametrize("mutation", [mutation for mutation in MUTATIONS if mutation.first_seed], ids=str)
def test_every_story_of_a_cluster_is_there(mutation: Mutation) -> None:
    for story in mutation.stories:
        file, _, name = story.partition("::")
        assert not name or f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", QUICK)
def test_the_simulator_finds_a_planted_bug_at_once(name: str) -> None:
    verdict = try_out(BY_NAME[name], QUICK[name], QUICK[name] + SEEDS_MAX)

    assert verdict.is_found, str(verdict)


@pytest.mark.parametrize("mutation", STORIES, ids=str)
def test_a_story_fails_when_its_promise_is_broken(mutation: Mutation) -> None:
    verdict = try_out(mutation, 0, 0)

    assert verdict.is_found, str(verdict)


def test_a_mutation_that_breaks_nothing_is_not_found() -> None:
    harmless = Mutation("harmless", "none", [Edit("units.py", "UNLIMITED: Final = -1", "UNLIMITED: Final = 0 - 1")])

    verdict = try_out(harmless, 0, 1)

    assert not verdict.is_found
    assert "too kind" in verdict.failure


@pytest.mark.parametrize("old", ["text that is nowhere", "import"])
def test_a_mutation_whose_text_is_not_there_exactly_once_is_refused(old: str) -> None:
    with pytest.raises(NoLongerApplies, match=r"no longer applies: units\.py"):
        mutate(Mutation("stale", "none", [Edit("units.py", old, "")]), ROOT)


def test_a_mutation_that_is_no_python_is_refused() -> None:
    with pytest.raises(NoLongerApplies, match=r"makes no Python of units\.py"):
        mutate(Mutation("broken", "none", [Edit("units.py", "UNLIMITED: Final = -1", "UNLIMITED: Final = (")]), ROOT)


def test_a_product_that_does_not_start_counts_as_found() -> None:
    verdict = try_out(Mutation("crash", "none", [Edit("units.py", "UNLIMITED: Final = -1", "raise SystemExit")]), 0, 2)

    assert verdict.is_found
    assert "the process ended" in verdict.failure
