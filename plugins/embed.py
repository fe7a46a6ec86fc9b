"""Put compiled kernels into the plugin library: tables in C++, and images for the assembler.

Usage: embed.py KERNELS OUT, where KERNELS is the folder that `nmn-export kernels build` wrote.
Needs nothing but Python: whoever builds the library need not have PyTorch or Triton.
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"

TYPES = {"fp32": "kFLOAT", "fp16": "kHALF", "bf16": "kBF16"}

TILE_TYPES = {6: "FLOAT16", 7: "FLOAT32", 10: "BFLOAT16"}
"""Element types of descriptors as Triton numbers them, which is as the device does."""

SWIZZLES = {0: "NONE", 1: "32B", 2: "64B", 3: "128B"}

DESCRIPTOR_PARAMETERS = 5
"""A descriptor of two axes is passed as its map, two sizes and two strides."""

SCRATCH_PARAMETERS = 2
"""Pointers to Triton's own scratch memory, which come last."""

Kernel = dict[str, Any]


def tactic(name: str) -> int:
    """Return the number of a kernel: the FNV-1a hash of its name in 31 bits, and never 0.

    It is written to engines, so it must not change when kernels come and go.
    """
    number = 0x811C9DC5
    for byte in name.encode():
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return number & 0x7FFFFFFF or 1


def check(kernel: Kernel) -> None:
    """Refuse a kernel that the host would launch with the wrong parameters."""
    kinds = list(kernel["arguments"].values())
    descriptors = sum(kind.startswith("tensordesc") for kind in kinds)
    expected = len(kinds) + descriptors * (DESCRIPTOR_PARAMETERS - 1) + SCRATCH_PARAMETERS
    if len(kernel["parameters"]) != expected:
        raise SystemExit(
            f"error: {kernel['name']} must have {expected} parameters; got "
            f"{len(kernel['parameters'])}; Triton's calling convention may have changed"
        )
    if descriptors != len(kernel["tensor_descriptors"]):
        raise SystemExit(f"error: {kernel['name']} must describe each of its descriptors")


def type_of(kernel: Kernel) -> str:
    """Return the type of a kernel's input, which its name tells."""
    found = re.search(r"_(fp32|fp16|bf16)(_|$)", kernel["name"])
    if not found:
        raise SystemExit(f"error: {kernel['name']} must tell its type")
    return TYPES[found[1]]


def constants(kernel: Kernel) -> str:
    """Return the numbers and flags that were compiled into a kernel."""
    found = {k: int(v) for k, v in kernel["constants"].items() if isinstance(v, int)}
    return ", ".join(f'{{"{name}", {value}}}' for name, value in found.items())


def tiles(kernel: Kernel) -> str:
    """Return what descriptors are made with."""
    return ", ".join(
        f"{{CU_TENSOR_MAP_DATA_TYPE_{TILE_TYPES[d['elem_type']]}, "
        f"CU_TENSOR_MAP_SWIZZLE_{SWIZZLES[d['swizzle']]}, {d['elem_size']}, "
        f"{d['block_size'][0]}, {d['block_size'][1]}}}"
        for d in kernel["tensor_descriptors"]
    )


def entry(kernel: Kernel, image: str, *, portable: bool) -> str:
    """Return the row of the table for a kernel."""
    exact = kernel["target"].endswith(("a", "f")) and not portable
    parameters = ", ".join(f"Parameter::{name}" for name in kernel["arguments"])
    return (
        f'        {{"{kernel["name"]}", "{kernel["op"]}", nvinfer1::DataType::{type_of(kernel)}, '
        f"{tactic(kernel['name'])}, {kernel['capability']}, {str(exact).lower()}, "
        f'{str(portable).lower()}, {image}, "{kernel["symbol"]}", {kernel["threads"]}U, '
        f"{kernel['shared_bytes']}U,\n            {{{parameters}}},\n"
        f"            {{{constants(kernel)}}},\n            {{{tiles(kernel)}}}}},\n"
    )


