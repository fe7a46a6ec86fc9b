"""Kernels compiled ahead of time: a cubin for each architecture, PTX for newer ones, a manifest."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
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
from nmn_export.kernels.yat import INTERPRETED

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities that have been compiled for and audited."""

MANIFEST = "manifest.json"

_WARP = 32
_TARGET = re.compile(r"^\.target (\w+)", re.MULTILINE)
_ENTRY = re.compile(r"\.entry \w+\((.*?)\)", re.DOTALL)
_PARAMETER = re.compile(r"\.param ((?:\.\w+ ?|\d+ ?)+)[^,\[]*(\[\d+\])?")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Built:
    """One compiled kernel, with all that a host needs to launch it.

    Attributes:
        name: Name of the variant.
        op: The ONNX op it belongs to; "" for what belongs to several.
        capability: Compute capability.
        target: The compiler's target; PTX of one without a trailing "a" also runs on newer ones.
        file: Path below the manifest.
        sha256: Of the file.
        symbol: Name of the function.
        arguments: Triton's parameters and types, in order, without the constants.
        divisible_by_16: Those that must be: pointers in bytes, numbers as they are.
        constants: Parameters that were compiled in.
        parameters: The function's own, as PTX spells them: those of a tensor descriptor are
            spread out, and two scratch pointers, which may be null, come last.
        grid: How many programs to launch, in words.
        threads: Threads per program.
        shared_bytes: Dynamic shared memory per program.
        registers: Registers per thread.
        stack_bytes: Bytes per thread that registers spill to.
        tensor_descriptors: What Triton says of each: block, element type, swizzle.
        problems: What the audit found.
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
    """What was built.

    Attributes:
        triton: Version of the compiler.
        kernels: Cubins, by architecture and variant.
        ptx: Path below the manifest and SHA-256 of PTX that drivers of newer chips compile.
    """

    triton: str
    kernels: list[Built]
    ptx: dict[str, str]

    @property
    def problems(self) -> list[str]:
        """What the audit found, each with the kernel it found it in."""
        return [f"{k.name} for sm_{k.capability}: {p}" for k in self.kernels for p in k.problems]


def compile_variant(variant: Variant, capability: int) -> Any:
    """Compile one kernel with Triton; the result has `asm` and `metadata`.

    Without line numbers, that is without the paths of this machine, so that files repeat anywhere.
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
        progress: If given, called with how many kernels are done, of how many, and the next.
        only: If given, says which variants to build.

    Raises:
        CheckError: The audit found something. The files are there to be looked at.
    """
    _check(archs)
    wanted = ((arch, variant) for arch in archs for variant in variants(arch))
    work = [pair for pair in wanted if only is None or only(pair[1])]
    portable = max((arch for arch in archs if arch < 90), default=None)
    kernels: list[Built] = []
    ptx: dict[str, str] = {}
    for done, (arch, variant) in enumerate(work):
        if progress:
            progress(done, len(work), f"{variant.name} for sm_{arch}")
        compiled = compile_variant(variant, arch)
        kernels.append(_write_cubin(variant, arch, compiled, out))
        if arch == portable:
            file = f"ptx/{variant.name}.ptx"
            ptx[file] = _write(out / file, compiled.asm["ptx"].encode())
    manifest = Manifest(triton.__version__, kernels, ptx)
    _write(out / MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    if manifest.problems:
        raise CheckError(
            "Compiled kernels must pass the audit",
            got="; ".join(manifest.problems),
            fix="See nmn_export/kernels/ahead_of_time/audit.py for what each means.",
        )
    return manifest


def _check(archs: Sequence[int]) -> None:
    if INTERPRETED:
        raise NmnExportError(
            "Kernels cannot be compiled in Triton's interpreter",
            got="TRITON_INTERPRET=1",
            fix="Unset it.",
        )
    unknown = sorted(set(archs) - set(ARCHITECTURES))
    if unknown or not archs:
        raise NmnExportError(
            f"Kernels are built for {', '.join(map(str, ARCHITECTURES))}",
            got=", ".join(map(str, unknown)) or "none",
            fix="Name compute capabilities without the dot.",
        )


def _write_cubin(variant: Variant, arch: int, compiled: Any, out: Path) -> Built:
    asm, metadata = compiled.asm, compiled.metadata
    file = f"sm_{arch}/{variant.name}.cubin"
    used = resources(asm["cubin"])
    stages = variant.options["num_stages"]
    target = _TARGET.search(asm["ptx"])
    entry = _ENTRY.search(asm["ptx"])
    assert target, "PTX names its target"
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
