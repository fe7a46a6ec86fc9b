import itertools
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import nmn_export.graph.file
from nmn_export.errors import NmnExportError
from nmn_export.graph.capture import capture
from nmn_export.graph.file import METADATA_PREFIX, load, save
from nmn_export.graph.fold import fold
from nmn_export.layers import YatDense
from nmn_export.runtime.arrays import to_numpy
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner

SIZES = (12, 40, 7)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(4)
    return fold(nn.Sequential(*(YatDense(k, n) for k, n in itertools.pairwise(SIZES))))


@pytest.fixture(scope="module")
def captured(network: nn.Module) -> onnx.ModelProto:
    graph = capture(network, {"x": torch.randn(2, SIZES[0])}, {"x": {0: "n"}}, 18, False)
    return ir.to_proto(graph)


@pytest.fixture
def graph(captured: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(captured)


@pytest.fixture
def file(graph: ir.Model, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    save(graph, path)
    return path


@pytest.fixture
def large(graph: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose weights exceed the threshold, which is lowered for the test."""
    monkeypatch.setattr(nmn_export.graph.file, "EXTERNAL_DATA_THRESHOLD", 1000)
    folder = tmp_path / "folder"
    folder.mkdir()
    save(graph, folder / "model.onnx")
    return folder / "model.onnx"


def refusal(path: Path) -> str:
    with pytest.raises(NmnExportError) as raised:
        load(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


def relocate(path: Path, **entries: str) -> None:
    """Change the location, offset or length of the model's first external tensor."""
    model = onnx.load(path, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    for entry in tensor.external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


def test_a_small_model_is_one_file(file: Path, network: nn.Module, tmp_path: Path) -> None:
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in load(file).graph.initializer}
    for name, tensor in network.named_buffers():
        assert np.array_equal(weights[name], tensor.numpy())


def test_a_large_model_has_its_weights_in_a_second_file(large: Path, network: nn.Module) -> None:
    assert sorted(p.name for p in large.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    bare = onnx.load(large, load_external_data=False)
    assert any(t.external_data for t in bare.graph.initializer)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in load(large).graph.initializer}
    for name, tensor in network.named_buffers():
        assert np.array_equal(weights[name], tensor.numpy())


def test_a_large_model_runs_after_its_folder_is_moved(
    large: Path, network: nn.Module, tmp_path: Path
) -> None:
    x = torch.randn(3, SIZES[0])
    moved = large.parent.rename(tmp_path / "elsewhere") / large.name
    y = OnnxRuntimeRunner(moved).run({"x": to_numpy(x)})["output"]
    torch.testing.assert_close(torch.from_numpy(y), network(x), rtol=1e-4, atol=1e-6)


def test_missing_external_data_is_named(large: Path) -> None:
    (large.parent / "model.onnx.data").unlink()
    assert refusal(large) == (
        "External data must lie beside the model; got no file 'model.onnx.data' in "
        f"'{large.parent}'. Copy it there together with the model."
    )


def test_external_data_that_is_cut_off_is_refused_with_its_size(large: Path) -> None:
    data = large.parent / "model.onnx.data"
    size = data.stat().st_size
    os.truncate(data, size - 1)
    assert refusal(large) == (
        "External data must be as long as the model requires; "
        f"got {size - 1} bytes in 'model.onnx.data', {size} needed. "
        "Copy it again; the last copy was cut off."
    )


@pytest.mark.parametrize("absolute", [False, True])
def test_external_data_outside_of_the_folder_is_not_read(large: Path, absolute: bool) -> None:
    outside = large.parent.parent / "secret.data"
    (large.parent / "model.onnx.data").rename(outside)
    location = str(outside) if absolute else "../secret.data"
    relocate(large, location=location)
    message = refusal(large)
    assert message.startswith(
        f"External data must lie in the folder of the model; got '{location}' for '"
    )
    assert message.endswith("unless you trust its author; export it again.")


def test_a_link_to_data_outside_of_the_folder_is_not_followed(large: Path) -> None:
    data = large.parent / "model.onnx.data"
    data.rename(large.parent.parent / "secret.data")
    data.symlink_to("../secret.data")
    message = refusal(large)
    assert message.startswith(
        "External data must lie in the folder of the model; got 'model.onnx.data' for '"
    )


@pytest.mark.parametrize(
    "entries",
    [{"offset": "-8"}, {"offset": "many"}, {"length": "-1"}, {"length": "4"}, {"length": "all"}],
    ids=lambda entries: "-".join(*entries.items()),
)
def test_a_wrong_offset_or_length_of_external_data_is_refused(
    large: Path, entries: dict[str, str]
) -> None:
    relocate(large, **entries)
    ((key, value),) = entries.items()
    message = refusal(large)
    assert message.startswith("The offset and length of external data must match its tensor; got ")
    assert f"{key} {value} " in message
    assert message.endswith("The file is damaged; export it again.")


def test_external_data_past_the_end_of_its_file_is_refused(large: Path) -> None:
    relocate(large, offset="1000000")
    assert refusal(large).startswith("External data must be as long as the model requires; got ")


def test_external_data_without_a_file_name_is_refused(large: Path) -> None:
    relocate(large, location="")
    assert refusal(large).startswith("External data must lie beside the model; got no file ''")


def test_external_data_of_a_constant_must_lie_in_the_folder_too(file: Path) -> None:
    model = onnx.load(file)
    tensor = TensorProto(name="stolen", data_type=TensorProto.UINT8, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (file.parent.parent / "secret").write_bytes(b"1234")
    model.graph.node.append(helper.make_node("Constant", [], ["stolen"], value=tensor))
    file.write_bytes(model.SerializeToString())
    message = refusal(file)
    assert message.startswith("External data must follow the rules of ONNX; got ")
    assert "'../secret' points outside the directory" in message
    assert message.endswith("unless you trust its author; export it again.")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    expected = f"The model must be an ONNX file; got no file '{path}'. Check the path."
    assert refusal(path) == expected


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("The model must be an ONNX file; got no file '")


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_refused(file: Path, kept: float) -> None:
    os.truncate(file, int(kept * file.stat().st_size))
    assert refusal(file) == (
        "The model must be an ONNX file written by nmn-export; got a file that is not ONNX or is "
        f"cut off: '{file}'. Export it with `nmn-export export`."
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"import torch\n", b"PK\x03\x04 not a model", bytes(range(256)), b"\n" * 40],
    ids=["empty", "text", "zip", "bytes", "newlines"],
)
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert refusal(path).startswith("The model must be an ONNX file written by nmn-export; got ")


def test_an_onnx_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    model = helper.make_model(
        helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "", [x], [y])
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert refusal(path) == (
        f"The model must be an ONNX file written by nmn-export; got an ONNX file from elsewhere: "
        f"'{path}'. Export it with `nmn-export export`."
    )
    model.metadata_props.add(key=METADATA_PREFIX + "source", value="ours, inlined")
    onnx.save(model, path)
    assert load(path).graph.node[0].op_type == "Neg"
