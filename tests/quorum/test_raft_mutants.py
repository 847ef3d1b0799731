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


@pytest.mark.parametrize("name", ["old-term commit", "membership change before own-term commit"])
def test_the_stories_find_what_random_search_finds_seldom(name: str) -> None:
    with planted(BY_NAME[name]) as copy:
        assert failing_scenario(copy)


@pytest.mark.parametrize("name", ["log up-to-date check missing", "follower answers before the sync"])
def test_a_few_seeds_find_a_planted_bug(name: str) -> None:
    with planted(BY_NAME[name]) as copy:
        seed, _ = first_failure(copy, 0, 40)
    assert seed >= 0
