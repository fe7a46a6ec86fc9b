from collections.abc import Sequence

import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import Tensor

from nmn_export.graph.capture import OPSETS
from nmn_export.graph.functions import function
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.attention_enclosure import assert_attention_near_exact
from tests.cases import ATTENTION_CASES, AttentionCase, attention_case, with_dtypes
from tests.graph.attention_networks import one_attention_node, tensors_of
from tests.graph.networks import assert_valid, output_of, runners

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize(
    ("case", "dtype"), with_dtypes(ATTENTION_CASES, torch.float16, torch.bfloat16)
)
def test_the_body_is_near_exact_in_every_runtime(case: AttentionCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    for beside in (
        (),
        ATTENTION_CASES,
    ):  # the variant for this node, and the one that supports all cases
        model = one_attention_node(case, dtype, beside=beside)
        assert_valid(model)
        for runner in runners(model):
            y = output_of(runner, **tensors_of(case, dtype))
            assert y.dtype == dtype
            assert_attention_near_exact(y, case, arguments)


def body_of(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.functions[0].node]


FREE_OF = {
    "plain": {"Reshape", "ReduceMax", "Pow", "Sqrt", "Range"},
    "spherical": {"Reshape", "ReduceMax", "Pow", "Range"},
    "grouped-keys": {"ReduceMax", "Pow", "Sqrt", "Range"},
    "mask-of-keys": {"Reshape", "Pow", "Sqrt", "Range"},
    "causal": {"Reshape", "Pow", "Sqrt"},
    "softermax": {"Reshape", "ReduceMax", "Softmax", "Sqrt", "Range"},
}


@pytest.mark.parametrize("case_id", FREE_OF)
def test_a_body_has_only_what_the_nodes_of_its_model_need(case_id: str) -> None:
    case = attention_case(case_id)
    assert not FREE_OF[case_id] & set(body_of(one_attention_node(case)))
    whole = set(body_of(one_attention_node(case, beside=ATTENTION_CASES)))
    assert set().union(*FREE_OF.values()) <= whole


def variant(model: onnx.ModelProto) -> set[str]:
    """Return the ops of the body that is chosen for the nodes of a model."""
    return {node.op_type for node in function("YatAttention", list(ir.from_proto(model).graph), 18)}


def test_heads_of_unknown_number_may_be_grouped() -> None:
    model = one_attention_node(attention_case("plain"))
    assert "Reshape" not in variant(model)
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "heads"
    assert "Reshape" in variant(model)


def test_a_constant_is_no_mask_only_if_it_is_zero() -> None:
    model = one_attention_node(attention_case("softermax"))
    assert "ReduceMax" not in variant(model)
    model.graph.initializer[0].CopyFrom(
        helper.make_tensor("M", onnx.TensorProto.FLOAT, [1, 1, 1, 1], [0.5])
    )
    assert "ReduceMax" in variant(model)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_opset_gives_the_same_numbers(opset: int, dtype: torch.dtype) -> None:
    case = attention_case("near-competing-keys")
    for beside in ((), ATTENTION_CASES):
        model = one_attention_node(case, dtype, opset, beside)
        assert_valid(model)
        for runner in runners(model):
            y = output_of(runner, **tensors_of(case, dtype))
            assert_attention_near_exact(y, case, case.arguments(dtype))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_shape_and_option_is_near_exact_in_onnx_runtime(data: st.DataObject) -> None:
    groups, per_group = data.draw(st.integers(1, 3), "groups"), data.draw(st.integers(1, 3), "each")
    case = AttentionCase(
        "drawn",
        batch=data.draw(st.integers(1, 3), "batch"),
        heads=groups * per_group,
        key_heads=groups,
        queries=data.draw(st.integers(1, 9), "queries"),
        keys=data.draw(st.integers(1, 9), "keys"),
        features=data.draw(st.integers(1, 9), "features"),
        value_features=data.draw(st.integers(1, 5), "value features"),
        mask=data.draw(st.sampled_from(["none", "keys", "pairs", "heads", "additive"]), "mask"),
        is_causal=data.draw(st.booleans(), "causal"),
        spherical=data.draw(st.booleans(), "spherical"),
        scale=data.draw(st.sampled_from([0.35, 1.3, 0.0]), "scale"),
        epsilon=data.draw(st.sampled_from([1e-5, 0.007, 1.0]), "epsilon"),
    )
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    y = output_of(OnnxRuntimeRunner(one_attention_node(case, dtype)), **tensors_of(case, dtype))
    assert_attention_near_exact(y, case, case.arguments(dtype))


@pytest.mark.parametrize("case_id", ["causal", "one-key-head", "causal-and-mask"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_output_depends_on_later_tokens(case_id: str, dtype: torch.dtype) -> None:
    case = attention_case(case_id)
    inputs = tensors_of(case, dtype)
    for runner in runners(one_attention_node(case, dtype)):
        before = output_of(runner, **inputs)
        for at in (1, case.keys - 1):
            later = {name: t.clone() for name, t in inputs.items()}
            later["K"][:, :, at:] = 100 * later["K"][:, :, at:].flip(-1)
            later["V"][:, :, at:] = -1000
            after = output_of(runner, **later)
            assert torch.equal(after[:, :, :at], before[:, :, :at]), runner.name
            assert not torch.equal(after[:, :, at:], before[:, :, at:]), runner.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_nan_stays_nan_in_its_query(dtype: torch.dtype) -> None:
    case = attention_case("grouped-keys")
    inputs = tensors_of(case, dtype)
    inputs["Q"][0, 1, 2, 3] = float("nan")
    for runner in runners(one_attention_node(case, dtype)):
        y = output_of(runner, **inputs)
        assert y[0, 1, 2].isnan().all(), runner.name
        assert y.isnan().any(-1).sum() == 1, runner.name


EMPTY = ("plain", "grouped-keys", "mask-of-keys", "causal-and-mask", "spherical", "softermax")


def shortened(inputs: dict[str, Tensor], axis: int, names: str) -> dict[str, Tensor]:
    """Cut an axis of some inputs to nothing, unless it broadcasts."""
    return {
        name: t.narrow(axis, 0, 0) if name in names and t.shape[axis] > 1 else t
        for name, t in inputs.items()
    }


@pytest.mark.parametrize("case_id", EMPTY)
@pytest.mark.parametrize("beside", [(), ATTENTION_CASES], ids=["its variant", "for all cases"])
def test_empty_batches_queries_and_keys(case_id: str, beside: Sequence[AttentionCase]) -> None:
    case = attention_case(case_id)
    inputs = tensors_of(case)
    runtime = OnnxRuntimeRunner(one_attention_node(case, beside=beside))
    shape = output_of(runtime, **inputs).shape
    assert output_of(runtime, **shortened(inputs, 0, "QKVM")).shape == (0, *shape[1:])
    no_queries = output_of(runtime, **shortened(inputs, 2, "QM"))
    assert no_queries.shape == (*shape[:2], 0, shape[3])
    no_keys = shortened(inputs, 2, "KV")
    if "M" in inputs:
        no_keys["M"] = inputs["M"][..., :0]
    assert torch.equal(output_of(runtime, **no_keys), torch.zeros(shape))


def test_a_decoding_step_gives_the_last_row_of_the_whole() -> None:
    case = attention_case("causal")
    inputs = tensors_of(case)
    for runner in runners(one_attention_node(case)):
        whole = output_of(runner, **inputs)
        step = output_of(runner, Q=inputs["Q"][:, :, -1:], K=inputs["K"], V=inputs["V"])
        torch.testing.assert_close(step, whole[:, :, -1:], rtol=1e-5, atol=1e-6)
