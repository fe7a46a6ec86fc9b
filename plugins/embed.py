"""Generate C++ sources from the manifest of compiled kernels, and assembly with their images.

Usage: embed.py KERNELS OUT, where KERNELS is the folder that `nmn-export kernels build` wrote. It
writes to OUT:

    kernel_parameters.h   run-time parameters of the kernels, with their types
    host_constants.h      numbers that Python and C++ share
    kernel_table.cpp      the tables of kernels and of the ops' attributes
    kernel_images.S       cubins and PTX

It only needs the standard library, so that building the plugin needs neither PyTorch nor Triton.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"

TYPES = {"fp32": "kFLOAT", "fp16": "kHALF", "bf16": "kBF16"}

TILE_TYPES = {6: "FLOAT16", 7: "FLOAT32", 10: "BFLOAT16"}
"""Element types of tensor descriptors; Triton uses the numbers of the device."""

SWIZZLES = {0: "NONE", 1: "32B", 2: "64B", 3: "128B"}

DESCRIPTOR_PARAMETERS = 5
"""A tensor descriptor of two axes is passed as a map, two sizes and two strides."""

SCRATCH_PARAMETERS = 2
"""Pointers to Triton's scratch memory, which come last."""

ATTRIBUTE_TYPES = {"float": ("kFLOAT32", 1), "int": ("kINT32", 1), "ints": ("kINT32", 0)}
"""Field type and length of an attribute; 0 is a list of any length."""

Kernel = dict[str, Any]


def tactic(name: str) -> int:
    """Return the tactic of a kernel: the FNV-1a hash of its name in 31 bits, and never 0.

    Engines store it, so it must not change when kernels are added or removed.
    """
    number = 0x811C9DC5
    for byte in name.encode():
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return number & 0x7FFFFFFF or 1


def check(kernel: Kernel) -> None:
    """Check that the parameters of a kernel are those that the library passes."""
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


def value_type(name: str, kinds: set[str]) -> str:
    """Return the C++ type of a parameter that has these Triton types in the kernels.

    A `_source` is passed by pointer or by tensor descriptor, so its C++ type is that of both.
    """
    forms = {
        "pointer" if k.startswith("*") else "descriptor" if k.startswith("tensordesc") else k
        for k in kinds
    }
    if name.endswith("_source") and forms <= {"pointer", "descriptor"}:
        return "Matrix"
    types = {"pointer": "void const*", "i32": "int32_t", "fp32": "float"}
    if len(forms) != 1 or not forms <= set(types):
        raise SystemExit(
            f"error: {name} must have the same type in all kernels; got {', '.join(sorted(forms))}"
        )
    return types[forms.pop()]


def parameters_header(kernels: list[Kernel]) -> str:
    """Return a C++ header with the run-time parameters of all kernels, by name."""
    kinds: dict[str, set[str]] = {}
    for kernel in kernels:
        for name, kind in kernel["arguments"].items():
            kinds.setdefault(name, set()).add(kind)
    members = "".join(
        f"    static constexpr TypedParameter<{value_type(name, kinds[name])}> {name}{{{i}}};\n"
        for i, name in enumerate(sorted(kinds))
    )
    names = ", ".join(f'"{name}"' for name in sorted(kinds))
    return (
        '#pragma once\n\n#include "parameter.h"\n\n#include <array>\n\n'
        "namespace nmn::plugin\n{\n\nstruct Parameter\n{\n"
        + members
        + f"    static constexpr std::array<char const*, {len(kinds)}> kNAMES{{{names}}};\n"
        "};\n\n} // namespace nmn::plugin\n"
    )


def constants_header(numbers: dict[str, int | float]) -> str:
    """Return a C++ header with numbers; floats are written as hexadecimal, which is exact."""
    rows = "".join(
        f"constexpr float k{name} = {value.hex()}F;\n"
        if isinstance(value, float)
        else f"constexpr int64_t k{name} = {value};\n"
        for name, value in numbers.items()
    )
    return (
        "#pragma once\n\n#include <cstdint>\n\nnamespace nmn::plugin\n{\n\n"
        f"{rows}\n}} // namespace nmn::plugin\n"
    )


