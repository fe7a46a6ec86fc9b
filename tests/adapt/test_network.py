"""Whole networks: those of upstream, and networks that hold, share and hook layers."""

import copy
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nmn_export.adapt import adapt
from nmn_export.layers import YatConv2d, YatDense, YatLayer
from tests.adapt.agreement import TOLERANCE, assert_same, assert_same_tensors


def layers_of(package: str, model: nn.Module) -> list[nn.Module]:
    """Return the ⵟ layers in `model` that come from `package`."""
    return [m for m in model.modules() if type(m).__module__.startswith(package)]


def fingerprint(model: nn.Module) -> list[tuple[int, type, list[str]]]:
    """Return the modules of `model` and their attributes."""
    return [(id(m), type(m), list(vars(m))) for m in model.modules()]


VARIANTS = {
    "plain": {},
    "normalised": {"weight_normalized": True, "constant_alpha": True},
    "tied": {"tie_kernel_bank": True, "tie_output_bank": True, "use_dropconnect": True},
    "without alpha": {"use_alpha": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_upstream_resnet(resnet_example: ModuleType, variant: str) -> None:
    torch.manual_seed(0)
    for bank in (resnet_example.YatConv2D, resnet_example.YatNMN):
        bank._KERNEL_BANKS.clear()
    theirs = resnet_example.YATConvNet(
        resnet_example.BasicYATBlock, [2, 2, 2, 2], num_classes=10, **VARIANTS[variant]
    ).eval()
    before = fingerprint(theirs)

    ours = adapt(theirs)

    assert fingerprint(theirs) == before
    assert type(ours) is type(theirs)
    assert len(layers_of("nmn_export.layers", ours)) == 9
    assert not layers_of("nmn.torch.layers", ours) + layers_of("nmn.torch.nmn", ours)
    assert_same_tensors(ours, theirs)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_same_network(ours(x), theirs(x), in_float64(theirs, x))


def in_float64(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output of `model` in float64. Layers are converted here: nmn refuses tied ones."""
    wide = copy.deepcopy(model)
    for parameter in wide.parameters():
        parameter.data = parameter.data.double()
    y: Tensor = wide(x.double())
    return y


def assert_same_network(ours: Tensor, theirs: Tensor, truth: Tensor) -> None:
    """Fail unless outputs agree relative to the largest one, up to the rounding of upstream.

    Through nine layers rounding alone takes upstream's float32 about 1e-6 from its own float64.
    """
    largest = truth.abs().max()
    rounding = (theirs - truth).abs().max()
    assert (ours - theirs).abs().max() <= TOLERANCE * largest + rounding


def test_upstream_resnet_in_float64(resnet_example: ModuleType) -> None:
    torch.manual_seed(0)
    theirs = resnet_example.YATConvNet(resnet_example.BasicYATBlock, [1, 1, 1, 1], num_classes=10)
    theirs.double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(adapt(theirs)(x), theirs(x), rtol=1e-9, atol=1e-15)


def test_network_without_nmn_is_returned_itself() -> None:
    ours = nn.Sequential(YatDense(4, 3), nn.Linear(3, 2))
    assert adapt(ours) is ours


def test_nmn_is_not_imported(nmn_torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nmn_torch.YatNMN(4, 3))
    for name in [n for n in sys.modules if n.split(".")[0] == "nmn"]:
        monkeypatch.setitem(sys.modules, name, None)  # so that importing it fails
    assert type(adapt(model)[0]) is YatDense


class Held(nn.Module):
    """Holds layers in every way a module can."""

    def __init__(self, nmn_torch: Any) -> None:
        super().__init__()
        self.table = nmn_torch.YatEmbed(10, 8)
        self.layer = nmn_torch.YatNMN(8, 10, bias=False)
        self.layer.weight = self.table.embedding
        self.again = self.layer
        self.steps = nn.ModuleList([nmn_torch.YatNMN(10, 10), self.layer])
        self.by_name = {"layer": self.layer, "unregistered": [nmn_torch.YatNMN(10, 4)]}
        self.constant = torch.arange(4.0)
        self.cached: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        x = self.by_name["layer"](self.table(ids))
        x = x + self.steps[0](self.again(self.table(ids)))
        self.cached = self.by_name["unregistered"][0](x) + self.constant
        return self.cached


def test_layers_held_in_every_way(nmn_torch: ModuleType) -> None:
    torch.manual_seed(0)
    theirs = Held(nmn_torch).eval()
    ids = torch.randint(10, (3, 5))
    expected = theirs(ids)  # and leaves a tensor with a history, which deepcopy alone refuses
    ours = adapt(theirs)
    assert ours.layer is ours.again is ours.steps[1] is ours.by_name["layer"]
    assert ours.layer.weight is ours.table.embedding is theirs.table.embedding
    assert type(ours.by_name["unregistered"][0]) is YatDense
    assert ours.constant is theirs.constant
    assert_same_tensors(ours, theirs)
    with torch.no_grad():
        assert_same(ours(ids), expected.detach(), tolerance=1e-5)


def test_hooks_and_mode_come_along(nmn_torch: ModuleType) -> None:
    theirs = nn.Sequential(nmn_torch.YatNMN(4, 3), nmn_torch.YatNMN(3, 2)).train()
    theirs[1].eval()
    theirs[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    theirs[0].register_forward_hook(lambda module, inputs, output: output * 2)
    ours = adapt(theirs)
    x = torch.rand(5, 4)
    assert (ours.training, ours[0].training, ours[1].training) == (True, True, False)
    assert_same(ours(x), theirs(x), tolerance=1e-5)
    theirs[0]._forward_hooks.clear()
    assert len(ours[0]._forward_hooks) == 1


def test_gradients_reach_the_shared_parameters(nmn_torch: ModuleType) -> None:
    theirs = nmn_torch.YatConv2D(2, 3, 3)
    ours = adapt(theirs)
    assert type(ours) is YatConv2d
    ours(torch.rand(1, 2, 5, 5)).sum().backward()
    assert all(p.grad is not None for p in theirs.parameters())


def test_random_state_is_left_alone(nmn_torch: ModuleType) -> None:
    model = nn.Sequential(nmn_torch.YatNMN(4, 3))
    state = torch.get_rng_state()
    assert isinstance(adapt(model)[0], YatLayer)
    assert torch.equal(torch.get_rng_state(), state)
