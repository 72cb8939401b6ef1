"""The kernel is compiled to machine code for two generations of CUDA devices. That needs no device; running it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes for Linux only")

PROGRAM = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from penstock.engine.attention_triton import _attend

architecture, kind, block_m, block_n, shares = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
sizes = dict(HEADS=16, KV_HEADS=2, DIM=80, PAGE=16, WINDOWED=True, BLOCK_D=128)
sizes |= dict(BLOCK_M=block_m, BLOCK_N=block_n, SHARES=shares)
types = dict.fromkeys(("query", "keys", "values"), "*" + kind) | dict(out="*" + (kind if shares == 1 else "fp32"))
types |= dict(lse="*fp32", scale="fp32", rows="i32", table_stride="i32")
signature = {name: "constexpr" if name in sizes else types.get(name, "*i32") for name in _attend.arg_names}
source = ASTSource(fn=_attend, signature=signature, constexprs=sizes)
compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
assert compiled.asm["cubin"].startswith(b"\\x7fELF")
print(compiled.metadata.shared, compiled.asm["ptx"].count("mma"))
"""
# Bytes of shared memory that a program may have on every device since sm_80 (sm_86 and sm_89 have the least).
SHARED_BYTES = 99 * 1024


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("kind", "block_m", "block_n", "shares"), [("bf16", 16, 64, 8), ("fp16", 64, 64, 1), ("fp32", 64, 32, 1)]
)
def test_it_compiles_and_fits(
    architecture: int, kind: str, block_m: int, block_n: int, shares: int, tmp_path: Path
) -> None:
    """16-bit types use the tensor cores; float32 does not, as they would round it to 10 bits."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(architecture), kind, str(block_m), str(block_n), str(shares)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shared, products = map(int, done.stdout.split())
    assert shared <= SHARED_BYTES
    assert (products > 0) == (kind != "fp32")
