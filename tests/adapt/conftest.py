"""All supported releases of `nmn`, imported one at a time."""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]

CURRENT = "0.3.5"
"""The installed release."""


def _listed_in_makefile(variable: str) -> list[str]:
    lines = (REPOSITORY / "Makefile").read_text()
    found = re.search(rf"^{variable} := (.+)$", lines, re.MULTILINE)
    assert found, f"the Makefile has no {variable}"
    return found[1].split()


RELEASES = [*_listed_in_makefile("NMN_RELEASES"), CURRENT]

EARLY_RELEASES = _listed_in_makefile("NMN_EARLY_RELEASES")


def at_least(release: str, minimum: str) -> bool:
    """Return whether a release is not earlier than another one."""
    numbers, least = ([int(n) for n in r.split(".")] for r in (release, minimum))
    return numbers >= least


# Imports of upstream's training script that its network does not need.
EXAMPLE_IMPORTS = (
    "PIL",
    "datasets",
    "matplotlib",
    "matplotlib.pyplot",
    "seaborn",
    "sklearn",
    "sklearn.metrics",
    "torchvision",
    "wandb",
)


@contextmanager
def modules_swapped(**modules: ModuleType) -> Iterator[None]:
    """Replace modules in `sys.modules`, and restore them afterwards."""
    before = {name: sys.modules.pop(name, None) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


@contextmanager
def only_release(release: str) -> Iterator[ModuleType]:
    """Import `nmn.torch` of one release, and restore the previous one afterwards."""

    def take_out() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name == "nmn" or name.startswith("nmn.")]
        return {name: sys.modules.pop(name) for name in names}

    location = None if release == CURRENT else REPOSITORY / ".venv" / f"nmn-{release}"
    if location is not None and not (location / f"nmn-{release}.dist-info").is_dir():
        pytest.fail(f"nmn {release} is missing at {location}; `make clean test` unpacks it there")
    if location is None and metadata.version("nmn") != release:
        pytest.fail(f"these tests need nmn {release}; got {metadata.version('nmn')}")
    before, path = take_out(), list(sys.path)
    if location is not None:
        sys.path.insert(0, str(location))
    try:
        try:
            module = importlib.import_module("nmn.torch")
        except ImportError as error:
            pytest.fail(f"nmn {release} cannot be imported ({error}); install the extra `nmn`")
        found = Path(sys.modules["nmn"].__file__ or "")
        if location is not None and not found.is_relative_to(location):
            pytest.fail(f"nmn {release} was imported from {found}")
        yield module
    finally:
        sys.path[:] = path
        take_out()
        sys.modules.update(before)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: these tensors are small, and waiting for threads dominates."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture(scope="module", params=EARLY_RELEASES)
def early_release(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let `nmn` be an early release, whose layers are in various modules."""
    with only_release(request.param):
        yield request.param


@pytest.fixture(scope="module")
def nmn_torch(release: str) -> Iterator[ModuleType]:
    with only_release(release) as module:
        yield module


@pytest.fixture(scope="module")
def resnet_example(nmn_torch: ModuleType) -> ModuleType:
    with modules_swapped(**{name: MagicMock() for name in EXAMPLE_IMPORTS}):
        return importlib.import_module("nmn.torch.examples.vision.resnet_training")
