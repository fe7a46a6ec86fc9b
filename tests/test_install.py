"""Which packages `make` installs, and which the package requires."""

from importlib import metadata

import torch


def test_no_cuda_packages_on_a_machine_without_a_gpu():
    names = {distribution.name.lower() for distribution in metadata.distributions()}
    cuda = [name for name in names if name.startswith("nvidia-")]
    assert torch.cuda.is_available() or not cuda


def test_the_base_install_is_light():
    required = [r for r in metadata.requires("nmn-export") or [] if "extra ==" not in r]
    names = {r.split(">")[0].split("=")[0].replace("_", "-") for r in required}
    assert names == {
        "torch", "numpy", "onnx", "onnxscript", "onnx-ir", "safetensors", "typer", "rich",
    }  # fmt: skip
