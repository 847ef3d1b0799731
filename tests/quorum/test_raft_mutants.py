"""Planted bugs fit the code, and some are found here; ``python tests/quorum/raft_plant.py`` shows that all of them are."""

from __future__ import annotations

import pytest
from raft_mutants import MUTATIONS
from raft_plant import failing_scenario, first_failure, planted
from sim.mutation import ROOT, Mutation, mutate

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_every_mutation_still_applies(mutation: Mutation) -> None:
    assert all(text != (ROOT / "zmqmq" / file).read_text(encoding="utf-8") for file, text in mutate(mutation, ROOT).items())


def test_names_differ() -> None:
    assert len(BY_NAME) == len(MUTATIONS)


def test_the_stories_find_what_random_search_finds_seldom() -> None:
    with planted(BY_NAME["old-term commit"]) as copy:
        assert "figure_8" in failing_scenario(copy)


def test_a_few_seeds_find_a_planted_bug() -> None:
    with planted(BY_NAME["log up-to-date check missing"]) as copy:
        seed, failure = first_failure(copy, 0, 20)
    assert seed >= 0
    assert "leader completeness" in failure
