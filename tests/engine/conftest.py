"""Files and engines that these tests share. AetherResNet-18 is built once per set of options."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nmn_export import Built, build, export
from nmn_export.engine import plugin_library
from nmn_export.models import aether_resnet18

CAPABILITIES = (89, 120)


@pytest.fixture(scope="session")
def aether_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AetherResNet-18 for images of 224×224 with a dynamic batch."""
    path = tmp_path_factory.mktemp("aether") / "aether.onnx"
    torch.manual_seed(0)
    example = torch.randn(2, 3, 224, 224)
    export(aether_resnet18().eval(), example, path, dynamic_shapes={"x": {0: "batch"}}, check=False)
    return path


@pytest.fixture(scope="session")
def aether_engine(
    aether_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Built]:
    """Return an engine of AetherResNet-18, built once for each set of options."""
    folder, built = tmp_path_factory.mktemp("engines"), {}

    def engine(**options: object) -> Built:
        key = repr(options)
        if key not in built:
            built[key] = build(aether_file, folder / f"{len(built)}.engine", **options)
        return built[key]

    return engine


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which the plugin library has not been built."""
    monkeypatch.setattr(plugin_library, "INSTALLED", tmp_path / "none" / "libnmn_plugin.so")
    monkeypatch.delenv(plugin_library.VARIABLE, raising=False)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder in which temporary files are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder
