from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from nmn_export import check, export
from nmn_export.errors import NmnExportError
from nmn_export.graph.capture import capture
from nmn_export.graph.fold import fold
from nmn_export.layers import YatDense, YatEmbed
from nmn_export.runtime.arrays import to_numpy, to_torch
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.embed_cases import EMBED_CASES, EmbedCase
from tests.enclosure import assert_between, enclose
from tests.graph.networks import assert_valid, output_of, runners

VOCABULARY, FEATURES = 40, 64


class Heads(nn.Module):
    """Attends with each layer to a query of its own."""

    def __init__(self, layers: list[YatEmbed]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *queries: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.layers, queries, strict=True)
        return tuple(layer.attend(query) for layer, query in pairs)


class LanguageModel(nn.Module):
    """The smallest model with a tied head."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.embed = YatEmbed(VOCABULARY, FEATURES, **options)
        self.mix = YatDense(FEATURES, FEATURES, weight_normalized=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embed.attend(self.mix(self.embed(ids)))


def token_ids(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.randint(VOCABULARY, shape, generator=random, dtype=dtype)


def exported(model: nn.Module, path: Path, ids: Tensor, **options: object) -> onnx.ModelProto:
    axes = {"ids": {0: "batch", 1: "length"}}
    result = export(model.eval(), {"ids": ids}, path, dynamic_shapes=axes, **options)
    assert result.parity, result.parity_note
    return onnx.load(path)


def sizes(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Return the shapes of the weights of the file that are matrices."""
    return [tuple(t.dims) for t in model.graph.initializer if len(t.dims) == 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spherical", [False, True])
def test_attend_is_one_op_and_near_exact_in_every_runtime(
    dtype: torch.dtype, spherical: bool
) -> None:
    cases = [case for case in EMBED_CASES if case.spherical == spherical]
    layers = [case.layer(dtype) for case in cases]
    queries = {f"x{i}": case.query(dtype) for i, case in enumerate(cases)}
    model = ir.to_proto(capture(fold(Heads(layers).eval()), queries, {}, 18, False))
    assert_valid(model)
    nodes = [node for node in model.graph.node if node.domain]
    assert [(node.op_type, node.name) for node in nodes] == [
        ("YatDense", f"layers.{i}.attend") for i in range(len(cases))
    ]
    for runner in runners(model):
        outputs = runner.run({name: to_numpy(query) for name, query in queries.items()})
        for case, layer, query, y in zip(
            cases, layers, queries.values(), outputs.values(), strict=True
        ):
            assert to_torch(y).dtype == dtype
            parts = case.parts(layer.embedding, query)
            assert_between(to_torch(y), *enclose(dtype, parts, case.epsilon, case.alpha))


@pytest.mark.parametrize(
    ("id_dtype", "dtype", "options"),
    [
        (torch.int64, "float32", {}),
        (torch.int32, "float32", {"spherical": True, "learnable_epsilon": True}),
        (torch.int32, "float16", {"constant_alpha": True}),
        (torch.int64, "bfloat16", {"use_alpha": False}),
    ],
    ids=str,
)
def test_a_tied_head_holds_the_table_once_and_every_layer_passes_its_check(
    id_dtype: torch.dtype, dtype: str, options: dict[str, bool], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = LanguageModel(**options)
    path = tmp_path / "model.onnx"
    file = exported(model, path, token_ids(2, 3, dtype=id_dtype), dtype=dtype)
    assert sizes(file).count((VOCABULARY, FEATURES)) == 1
    gather = next(node for node in file.graph.node if node.op_type == "Gather")
    mix, attend = [node for node in file.graph.node if node.domain]
    assert gather.input[0] == attend.input[1]
    assert (mix.name, attend.name) == ("mix", "embed.attend")
    results = check(path, model)
    assert {r.subject for r in results} == {"model", "mix", "embed.attend"}
    assert all(r.passed for r in results)
    runtime = OnnxRuntimeRunner(path)
    folded = fold(model, getattr(torch, dtype))
    for shape in ((2, 3), (5, 11), (1, 1), (0, 3), (4, 0)):
        ids = token_ids(*shape, dtype=id_dtype)
        y, eager = output_of(runtime, ids=ids), folded(ids)
        assert y.shape == (*shape, VOCABULARY)
        torch.testing.assert_close(y, eager, rtol=2e-2 if dtype != "float32" else 1e-4, atol=1e-5)


def test_a_spherical_attend_is_in_float32_beside_no_other_dtype(tmp_path: Path) -> None:
    with pytest.raises(NmnExportError, match="All YatDense ops of a model must have the same"):
        exported(
            LanguageModel(spherical=True), tmp_path / "m.onnx", token_ids(2, 3), dtype="float16"
        )


def test_a_file_of_an_embedding_alone(tmp_path: Path) -> None:
    layer = EmbedCase("alone").layer()
    path = tmp_path / "model.onnx"
    result = export(layer, torch.tensor([1, 2]), path, dynamic_shapes=({0: "n"},))
    assert result.ops == {}
    ids = torch.tensor([6, 0, 3])
    y = output_of(OnnxRuntimeRunner(path), inputs=ids)
    assert torch.equal(y, layer(ids))


@pytest.mark.parametrize("wrong", [VOCABULARY, -1, -VOCABULARY])
@pytest.mark.parametrize("inline", [False, True])
def test_an_id_out_of_range_is_an_error_in_onnx_runtime(
    wrong: int, inline: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    exported(LanguageModel(), path, token_ids(2, 3), inline=inline)
    ids = token_ids(2, 3)
    ids[1, 2] = wrong
    with pytest.raises(NmnExportError, match="ONNX Runtime must be able to run the model"):
        OnnxRuntimeRunner(path).run({"ids": ids.numpy()})


def test_short_rows_of_a_spherical_layer_are_a_second_table(tmp_path: Path) -> None:
    model = LanguageModel(spherical=True)
    with torch.no_grad():
        model.embed.embedding.mul_(0.01)
    path = tmp_path / "model.onnx"
    file = exported(model, path, token_ids(2, 3))
    assert sizes(file).count((VOCABULARY, FEATURES)) == 2
    assert all(r.passed for r in check(path, model))


def test_a_head_tied_to_other_layers_is_stored_once(tmp_path: Path) -> None:
    class Tied(LanguageModel):
        def __init__(self) -> None:
            super().__init__()
            self.head = YatDense(FEATURES, VOCABULARY)
            self.head.weight = self.embed.embedding

        def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.mix(self.embed(ids))
            return self.embed.attend(hidden), self.head(hidden)

    path = tmp_path / "model.onnx"
    for dtype in (None, "float16"):
        file = exported(Tied(), path, token_ids(2, 3), dtype=dtype)
        assert sizes(file).count((VOCABULARY, FEATURES)) == 1


@pytest.mark.parametrize(
    ("query_dtype", "table_dtype"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float16),
        (torch.float16, torch.bfloat16),
    ],
    ids=str,
)
def test_half_precision_queries_of_any_table(
    query_dtype: torch.dtype, table_dtype: torch.dtype, tmp_path: Path
) -> None:
    class Mixed(LanguageModel):
        def forward(self, ids: Tensor) -> Tensor:
            return self.embed.attend(self.embed(ids).to(query_dtype))

    torch.manual_seed(0)
    model = Mixed(dtype=table_dtype, epsilon=0.1)
    path = tmp_path / "model.onnx"
    exported(model, path, token_ids(2, 3))
    assert all(r.passed for r in check(path, model))
    ids = token_ids(4, 5)
    y, eager = output_of(OnnxRuntimeRunner(path), ids=ids), model(ids)
    assert y.dtype == query_dtype
    step = torch.finfo(query_dtype).eps
    torch.testing.assert_close(y, eager, rtol=2 * step, atol=1e-6)
