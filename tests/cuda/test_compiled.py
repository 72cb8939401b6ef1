"""The kernels are compiled to machine code for two generations of CUDA devices. That needs no device; running them
does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes for Linux only")

PROGRAM = """
import json
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from penstock.engine.runner.attention_triton import _attend, _merge


def compile(architecture, kind, block_m, block_n, split, kept):
    sizes = dict(HEADS=16, KV_HEADS=2, DIM=80, WIDE=80, PAGE=16, WINDOWED=True, CAPPED=False, BLOCK_D=128, BLOCK_W=128)
    sizes |= dict(BLOCK_M=block_m, BLOCK_N=block_n, SPLIT=bool(split), KEPT=kept)
    types = dict.fromkeys(("query", "keys", "values"), "*" + kind) | dict(out="*" + ("fp32" if split else kind))
    types |= dict(lse="*fp32", scale="fp32", cap="fp32", rows="i32", shares="i32", table_stride="i32")
    types |= dict.fromkeys(("keys", "values"), {"int8": "*i8", "fp8": "*u8"}.get(kept, "*" + kind))
    signature = {name: "constexpr" if name in sizes else types.get(name, "*i32") for name in _attend.arg_names}
    source = ASTSource(fn=_attend, signature=signature, constexprs=sizes)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert compiled.asm["cubin"].startswith(b"\\x7fELF")
    types = dict(lines="i32", shares="i32", out="*" + kind)
    sizes = dict(DIM=80, BLOCK_L=16, BLOCK_D=128)
    signature = {name: "constexpr" if name in sizes else types.get(name, "*fp32") for name in _merge.arg_names}
    source = ASTSource(fn=_merge, signature=signature, constexprs=sizes)
    merged = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    return max(compiled.metadata.shared, merged.metadata.shared), compiled.asm["ptx"].count("mma")


# Of each case the bytes of shared memory, and how often tensor cores multiply.
print(json.dumps([compile(*case) for case in json.loads(sys.argv[1])]))
"""
# Prints each set of sizes and types that is compiled for many batches of a model, whatever lies where in memory.
BATCHES = """
import random
import torch
from penstock.engine.runner import attention_triton
from tests.cuda.ragged import Ragged
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

seen = set()


class Launch:
    def __init__(self, kernel):
        backend = make_backend(GPUTarget("cuda", 90, 32))
        self.bind = create_function_from_signature(kernel.signature, kernel.params, backend)

    def __getitem__(self, grid):
        return lambda *args, **sizes: seen.add(str(self.bind(*args, **sizes)[1]))


attention_triton._attend = Launch(attention_triton._attend)
attention_triton._merge = Launch(attention_triton._merge)
dice = random.Random(1)
for seed in range(200):
    shape = [(dice.randint(1, 300), dice.choice([1, 1, 40])) for _ in range(dice.randint(1, 9))]
    batch = Ragged(shape, seed=seed, dtype=torch.bfloat16, window=dice.choice([None, 20]))
    for part in batch.halves(dice.randint(0, 4)):
        moved = torch.cat([part.lengths[: dice.randint(0, 3)], part.lengths])[-len(part.lengths) :]
        batch.attend_in(attention_triton.TritonBackend(dice.choice([1, 20, 100, 500])), [part._replace(lengths=moved)])
print(*sorted(seen), sep="\\n")
"""
# Prints for each kernel beside attention, at its largest, how many threads a program has and what they take.
FUSED = """
import subprocess
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from penstock.engine.runner import pointwise_triton as fused

widest = fused._WIDEST
for architecture in (80, 90):
    for kernel, warps, sizes in (
        (fused._norm, widest // fused._A_WARP, dict(WIDTH=widest, BLOCK=widest, ADDED=True, AFTER=True)),
        (fused._turn, 1, dict(QUERIES=28, KV_HEADS=4, DIM=256, TURNED=256, BLOCK=256, NORMED=True)),
        (fused._gate, 4, dict(WIDTH=18944, BLOCK=fused._GATED)),
    ):
        types = dict(after="*fp32", weight="*fp32", target="*i64", eps="fp32", after_eps="fp32")
        signature = {name: "constexpr" if name in sizes else types.get(name, "*bf16") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=sizes)
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=dict(num_warps=warps))
        path = f"{sys.argv[1]}/{architecture}{kernel.__name__}"
        open(path, "wb").write(compiled.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(32 * warps, told.split("Function")[1])
"""
# Bytes of shared memory that a program may have on every device since sm_80 (sm_86 and sm_89 have the least).
SHARED_BYTES = 99 * 1024
# Registers that the threads of a program may have together.
REGISTERS = 64 * 1024


# Architecture, type, block sizes, whether rows are cut into shares, and what the cache holds.
CASES = [
    (architecture, *kernel)
    for architecture in (80, 90)
    for kernel in (
        ("bf16", 16, 64, 1, "floats"),
        ("fp16", 64, 64, 0, "floats"),
        ("fp32", 64, 32, 0, "floats"),
        ("bf16", 64, 64, 0, "int8"),
        ("bf16", 16, 64, 1, "fp8"),
    )
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int | str, ...], list[int]]:
    """What one process, for which Triton interprets nothing, has made of each case."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(CASES)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("kernels"))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}-{case[5]}-{case[0]}")
def test_it_compiles_and_fits(compiled: dict[tuple[int | str, ...], list[int]], case: tuple[int | str, ...]) -> None:
    """16-bit types use the tensor cores; float32 does not, as they would round it to 10 bits."""
    shared, products = compiled[case]
    assert shared <= SHARED_BYTES
    assert (products > 0) == (case[1] != "fp32")


def test_what_is_compiled_does_not_hang_on_the_batch() -> None:
    """For rows of replies and appended ones, with and without a window, in shares and whole: eight in all, and one that
    merges shares."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", BATCHES], env=environment | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9, done.stdout


def test_what_is_beside_attention_keeps_its_rows_in_registers(tmp_path: Path) -> None:
    """At the largest sizes that the kernels take, nothing is spilled to memory."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", FUSED, str(tmp_path)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(\d+)  *\w+:\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", done.stdout)
    assert len(found) == 6, done.stdout
    for threads, registers, stack, shared, local in (map(int, line) for line in found):
        assert threads * registers <= REGISTERS and shared <= SHARED_BYTES
        assert stack == local == 0
