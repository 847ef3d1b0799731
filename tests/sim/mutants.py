"""All planted bugs. The simulator has to find every one of them; see ``plant.py``."""

from __future__ import annotations

from typing import Final

from mutants_broker import BROKER_MUTATIONS
from mutants_cluster import CLUSTER_MUTATIONS
from mutants_store import STORE_MUTATIONS
from mutation import Mutation

MUTATIONS: Final[tuple[Mutation, ...]] = (*STORE_MUTATIONS, *BROKER_MUTATIONS, *CLUSTER_MUTATIONS)
