"""Ahead-of-time compilation: a cubin per kernel and architecture, PTX for newer GPUs, manifest."""

import functools
import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nmn_export.errors import CheckError, NmnExportError
from nmn_export.kernels.ahead_of_time.audit import problems, resources
from nmn_export.kernels.ahead_of_time.variant import Variant
from nmn_export.kernels.ahead_of_time.variants import variants
from nmn_export.kernels.attention.options import LOWEST_EXPONENT
from nmn_export.kernels.attention.plan import (
    BLOCKS_PER_PART,
    FILLING,
    MOST_FEATURES,
    MOST_KEY_PARTS,
)
from nmn_export.kernels.conv.images import FEW_FILTERS
from nmn_export.kernels.dense.launch import MOST_PARTS
from nmn_export.kernels.tile_size import PROGRAMS_PER_PROCESSOR
from nmn_export.kernels.weights import ALIGNMENT, ALPHA_LIMIT
from nmn_export.kernels.yat import INTERPRETED
from nmn_export.ops import OPS

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Supported compute capabilities: all kernels compile for them and pass the audit."""

MANIFEST = "manifest.json"

HOST_CONSTANTS: dict[str, int | float] = {
    "ALIGNMENT": ALIGNMENT,
    "ALPHA_LIMIT": ALPHA_LIMIT,
    "BLOCKS_PER_PART": BLOCKS_PER_PART,
    "FEW_FILTERS": FEW_FILTERS,
    "FILLING": FILLING,
    "LOWEST_EXPONENT": LOWEST_EXPONENT,
    "MOST_FEATURES": MOST_FEATURES,
    "MOST_KEY_PARTS": MOST_KEY_PARTS,
    "MOST_PARTS": MOST_PARTS,
    "PROGRAMS_PER_PROCESSOR": PROGRAMS_PER_PROCESSOR,
}
"""Numbers that the C++ plugin shares with the launches in Python."""

_WARP = 32
_TARGET = re.compile(r"^\.target (\w+)", re.MULTILINE)
_ENTRY = re.compile(r"\.entry \w+\((.*?)\)", re.DOTALL)
_PARAMETER = re.compile(r"\.param ((?:\.\w+ ?|\d+ ?)+)[^,\[]*(\[\d+\])?")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Built:
    """One compiled kernel, with everything that a host needs to launch it.

    Attributes:
        name: Name of the variant.
        op: The ONNX op whose output it computes; "" for kernels that run before it.
        capability: Compute capability.
        target: The compiler's target. PTX for a target without a trailing "a" also runs on newer
            GPUs.
        file: Path of the cubin, relative to the manifest.
        sha256: SHA-256 of the cubin.
        symbol: Name of the function.
        arguments: Names and Triton types of the run-time arguments, in order.
        divisible_by_16: Arguments that must be multiples of 16 (pointers: in bytes).
        constants: Compile-time arguments.
        parameters: Parameters of the function in PTX. A tensor descriptor is several parameters.
            The last two are pointers to Triton's scratch memory, which may be null.
        grid: Number of programs to launch, in words.
        threads: Threads per program.
        shared_bytes: Dynamic shared memory per program.
        registers: Registers per thread.
        stack_bytes: Bytes of spilled registers per thread.
        tensor_descriptors: Block, element type and swizzle of every tensor descriptor.
        problems: Findings of the audit.
    """

    name: str
    op: str
    capability: int
    target: str
    file: str
    sha256: str
    symbol: str
    arguments: dict[str, str]
    divisible_by_16: list[str]
    constants: dict[str, Any]
    parameters: list[str]
    grid: str
    threads: int
    shared_bytes: int
    registers: int
    stack_bytes: int
    tensor_descriptors: list[Any]
    problems: list[str]


@dataclass(frozen=True)
class Manifest:
    """Everything that was built. `plugins/embed.py` makes it part of the plugin library.

    Attributes:
        triton: Version of the compiler.
        ops: Attributes of every ONNX op, with their types ("float", "int" or "ints") and defaults.
        constants: `HOST_CONSTANTS`.
        kernels: Compiled kernels, one per architecture and variant.
        ptx: Path, relative to the manifest, and SHA-256 of PTX for newer GPUs.
    """

    triton: str
    ops: dict[str, dict[str, Any]]
    constants: dict[str, int | float]
    kernels: list[Built]
    ptx: dict[str, str]

    @property
    def problems(self) -> list[str]:
        """Findings of the audit, each with its kernel."""
        return [f"{k.name} for sm_{k.capability}: {p}" for k in self.kernels for p in k.problems]


def compile_variant(variant: Variant, capability: int) -> Any:
    """Compile one kernel with Triton; the result has `asm` and `metadata`.

    Line numbers are left out, because they contain paths: the files are the same on any machine.
    """
    names = variant.kernel.arg_names
    source = ASTSource(
        fn=variant.kernel,
        signature={name: variant.types.get(name, "constexpr") for name in names},
        constexprs=dict(variant.constants),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in variant.divisible},
    )
    target = GPUTarget("cuda", capability, _WARP)
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True
        return triton.compile(source, target=target, options=dict(variant.options))


def build(
    archs: Sequence[int],
    out: Path,
    progress: Progress | None = None,
    only: Callable[[Variant], bool] | None = None,
) -> Manifest:
    """Compile the kernels and audit them.

    Args:
        archs: Compute capabilities, such as 80 and 90.
        out: Folder for cubins (`sm_90/….cubin`), PTX (`ptx/….ptx`) and the manifest.
        progress: Called with the number of kernels done, their total, and the name of the last.
        only: Returns whether to build a variant; `None` builds all.

    Raises:
        NmnExportError: An architecture is not supported.
        CheckError: The audit found a problem. All files are written, for inspection.
    """
    _check(archs)
    wanted = ((arch, variant) for arch in archs for variant in variants(arch))
    work = [pair for pair in wanted if only is None or only(pair[1])]
    portable = max((arch for arch in archs if arch < 90), default=None)
    jobs = [_Job(arch, variant.name, out, arch == portable) for arch, variant in work]
    kernels: list[Built] = []
    ptx: dict[str, str] = {}
    # Triton compiles in one thread, so each core gets a process.
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("fork")) as pool:
        for job, (kernel, files) in zip(jobs, pool.map(_build_one, jobs), strict=True):
            kernels.append(kernel)
            ptx |= files
            if progress:
                progress(len(kernels), len(jobs), f"{job.name} for sm_{job.arch}")
    manifest = Manifest(triton.__version__, _op_attributes(), HOST_CONSTANTS, kernels, ptx)
    _write(out / MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    if manifest.problems:
        raise CheckError(
            "Compiled kernels must pass the audit",
            got="; ".join(manifest.problems),
            fix="nmn_export/kernels/ahead_of_time/audit.py explains each.",
        )
    return manifest


@dataclass(frozen=True)
class _Job:
    """A kernel to compile for `arch`, and whether to write its PTX, too."""

    arch: int
    name: str
    out: Path
    portable: bool


def _build_one(job: _Job) -> tuple[Built, dict[str, str]]:
    """Compile a kernel. Return it, and the SHA-256 of its PTX by path if that is written."""
    variant = _by_name(job.arch)[job.name]
    compiled = compile_variant(variant, job.arch)
    ptx = {}
    if job.portable:
        file = f"ptx/{variant.name}.ptx"
        ptx[file] = _write(job.out / file, compiled.asm["ptx"].encode())
    return _write_cubin(variant, job.arch, compiled, job.out), ptx


@functools.cache
def _by_name(arch: int) -> dict[str, Variant]:
    return {variant.name: variant for variant in variants(arch)}


def _op_attributes() -> dict[str, dict[str, Any]]:
    types = {float: "float", int: "int", tuple: "ints"}
    return {
        name: {
            attribute: {"type": types[spec.attribute_types[attribute]], "default": default}
            for attribute, default in spec.attributes.items()
        }
        for name, spec in OPS.items()
    }


def _check(archs: Sequence[int]) -> None:
    if INTERPRETED:
        raise NmnExportError(
            "Kernels cannot be compiled in Triton's interpreter",
            got="TRITON_INTERPRET=1",
            fix="Unset TRITON_INTERPRET.",
        )
    unknown = sorted(set(archs) - set(ARCHITECTURES))
    if unknown or not archs:
        raise NmnExportError(
            f"Kernels are built for {', '.join(map(str, ARCHITECTURES))}",
            got=", ".join(map(str, unknown)) or "none",
            fix="Pass compute capabilities without the dot, such as 90.",
        )


def _write_cubin(variant: Variant, arch: int, compiled: Any, out: Path) -> Built:
    asm, metadata = compiled.asm, compiled.metadata
    file = f"sm_{arch}/{variant.name}.cubin"
    used = resources(asm["cubin"])
    stages = variant.options["num_stages"]
    target = _TARGET.search(asm["ptx"])
    entry = _ENTRY.search(asm["ptx"])
    assert target, "PTX has a target"
    assert entry, "PTX has an entry"
    return Built(
        name=variant.name,
        op=variant.op,
        capability=arch,
        target=target[1],
        file=file,
        sha256=_write(out / file, asm["cubin"]),
        symbol=metadata.name,
        arguments=dict(variant.types),
        divisible_by_16=list(variant.divisible),
        constants=dict(variant.constants),
        parameters=["".join(p).strip() for p in _PARAMETER.findall(entry[1])],
        grid=variant.grid,
        threads=_WARP * metadata.num_warps,
        shared_bytes=metadata.shared,
        registers=used.registers,
        stack_bytes=used.stack_bytes,
        tensor_descriptors=list(metadata.tensordesc_meta or []),
        problems=problems(asm, arch, stages, variant.wants_wgmma),
    )


def _write(path: Path, data: bytes) -> str:
    """Write a file, its folder too, and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