def read(folder: Path, file: str, digest: str) -> Path:
    """Return the path of an image, checked to be what the manifest says."""
    path = folder / file
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise SystemExit(f"error: {path} must be as {MANIFEST} says; build the kernels again")
    return path.resolve()


def images(manifest: dict[str, Any], folder: Path) -> list[tuple[Kernel, Path, bool]]:
    """Return every kernel with its image, and whether that is PTX."""
    kernels = manifest["kernels"]
    found = [(k, read(folder, k["file"], k["sha256"]), False) for k in kernels]
    portable = max((k["capability"] for k in kernels if k["capability"] < 90), default=None)
    for kernel in kernels:
        file = f"ptx/{kernel['name']}.ptx"
        if kernel["capability"] == portable:
            found.append((kernel, read(folder, file, manifest["ptx"][file]), True))
    return found


def assembly(paths: list[Path]) -> str:
    """Return assembler source with every image, each ending in a zero, as PTX has to."""
    rows = [
        f'.balign 64\nimage_{i}:\n.incbin "{path}"\n.byte 0\n.hidden image_{i}\n.globl image_{i}\n'
        for i, path in enumerate(paths)
    ]
    return ".section .rodata\n" + "".join(rows) + '.section .note.GNU-stack,"",%progbits\n'


def table(found: list[tuple[Kernel, Path, bool]], digest: str, description: str) -> str:
    """Return C++ source with the table of kernels."""
    declared = "".join(f"extern unsigned char const image_{i}[];\n" for i in range(len(found)))
    rows = "".join(
        entry(kernel, f"image_{i}", portable=portable)
        for i, (kernel, _, portable) in enumerate(found)
    )
    return (
        '#include "kernel.h"\n\nextern "C"\n{\n' + declared + "}\n\n"
        "namespace nmn::plugin\n{\n\n"
        f'char const* const kMANIFEST_HASH = "{digest}";\n'
        f'char const* const kKERNELS_DESCRIPTION = R"({description})";\n\n'
        "std::vector<Kernel> const& kernels()\n{\n"
        "    // Never destroyed: threads may still infer while the process ends.\n"
        "    static auto const& table = *new std::vector<Kernel>{\n"
        + rows
        + "    };\n    return table;\n}\n\n"
        "} // namespace nmn::plugin\n"
    )


def main(folder: Path, out: Path) -> None:
    """Read the manifest and write what is compiled and assembled."""
    text = (folder / MANIFEST).read_bytes()
    manifest = json.loads(text)
    if not manifest["kernels"]:
        raise SystemExit(f"error: {MANIFEST} must name kernels; build them")
    names = {kernel["name"] for kernel in manifest["kernels"]}
    if len({tactic(name) for name in names}) != len(names):
        raise SystemExit("error: two kernels have the same tactic; rename one")
    for kernel in manifest["kernels"]:
        check(kernel)
    found = images(manifest, folder)
    parameters = sorted({name for kernel, *_ in found for name in kernel["arguments"]})
    description = {
        "triton": manifest["triton"],
        "capabilities": sorted({kernel["capability"] for kernel in manifest["kernels"]}),
        "ptx": max((k["capability"] for k, _, portable in found if portable), default=None),
        "kernels": len(manifest["kernels"]),
    }
    digest = hashlib.sha256(text).hexdigest()[:16]
    fragment = json.dumps(description)[1:-1]
    out.mkdir(parents=True, exist_ok=True)
    (out / "kernel_parameters.inc").write_text(
        "".join(f"NMN_PARAMETER({name})\n" for name in parameters)
    )
    (out / "kernel_images.S").write_text(assembly([path for _, path, _ in found]))
    (out / "kernel_table.cpp").write_text(table(found, digest, fragment))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (KeyError, ValueError) as error:
        raise SystemExit(
            f"error: {MANIFEST} must be as nmn-export writes it; got {error!r}; "
            "build the kernels again"
        ) from error