def attribute(name: str, spec: dict[str, Any]) -> str:
    """Return the row of the table for an attribute of an op."""
    kind, length = ATTRIBUTE_TYPES[spec["type"]]
    default = spec["default"]
    if default is None:
        otherwise = "std::nullopt"
    elif spec["type"] == "float":
        otherwise = f"AttributeValue{{{float(default)!r}F}}"
    else:
        numbers = default if isinstance(default, list) else [default]
        otherwise = f"AttributeValue{{std::vector<int32_t>{{{', '.join(map(str, numbers))}}}}}"
    return f'        {{"{name}", nvinfer1::PluginFieldType::{kind}, {length}, {otherwise}}},\n'


def attributes_table(ops: dict[str, dict[str, Any]]) -> str:
    """Return C++ source with the attributes of every op."""
    rows = "".join(
        f'        {{"{op}", {{\n{"".join(attribute(*item) for item in attributes.items())}}}}},\n'
        for op, attributes in ops.items()
    )
    return (
        "std::vector<AttributeSpec> const& attributesOf(std::string_view op)\n{\n"
        "    static auto const& table\n"
        "        = *new std::map<std::string_view, std::vector<AttributeSpec>>{\n"
        f"{rows}    }};\n    return table.at(op);\n}}\n\n"
    )


def type_of(kernel: Kernel) -> str:
    """Return the type of a kernel's input, which is part of its name."""
    match = re.search(r"_(fp32|fp16|bf16)(_|$)", kernel["name"])
    if not match:
        raise SystemExit(f"error: {kernel['name']} must contain its type")
    return TYPES[match[1]]


def constants(kernel: Kernel) -> str:
    """Return the compile-time numbers and flags of a kernel."""
    numbers = {k: int(v) for k, v in kernel["constants"].items() if isinstance(v, int)}
    return ", ".join(f'{{"{name}", {value}}}' for name, value in numbers.items())


def tiles(kernel: Kernel) -> str:
    """Return the tiles of a kernel's tensor descriptors."""
    return ", ".join(
        f"{{CU_TENSOR_MAP_DATA_TYPE_{TILE_TYPES[d['elem_type']]}, "
        f"CU_TENSOR_MAP_SWIZZLE_{SWIZZLES[d['swizzle']]}, {d['elem_size']}, "
        f"{d['block_size'][0]}, {d['block_size'][1]}}}"
        for d in kernel["tensor_descriptors"]
    )


def indices(names: Iterable[str]) -> str:
    """Return the indices of run-time parameters."""
    return ", ".join(f"Parameter::{name}.index" for name in names)


def entry(kernel: Kernel, image: str, *, portable: bool) -> str:
    """Return the row of the table for a kernel."""
    exact = kernel["target"].endswith(("a", "f")) and not portable
    parameters = indices(kernel["arguments"])
    multiples = indices(kernel["divisible_by_16"])
    return (
        f'        {{"{kernel["name"]}", "{kernel["op"]}", nvinfer1::DataType::{type_of(kernel)}, '
        f"{tactic(kernel['name'])}, {kernel['capability']}, {str(exact).lower()}, "
        f'{str(portable).lower()}, {image}, "{kernel["symbol"]}", {kernel["threads"]}U, '
        f"{kernel['shared_bytes']}U,\n            {{{parameters}}},\n            {{{multiples}}},\n"
        f"            {{{constants(kernel)}}},\n            {{{tiles(kernel)}}}}},\n"
    )


def read(folder: Path, file: str, digest: str) -> Path:
    """Return the path of an image, after checking its hash."""
    path = folder / file
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise SystemExit(f"error: {path} must match {MANIFEST}; build the kernels again")
    return path.resolve()


