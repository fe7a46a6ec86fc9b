import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nmn_export.ops import OPS

ROOT = Path(__file__).parents[1]

PACKAGE = "nmn_export"

LEVELS = (
    {"errors"},
    {"ops"},
    {"layers"},
    {"models"},
    {"adapt"},
    {"graph", "kernels"},
    {"engine"},
    {"runtime"},
    {"report"},
    {"api"},
    {"__init__"},
    {"cli"},
)
"""Folders of the package by level. A folder may import those of lower levels."""

LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))

MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in SOURCES}

MAX_LINES = 300


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(source: str) -> Iterator[str]:
    """Yield the full name of each module that a file imports, anywhere in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = whole in MODULES or f"{whole}.__init__" in MODULES
                yield whole if is_module else node.module


def room_of(module: str) -> str | None:
    """Return the folder of a module. That of the package itself is `__init__`."""
    first, *rest = module.split(".")
    return (rest[0] if rest else "__init__") if first == PACKAGE else None


def wrong_imports(room: str, source: str) -> list[str]:
    """Return the forbidden imports of a file in a folder."""
    found = []
    for module in imported(source):
        other = room_of(module)
        if other is not None and other != room and LEVEL[other] >= LEVEL[room]:
            found.append(module)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT / PACKAGE).with_suffix("").parts[0]
    assert room in LEVEL, f"'{room}' has no level; say in LEVELS what may import it"
    assert not wrong_imports(room, path.read_text())


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("ops", "from nmn_export.layers import YatDense", ["nmn_export.layers"]),
        ("ops", "def f():\n    import nmn_export.graph.file", ["nmn_export.graph.file"]),
        (
            "graph",
            "from nmn_export.kernels.dense.launch import x",
            ["nmn_export.kernels.dense.launch"],
        ),
        ("graph", "from nmn_export import api", ["nmn_export.api"]),
        ("graph", "import nmn_export", ["nmn_export"]),
        ("graph", "from nmn_export import ops, errors", []),
        ("graph", "from nmn_export.graph import yat\nfrom torch import layers", []),
        ("cli", "from nmn_export import api\nfrom nmn_export.errors import NmnExportError", []),
    ],
)
def test_a_wrong_import_would_be_seen(room: str, source: str, wrong: list[str]) -> None:
    assert wrong_imports(room, source) == wrong


def test_only_kernels_import_triton_and_nothing_imports_nmn() -> None:
    for path in SOURCES:
        tops = {module.split(".")[0] for module in imported(path.read_text())}
        assert "nmn" not in tops, place(path)
        assert "triton" not in tops or path.is_relative_to(ROOT / PACKAGE / "kernels"), place(path)


def test_tensorrt_is_imported_through_the_adapter_only() -> None:
    """A plain import would fail where the package is not installed."""
    for path in SOURCES:
        tops = {module.split(".")[0] for module in imported(path.read_text())}
        assert not tops & {"tensorrt", "tensorrt_rtx"}, place(path)


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_its_plugin(op: str) -> None:
    for name in (f"{stem(op)}.h", f"{stem(op)}.cpp", f"{stem(op)}_launch.cpp"):
        assert (ROOT / "plugins/src" / name).is_file(), f"{op} needs plugins/src/{name}"


def stem(op: str) -> str:
    """Return the name of an op's files."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", op.removeprefix("Yat")).lower()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("room", ["ops", "layers", "graph"])
def test_an_op_has_its_stem_in_every_room_and_in_the_tests_of_it(op: str, room: str) -> None:
    name = stem(op)
    for path in (ROOT / PACKAGE / room / f"{name}.py", ROOT / "tests" / room / f"test_{name}.py"):
        assert path.is_file(), f"{op} needs {place(path)}"


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_its_package_of_kernels(op: str) -> None:
    package = ROOT / PACKAGE / "kernels" / stem(op)
    weights = ("weights.py",) * ("W" in OPS[op].inputs)
    for name in ("kernel.py", "launch.py", "variants.py", *weights):
        assert (package / name).is_file(), f"{op} needs {place(package / name)}"
    test = ROOT / f"tests/kernels/test_{stem(op)}.py"
    assert test.is_file(), f"{op} needs {place(test)}"


def test_no_file_is_longer_than_can_be_read_at_once() -> None:
    folders = (PACKAGE, "tests", "benchmarks", "examples", "plugins")
    files = [
        path
        for folder in folders
        for ending in ("py", "cpp", "h")
        for path in sorted((ROOT / folder).rglob(f"*.{ending}"))
    ]
    lengths = {place(path): len(path.read_text().splitlines()) for path in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}
