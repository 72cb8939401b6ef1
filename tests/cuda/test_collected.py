"""What `pytest -m gpu` would run where there is a device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ORACLES = ("one_shot", "streamed_in_pieces", "appended_while_decoding", "beside_strangers_preempted_and_forked")


def test_all_oracles_are_collected_in_both_types_and_the_benchmark() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "gpu", str(Path(__file__).parent)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[2]).stdout
    for oracle in ORACLES:
        for dtype in ("float32", "bfloat16"):
            found = [line for line in listed.splitlines() if f"test_{oracle}[" in line and f"cuda-{dtype}" in line]
            assert len(found) >= 4, (oracle, dtype, listed)
    assert "test_bench_append" in listed
