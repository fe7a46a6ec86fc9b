"""What a compiled kernel must not have, read from its IR and machine code: no GPU is needed."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

STACK_BUDGET = 32
"""Bytes a thread may spill: eight registers, next to the 128 that two programs of 256 threads
leave it. On sm_90 nothing spills, and nothing may."""

_DEFINITION = re.compile(r"^\s*(%[\w.#-]+)(?::\d+)? = (\S+) (.*)$")
_WAIT = re.compile(r"warp_group_dot_wait (%[\w.-]+)[^{]*\{pendings = (\d+)")
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


@dataclass(frozen=True)
class Resources:
    """What a thread of a kernel has.

    Attributes:
        registers: Registers.
        stack_bytes: Stack and local memory, which is where registers spill to.
    """

    registers: int
    stack_bytes: int


def resources(cubin: bytes) -> Resources:
    """Read them from machine code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        tool = triton.knobs.nvidia.cuobjdump.path
        command = [tool, "-res-usage", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = _RESOURCES.search(listing)
    assert found, f"cuobjdump -res-usage has changed its format: {listing}"
    registers, stack, local = map(int, found.groups())
    return Resources(registers, stack + local)


def few_buffers(ttgir: str, stages: int) -> list[str]:
    """Return the operands of asynchronous products that the next copy may overwrite.

    A product that is let run on while the next is issued (`pendings` of at least 1) still reads its
    operands, so each needs a shared-memory buffer for every stage. Triton 3.7.1 gives one fewer to
    an operand that is also used in registers.
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
    """Return how many buffers the shared memory behind `operand` has; `None` for registers."""
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
    """Return what is wrong with a compiled kernel, each in a phrase.

    Args:
        asm: Its "ttgir", "ptx" and "cubin".
        capability: What it was compiled for.
        stages: The stages it was compiled with.
        wants_wgmma: Whether its products must be asynchronous on sm_90.
    """
    found = few_buffers(asm["ttgir"], stages)
    stack = resources(asm["cubin"]).stack_bytes
    budget = 0 if capability == 90 else STACK_BUDGET
    if stack > budget:
        found.append(f"{stack} bytes of registers spill, {budget} may")
    if capability == 90 and wants_wgmma and "wgmma.mma_async" not in asm["ptx"]:
        found.append("its products do not use wgmma")
    return found