def images(manifest: dict[str, Any], folder: Path) -> list[tuple[Kernel, Path, bool]]:
    """Return every kernel with the path of its image, and whether that is PTX."""
    kernels = manifest["kernels"]
    embedded = [(k, read(folder, k["file"], k["sha256"]), False) for k in kernels]
    portable = max((k["capability"] for k in kernels if k["capability"] < 90), default=None)
    for kernel in kernels:
        file = f"ptx/{kernel['name']}.ptx"
        if kernel["capability"] == portable:
            embedded.append((kernel, read(folder, file, manifest["ptx"][file]), True))
    return embedded


def assembly(paths: list[Path]) -> str:
    """Return assembler source with all images. Each is zero-terminated, as PTX must be."""
    rows = [
        f'.balign 64\nimage_{i}:\n.incbin "{path}"\n.byte 0\n.hidden image_{i}\n.globl image_{i}\n'
        for i, path in enumerate(paths)
    ]
    return ".section .rodata\n" + "".join(rows) + '.section .note.GNU-stack,"",%progbits\n'


def table(
    embedded: list[tuple[Kernel, Path, bool]],
    ops: dict[str, dict[str, Any]],
    digest: str,
    description: str,
) -> str:
    """Return C++ source with the tables of kernels and attributes."""
    declared = "".join(f"extern unsigned char const image_{i}[];\n" for i in range(len(embedded)))
    rows = "".join(
        entry(kernel, f"image_{i}", portable=portable)
        for i, (kernel, _, portable) in enumerate(embedded)
    )
    return (
        '#include "attributes.h"\n#include "kernel.h"\n\n#include <map>\n\nextern "C"\n{\n'
        + declared
        + "}\n\n"
        "namespace nmn::plugin\n{\n\n"
        f'char const* const kMANIFEST_HASH = "{digest}";\n'
        f'char const* const kKERNELS_DESCRIPTION = R"({description})";\n\n'
        "std::vector<Kernel> const& kernels()\n{\n"
        "    // Never destroyed: threads may run inference until the process ends.\n"
        "    static auto const& table = *new std::vector<Kernel>{\n"
        + rows
        + "    };\n    return table;\n}\n\n"
        + attributes_table(ops)
        + "} // namespace nmn::plugin\n"
    )


def main(folder: Path, out: Path) -> None:
    """Read the manifest and write the generated sources."""
    text = (folder / MANIFEST).read_bytes()
    manifest = json.loads(text)
    # Other kernels are for PyTorch only.
    manifest["kernels"] = [k for k in manifest["kernels"] if k["op"] in ("", *manifest["ops"])]
    if not manifest["kernels"]:
        raise SystemExit(f"error: {MANIFEST} must contain kernels; build them")
    names = {kernel["name"] for kernel in manifest["kernels"]}
    if len({tactic(name) for name in names}) != len(names):
        raise SystemExit("error: two kernels have the same tactic; rename one")
    for kernel in manifest["kernels"]:
        check(kernel)
    embedded = images(manifest, folder)
    description = {
        "triton": manifest["triton"],
        "capabilities": sorted({kernel["capability"] for kernel in manifest["kernels"]}),
        "ptx": max((k["capability"] for k, _, portable in embedded if portable), default=None),
        "kernels": len(manifest["kernels"]),
    }
    digest = hashlib.sha256(text).hexdigest()[:16]
    fragment = json.dumps(description)[1:-1]
    files = {
        "kernel_parameters.h": parameters_header(manifest["kernels"]),
        "host_constants.h": constants_header(manifest["constants"]),
        "kernel_images.S": assembly([path for _, path, _ in embedded]),
        "kernel_table.cpp": table(embedded, manifest["ops"], digest, fragment),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_text(content)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (KeyError, ValueError) as error:
        raise SystemExit(
            f"error: {MANIFEST} must have the format that this version of nmn-export writes; "
            f"got {error!r}; build the kernels again"
        ) from error
