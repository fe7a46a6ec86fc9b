"""Audit of compiled kernels: spills, races, traps and missing wgmma, from IR and machine code."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

STACK_BUDGET = 32
"""Bytes that a thread may spill: eight registers, next to the 128 of a thread if two programs of
256 threads share an SM. On sm_90 no spills are allowed."""

_DEFINITION = re.compile(r"^\s*(%[\w.#-]+)(?::\d+)? = (\S+) (.*)$")
_WAIT = re.compile(r"warp_group_dot_wait (%[\w.-]+)[^{]*\{pendings = (\d+)")
_TRAP = re.compile(r"^\s*trap;", re.MULTILINE)
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


@dataclass(frozen=True)
class Resources:
    """Resources of a thread.

    Attributes:
        registers: Number of registers.
        stack_bytes: Stack and local memory, to which registers spill.
    """

    registers: int
    stack_bytes: int


def resources(cubin: bytes) -> Resources:
    """Return the resources per thread of a kernel in machine code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        tool = triton.knobs.nvidia.cuobjdump.path
        command = [tool, "-res-usage", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = _RESOURCES.search(listing)
    assert usage, f"cuobjdump -res-usage has changed its format: {listing}"
    registers, stack, local = map(int, usage.groups())
    return Resources(registers, stack + local)


def is_trap(ptx: str) -> bool:
    """Return whether a kernel traps.

    Triton 3.7.1 makes such kernels of some nested loops of products for sm_100, and says nothing.
    """
    return _TRAP.search(ptx) is not None


def few_buffers(ttgir: str, stages: int) -> list[str]:
    """Return the operands of asynchronous products that the next copy may overwrite.

    A product that is still running when the next one is issued (`pendings` of at least 1) reads
    its operands. So each operand needs one shared-memory buffer per stage. Triton 3.7.1 allocates
    one fewer for an operand that is also used in registers.
    """
    definitions: dict[str, tuple[str, str]] = {}
    problems = []
    for line in ttgir.splitlines():
        waited = _WAIT.search(line)
        if waited and int(waited[2]) > 0:
            kind, text = definitions.get(waited[1].split("#")[0], ("", ""))
            operands = text.split(",")[:2] if kind.endswith("warp_group_dot") else []
            for operand in map(str.strip, operands):
                buffers = _buffers(operand, definitions)
                if buffers is not None and buffers < stages:
                    problems.append(f"operand {operand} has {buffers} of {stages} buffers")
        defined = _DEFINITION.match(line)
        if defined:
            definitions[defined[1]] = (defined[2], defined[3])
    return problems


def _buffers(operand: str, definitions: Mapping[str, tuple[str, str]]) -> int | None:
    """Return the number of shared-memory buffers of `operand`, or `None` if it is in registers."""
    indexed = False
    while True:
        kind, text = definitions.get(operand, ("", ""))
        if kind.endswith("local_alloc"):
            shape = re.search(r"memdesc<(\d+)x", text.rpartition("->")[2] or text)
            return int(shape[1]) if indexed and shape else 1
        if "memdesc" not in kind:
            return None
        indexed = indexed or kind.endswith("memdesc_index")
        source = re.match(r"(%[\w.-]+)", text)
        assert source, f"no source in {text}"
        operand = source[1]


def problems(asm: Mapping[str, Any], capability: int, stages: int, wants_wgmma: bool) -> list[str]:
    """Return the problems of a compiled kernel, each as a phrase.

    Args:
        asm: Its "ttgir", "ptx" and "cubin".
        capability: Compute capability it was compiled for.
        stages: Number of stages it was compiled with.
        wants_wgmma: Whether it must use wgmma on sm_90.
    """
    found = few_buffers(asm["ttgir"], stages)
    if is_trap(asm["ptx"]):
        found.append("its code is a trap, because the compiler could not translate it")
    stack = resources(asm["cubin"]).stack_bytes
    budget = 0 if capability == 90 else STACK_BUDGET
    if stack > budget:
        found.append(f"{stack} bytes of registers spill, {budget} allowed")
    if capability == 90 and wants_wgmma and "wgmma.mma_async" not in asm["ptx"]:
        found.append("its products do not use wgmma")
    return found
