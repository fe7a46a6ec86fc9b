"""Compile kernels in a separate process, because the tests' own process interprets them.

python compiled.py build FOLDER VARIANT…    the variants for sm_80 and sm_90
python compiled.py fail FOLDER VARIANT…     the same with an audit that reports a problem
python compiled.py bad FOLDER               a kernel with every problem that the audit detects
"""

import json
import sys
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nmn_export.errors import CheckError
from nmn_export.kernels.ahead_of_time import build as aot
from nmn_export.kernels.ahead_of_time.audit import problems


@triton.jit
def bad_kernel(
    input_pointer, weight_pointer, output_pointer, in_feat_dim,
    BLOCK_SIZE: tl.constexpr, BLOCK_SIZE_K: tl.constexpr, SQUARE: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, BLOCK_SIZE)
    feat = tl.arange(0, BLOCK_SIZE_K)
    input_pointers = input_pointer + row[:, None] * in_feat_dim + feat[None, :]
    weight_pointers = weight_pointer + row[None, :] * in_feat_dim + feat[:, None]
    dot = tl.zeros([BLOCK_SIZE, BLOCK_SIZE], tl.float32)
    norm = tl.zeros([BLOCK_SIZE], tl.float32)
    for k in range(0, in_feat_dim, BLOCK_SIZE_K):
        x = tl.load(input_pointers + k)
        if SQUARE:
            wide = x.to(tl.float32)
            norm += tl.sum(wide * wide, 1)
        dot = tl.dot(x, tl.load(weight_pointers + k), dot)
    tl.store(output_pointer + row[:, None] * BLOCK_SIZE + row[None, :], dot + norm[:, None])


def bad(square: bool, registers: int, warps: int, block: int) -> list[str]:
    """Return the findings of the audit for the bad kernel."""
    names = bad_kernel.arg_names
    source = ASTSource(
        bad_kernel,
        dict.fromkeys(names[:2], "*fp16")
        | {"output_pointer": "*fp32", "in_feat_dim": "i32"}
        | dict.fromkeys(names[4:], "constexpr"),
        {"BLOCK_SIZE": block, "BLOCK_SIZE_K": 64, "SQUARE": square},
        {(i,): [["tt.divisibility", 16]] for i in range(4)},
    )
    options = {"num_warps": warps, "num_stages": 3, "maxnreg": registers}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return problems(compiled.asm, 90, 3, wants_wgmma=True)


def main(command: str, folder: str, *names: str) -> None:
    """Run the command line."""
    if command == "build":
        aot.build((80, 90), Path(folder), only=lambda variant: variant.name in names)
    elif command == "fail":
        aot.problems = lambda *_, **__: ["it is bad"]
        try:
            aot.build((90,), Path(folder), only=lambda variant: variant.name in names)
        except CheckError as error:
            Path(folder, "error.txt").write_text(str(error))
    else:
        found = {
            "good": bad(square=False, registers=255, warps=8, block=128),
            "buffers": bad(square=True, registers=255, warps=8, block=128),
            "spills": bad(square=False, registers=96, warps=4, block=128),
            "no wgmma": bad(square=False, registers=255, warps=4, block=32),
        }
        Path(folder, "bad.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
