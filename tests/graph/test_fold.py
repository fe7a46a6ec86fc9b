import pytest
import torch
from torch import nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv2d, YatDense, YatLayer
from nmn_export.layers.folded import Foldable, Folded, FoldedYat, FoldedYatConv, FoldedYatDense


class Net(nn.Module):
    """Layers of all kinds, one of them in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Sequential(YatConv2d(4, 4, 3, padding=1), nn.Dropout(0.5))
        self.again = self.block[0]
        self.head = YatDense(4, 2, weight_normalized=True, learnable_epsilon=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.block(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(2)
    return Net()


def images() -> torch.Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(3))


def test_every_layer_is_one_op_in_its_place(net: Net) -> None:
    folded = fold(net)
    kinds = {name: type(m) for name, m in folded.named_modules() if isinstance(m, FoldedYat)}
    assert kinds == {"block.0": FoldedYatConv, "head": FoldedYatDense}
    assert folded.again is folded.block[0]
    assert not any(isinstance(m, YatLayer) for m in folded.modules())


def test_the_folded_network_computes_the_same_as_the_network_in_eval_mode(net: Net) -> None:
    folded = fold(net)
    assert not folded.training
    torch.testing.assert_close(folded(images()), net.eval()(images()), rtol=1e-5, atol=1e-7)


def test_hooks_of_a_layer_are_kept(net: Net) -> None:
    net.head.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    net.head.register_forward_hook(lambda module, inputs, output: 2 * output)
    torch.testing.assert_close(fold(net)(images()), net.eval()(images()), rtol=1e-5, atol=1e-7)


def test_the_network_is_not_changed(net: Net) -> None:
    before = {name: t.clone() for name, t in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    fold(net, torch.float16)
    assert [m.training for m in net.modules()] == modes
    assert all(p.requires_grad for p in net.parameters())
    assert isinstance(net.head, YatDense)
    after = net.state_dict()
    assert all(torch.equal(after[name], t) for name, t in before.items())


def test_tensors_that_need_no_folding_are_shared(net: Net) -> None:
    folded = fold(net)
    assert folded.stem.weight is net.stem.weight
    assert folded.norm.running_mean is net.norm.running_mean
    assert folded.block[0].weight.data_ptr() == net.block[0].weight.data_ptr()
    assert folded.head.weight.data_ptr() != net.head.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_dtype_converts_everything_and_shares_nothing(net: Net, dtype: torch.dtype) -> None:
    folded = fold(net, dtype)
    tensors = [*folded.parameters(), *folded.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {dtype}
    own = {t.data_ptr() for t in (*net.parameters(), *net.buffers())}
    assert not own & {t.data_ptr() for t in tensors}
    y = folded(images().to(dtype))
    assert y.dtype == dtype
    expected = net.eval()(images()).to(dtype)
    torch.testing.assert_close(y, expected, rtol=0.1, atol=0.02)


def test_a_dtype_wins_over_that_of_the_layers() -> None:
    folded = fold(nn.Sequential(YatDense(3, 2, dtype=torch.float32)), torch.float16)
    assert folded(torch.ones(1, 3, dtype=torch.float16)).dtype == torch.float16


def test_folding_is_done_before_rounding() -> None:
    layer = YatDense(64, 4, weight_normalized=True)
    with torch.no_grad():
        layer.weight.mul_(1e4)  # its squares would overflow float16
    folded = fold(layer, torch.float16)
    expected = nn.functional.normalize(layer.weight.detach(), dim=1).half()
    torch.testing.assert_close(folded.weight, expected, rtol=1e-3, atol=1e-6)


def test_a_model_may_be_a_layer_itself() -> None:
    layer = YatDense(3, 2).eval()
    x = torch.randn(2, 3)
    folded = fold(layer)
    assert isinstance(folded, FoldedYatDense)
    torch.testing.assert_close(folded(x), layer(x).detach())


def test_a_folded_layer_takes_the_arguments_of_the_layer() -> None:
    folded = fold(nn.Sequential(YatConv2d(1, 1, 1)))[0]
    x = torch.randn(1, 1, 2, 2)
    assert torch.equal(folded(x, deterministic=True), folded(x))


class FoldedGate(Folded):
    """A product of a linear layer and the layer inside, whose gain is a number."""

    def __init__(self, inside: nn.Module, linear: nn.Module, gain: float) -> None:
        super().__init__()
        self.inside, self.linear, self.gain = inside, linear, gain
        self.dtype = torch.float32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * self.inside(x) * self.linear(x if self.dtype is None else x.float())


class Gate(Foldable):
    """A layer that holds a ⵟ layer and a module that the network also uses elsewhere."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.inside, self.linear = YatDense(3, 3), linear
        self.log_gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.log_gain.exp() * self.inside(x) * self.linear(x)

    def fold(self) -> FoldedGate:
        return FoldedGate(self.inside, self.linear, self.log_gain.exp().item())


def gates() -> nn.Sequential:
    torch.manual_seed(4)
    linear = nn.Linear(3, 3)
    dense = YatDense(3, 3)
    return nn.Sequential(Gate(linear), linear, dense, Gate(dense))


def test_layers_inside_a_folded_layer_are_folded_and_shared_modules_stay_shared() -> None:
    net, x = gates(), torch.randn(2, 3)
    folded = fold(net)
    assert isinstance(folded[0], FoldedGate)
    assert isinstance(folded[0].inside, FoldedYatDense)
    assert isinstance(folded[2], FoldedYatDense)
    assert folded[3].linear is folded[2]
    assert folded[0].linear is folded[1]
    assert folded[0].linear is not net[1]
    assert folded[1].weight is net[1].weight
    torch.testing.assert_close(folded(x), net(x).detach(), rtol=1e-5, atol=1e-7)
    assert net.training
    assert net[1].training


def test_a_dtype_wins_over_that_of_any_folded_layer() -> None:
    folded = fold(gates(), torch.float16)
    assert folded(torch.ones(1, 3, dtype=torch.float16)).dtype == torch.float16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(net: Net, value: float) -> None:
    with torch.no_grad():
        net.head.weight[0, 1] = value
        net.norm.running_var[2] = value
    with pytest.raises(NmnExportError) as raised:
        fold(net)
    assert str(raised.value) == (
        "Weights must be finite; got NaN or infinity in head.weight, norm.running_var. "
        "Train again from a checkpoint before the divergence."
    )


def test_the_first_of_many_weights_that_are_not_finite_are_named() -> None:
    net = nn.Sequential(*[nn.Linear(2, 2, bias=False) for _ in range(7)])
    with torch.no_grad():
        for layer in net:
            layer.weight.fill_(float("nan"))
    names = ", ".join(f"{i}.weight" for i in range(5))
    with pytest.raises(NmnExportError, match=rf"got NaN or infinity in {names} …\. Train again"):
        fold(net)


def test_integers_are_not_asked_to_be_finite() -> None:
    net = nn.BatchNorm1d(2)
    assert fold(net).num_batches_tracked.dtype == torch.int64
