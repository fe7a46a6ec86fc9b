import json

import onnx
import pytest
from onnx import TensorProto, helper

from nmn_export import NmnExportError
from nmn_export.engine.shapes import ShapeRange, parse_shapes, ranges
from nmn_export.graph.file import EXAMPLE_SHAPES


def model(
    examples: dict[str, list[int]] | None = None, **shapes: list[int | str | None]
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    proto = helper.make_model(helper.make_graph([], "g", values, []))
    if examples:
        proto.metadata_props.add(key=EXAMPLE_SHAPES, value=json.dumps(examples))
    return proto


IMAGE = {"x": ["batch", 3, 8, 8]}


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("x:1x3x224x224", {"x": (1, 3, 224, 224)}),
        ("x:1x3,y:8", {"x": (1, 3), "y": (8,)}),
        ("input:0:2x4", {"input:0": (2, 4)}),
        ("'input:0':2x4, y:1", {"input:0": (2, 4), "y": (1,)}),
    ],
)
def test_shapes_are_read_as_trtexec_reads_them(text, shapes):
    assert parse_shapes("--min-shapes", text) == shapes


@pytest.mark.parametrize("text", ["", "x", "x:", "x:1x", "x:-1x3", "x:axb", "x=1x3", "x:1,x:2"])
def test_invalid_shapes_are_reported(text):
    with pytest.raises(NmnExportError, match=r"--min-shapes is NAME:SIZExSIZE") as caught:
        parse_shapes("--min-shapes", text)
    assert f"'{text}'" in str(caught.value)


SMALL, MIDDLE, LARGE = (1, 3, 8, 8), (4, 3, 8, 8), (9, 3, 8, 8)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (MIDDLE, (MIDDLE, MIDDLE, MIDDLE)),
        ((None, MIDDLE, None), (MIDDLE, MIDDLE, MIDDLE)),
        ((SMALL, MIDDLE, LARGE), (SMALL, MIDDLE, LARGE)),
        ((SMALL, None, LARGE), (SMALL, LARGE, LARGE)),
        ((SMALL, MIDDLE, None), (SMALL, MIDDLE, MIDDLE)),
        ((None, None, LARGE), (LARGE, LARGE, LARGE)),
        ((SMALL, None, None), (SMALL, SMALL, SMALL)),
    ],
)
def test_missing_shapes_are_filled_in(given, expected):
    assert ranges(model(**IMAGE), {"x": given}) == {"x": ShapeRange(*expected)}


@pytest.mark.parametrize(
    ("examples", "expected"),
    [
        ({"x": [2, 3, 8, 8]}, (1, 2, 8)),
        ({"x": [32, 3, 8, 8]}, (1, 32, 32)),
        (None, (1, 1, 8)),
    ],
)
def test_the_default_batch_range_is_one_to_eight(examples, expected):
    found = ranges(model(examples, **IMAGE), {})["x"]
    assert (found.min[0], found.opt[0], found.max[0]) == expected
    assert found.opt[1:] == (3, 8, 8)


@pytest.mark.parametrize("stored", ['{"x": "oops"', '{"x": "y"}', "[]", "null", "["])
def test_damaged_metadata_is_reported(stored):
    proto = model(**IMAGE)
    proto.metadata_props.add(key=EXAMPLE_SHAPES, value=stored)
    with pytest.raises(NmnExportError, match="must be a shape for each input; got") as caught:
        ranges(proto, {})
    assert stored in str(caught.value)


@pytest.mark.parametrize("shape", [[0], [0, 3, 8, 8]])
def test_example_shapes_that_do_not_fit_the_input_are_reported(shape):
    with pytest.raises(NmnExportError, match=r"must be a shape for each input; got 0.* for 'x'"):
        ranges(model({"x": shape}, **IMAGE), {})


def test_an_input_without_dynamic_axes_needs_nothing():
    assert ranges(model(x=[2, 3]), {}) == {"x": ShapeRange((2, 3), (2, 3), (2, 3))}


def test_initializers_that_are_listed_as_inputs_are_none():
    proto = model(x=["n", 3], w=[3])
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3]))
    assert set(ranges(proto, {})) == {"x"}


TWO = {"x": ["batch", 3], "y": ["batch", "length"]}

WRONG = {
    "name": (IMAGE, {"z": SMALL}, "The model's inputs are x; got shapes of 'z'"),
    "rank": (IMAGE, {"x": (1, 3, 8)}, "Input 'x' has shape batchx3x8x8; got min shape 1x3x8"),
    "fixed axis": (IMAGE, {"x": (1, 4, 8, 8)}, "has shape batchx3x8x8; got min shape 1x4x8x8"),
    "size zero": (IMAGE, {"x": ((0, 3, 8, 8), SMALL, SMALL)}, "got min shape 0x3x8x8"),
    "huge size": (IMAGE, {"x": (SMALL, SMALL, (2**31, 3, 8, 8))}, "got max shape 2147483648x3"),
    "order": (IMAGE, {"x": (SMALL, LARGE, MIDDLE)}, "must satisfy min <= opt <= max; got 1x3x8x8"),
    "form": (IMAGE, {"x": (SMALL, LARGE)}, "are one shape, or min, opt and max"),
    "nothing said": (
        TWO,
        {},
        "input 'y' with the dynamic axes 0 (batch), 1 (length)",
    ),
    "nothing said of an axis": (
        {"x": [1, "n"]},
        {},
        "input 'x' with the dynamic axes 1 (n)",
    ),
    "unnamed axis": (
        {"x": [1, None]},
        {},
        "input 'x' with the dynamic axes 1 (axis 1)",
    ),
    "one name, two sizes": (
        TWO,
        {"x": (1, 3), "y": (2, 3)},
        "'batch' must have the same sizes in min, opt and max; got (1, 1, 1) for input 'x'",
    ),
}


@pytest.mark.parametrize(("shapes", "given", "message"), WRONG.values(), ids=WRONG)
def test_wrong_shapes_are_reported(shapes, given, message):
    with pytest.raises(NmnExportError) as caught:
        ranges(model(**shapes), given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_range_is_written_as_people_write_shapes():
    assert str(ShapeRange(SMALL, MIDDLE, LARGE)) == "1x3x8x8 to 9x3x8x8, tuned for 4x3x8x8"
    assert str(ShapeRange(SMALL, SMALL, SMALL)) == "1x3x8x8"
