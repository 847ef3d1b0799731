"""The program of docs/simulator.md runs as it stands, and its tables name what the code has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from zmqmq.testing.sim import Cluster, agreement, invariants
from zmqmq.testing.sim.deeds import Deeds

PAGE = (Path(__file__).parent.parent.parent / "docs" / "simulator.md").read_text()


def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "test_orders.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_every_invariant_of_the_code_is_explained_and_the_other_way_round() -> None:
    section = PAGE.partition("### Checked after every turn of a broker")[2].partition("###")[0]
    explained = set(re.findall(r"^\| ([a-z -]+) \|", section, re.MULTILINE)) - {"name"}
    sources = "".join(Path(module.__file__).read_text() for module in (invariants, agreement))
    raised = set(re.findall(r'Violation\(f"([a-z -]+):', sources))
    assert explained == raised - {"replicas are equal"}, "which is looked at when all is over"


def test_every_class_of_the_nemesis_is_explained_and_the_other_way_round() -> None:
    section = PAGE.partition("The classes of the nemesis:")[2].partition("\n\nA program")[0]
    first_cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    explained = {name for cell in first_cells for name in re.findall(r"`([a-z -]+)`", cell)}
    cluster = Cluster(broker_count=3)
    assert explained == set(Deeds(cluster, 0, ()).by_name)
    cluster.close()
