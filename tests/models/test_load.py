import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file

from nmn_export import NmnExportError, parameter_hash
from nmn_export.layers import YatDense
from nmn_export.models.load import load_model

SOURCE = """
import torch
from nmn_export.layers import YatDense

def net():
    return torch.nn.Sequential(YatDense(4, 3))

instance = net()
number = 3

def broken():
    raise RuntimeError("no data set here")

def wants(size):
    return net()
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "my_model.py"
    path.write_text(SOURCE)
    return path


def net():
    return torch.nn.Sequential(YatDense(4, 3))


@pytest.mark.parametrize("name", ["net", "instance"])
def test_a_file_may_hold_a_factory_or_a_module(source, name):
    assert isinstance(load_model(f"{source}:{name}")[0], YatDense)


def test_a_package_may_hold_a_factory(source, monkeypatch):
    monkeypatch.syspath_prepend(source.parent)
    assert isinstance(load_model("my_model:net")[0], YatDense)
    sys.modules.pop("my_model")


def test_without_weights_a_model_is_the_same_every_time(source):
    assert parameter_hash(load_model(f"{source}:net")) == parameter_hash(
        load_model(f"{source}:net")
    )
    state = torch.random.get_rng_state()
    load_model(f"{source}:net")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "write",
    [
        lambda state, path: save_file(state, path.with_suffix(".safetensors")),
        lambda state, path: torch.save(state, path.with_suffix(".pt")),
        lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path.with_suffix(".pt")),
        lambda state, path: torch.save(
            {"model": {f"module.{k}": v for k, v in state.items()}}, path.with_suffix(".pt")
        ),
    ],
    ids=["safetensors", "pt", "wrapped", "data parallel"],
)
def test_checkpoints_of_every_usual_kind_load(source, tmp_path, write):
    state = net().state_dict()
    write(state, tmp_path / "weights")
    path = next(tmp_path.glob("weights.*"))
    loaded = load_model(f"{source}:net", path)
    assert torch.equal(loaded[0].weight, state["0.weight"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("aether-resnet19", "Did you mean aether-resnet18"),
        ("nothing-like-it", "is a name from the zoo"),
        ("{source}:nets", "must define 'nets'.*Did you mean net"),
        ("{source}:number", "must be or return a torch.nn.Module; got int"),
        ("{source}:broken", "callable without arguments; got RuntimeError: no data set here"),
        ("{source}:wants", "callable without arguments; got TypeError"),
        ("no/such/file.py:net", "file must exist"),
        ("no_such_package:net", "must be importable; got ModuleNotFoundError"),
    ],
)
def test_invalid_models_are_reported(source, spec, message):
    with pytest.raises(NmnExportError, match=message):
        load_model(spec.format(source=source))


def test_a_file_with_a_syntax_error_is_reported(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("def net(:")
    with pytest.raises(NmnExportError, match="must be importable; got SyntaxError"):
        load_model(f"{path}:net")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"not a checkpoint", "cannot be read"),
        (pickle.dumps(Bomb()), "Pickled objects are not run"),
    ],
    ids=["empty", "text", "pickle"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_corrupt_checkpoint_is_reported_and_never_executed(
    source, tmp_path, content, message, suffix
):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(NmnExportError, match=message):
        load_model(f"{source}:net", path)


def test_a_pickled_module_is_not_executed(source, tmp_path):
    torch.save({"weight": Bomb()}, tmp_path / "w.pt")
    with pytest.raises(NmnExportError, match="Pickled objects are not run"):
        load_model(f"{source}:net", tmp_path / "w.pt")


def test_a_missing_checkpoint_is_reported(source, tmp_path):
    with pytest.raises(NmnExportError, match="no file"):
        load_model(f"{source}:net", tmp_path / "w.pt")


def test_a_checkpoint_without_tensors_by_name_is_reported(source, tmp_path):
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(NmnExportError, match="tensors by name; got list"):
        load_model(f"{source}:net", tmp_path / "w.pt")


def test_weights_that_do_not_fit_are_named(source, tmp_path):
    torch.save({"0.weight": torch.zeros(3, 5), "1.weight": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(NmnExportError) as caught:
        load_model(f"{source}:net", tmp_path / "w.pt")
    for part in (
        "missing: 0.alpha, 0.bias",
        "unknown: 1.weight",
        r"0.weight (3, 5) instead of (3, 4)",
    ):
        assert part in str(caught.value)
