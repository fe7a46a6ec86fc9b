import inspect
import math
from operator import attrgetter

import pytest
import torch
from torch import Tensor

import nmn_export.layers
from nmn_export.errors import NmnExportError, OptionError
from nmn_export.layers import YatEmbed, embed, scalars
from tests.embed_cases import EMBED_CASES, EmbedCase
from tests.enclosure import assert_between, enclose

upstream = pytest.importorskip("nmn.torch")

HALF_PRECISIONS = [torch.float16, torch.bfloat16]

every_case = pytest.mark.parametrize("case", EMBED_CASES, ids=attrgetter("id"))


def their(ours: YatEmbed) -> torch.nn.Module:
    """Return upstream's layer with the options and parameters of ours."""
    theirs = upstream.YatEmbed(
        ours.num_embeddings,
        ours.features,
        use_alpha=ours.use_alpha,
        constant_alpha=ours.constant_alpha,
        epsilon=ours.epsilon,
        spherical=ours.spherical,
        dtype=ours.embedding.dtype,
    )
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval()


def test_the_constructor_takes_the_arguments_of_upstream_in_the_same_order() -> None:
    def positional(cls: type) -> list[tuple[str, object]]:
        found = inspect.signature(cls).parameters.values()
        return [(p.name, p.default) for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(YatEmbed) == positional(upstream.YatEmbed)
    assert "YatEmbed" in nmn_export.layers.__all__


@pytest.mark.parametrize(
    "options",
    [{}, {"use_alpha": False}, {"constant_alpha": True}, {"constant_alpha": False}],
    ids=str,
)
def test_parameters_and_attributes_are_those_of_upstream(options: dict[str, bool]) -> None:
    ours, theirs = YatEmbed(9, 4, **options), upstream.YatEmbed(9, 4, **options)
    shapes = {name: p.shape for name, p in theirs.state_dict().items()}
    assert {name: p.shape for name, p in ours.state_dict().items()} == shapes
    for name in ("num_embeddings", "features", "epsilon", "spherical", "_constant_alpha_value"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert (ours.alpha is None) == (theirs.alpha is None)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_PRECISIONS], ids=str)
def test_attend_is_near_exact_and_so_is_its_fold(case: EmbedCase, dtype: torch.dtype) -> None:
    layer, query = case.layer(dtype), case.query(dtype)
    expected = enclose(dtype, case.parts(layer.embedding, query), case.epsilon, case.alpha)
    for y in (layer.attend(query), layer.fold().attend(query)):
        assert y.dtype == dtype
        assert_between(y.detach(), *expected)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF_PRECISIONS], ids=str)
def test_attend_agrees_with_upstream(case: EmbedCase, dtype: torch.dtype) -> None:
    layer, query = case.layer(dtype), case.query(dtype)
    y, theirs = layer.attend(query), their(layer).attend(query)
    assert y.dtype == theirs.dtype
    if case.spherical:  # ours divides by two norms, the second near 1
        cancels = case.values in ("near", "equal")
        tolerance = 0.02 if cancels else 16 * max(torch.finfo(dtype).eps, 1e-8)
        assert (y - theirs).abs().max() <= tolerance * theirs.abs().max()
    else:
        assert torch.equal(y, theirs)


@pytest.mark.parametrize("table_dtype", [torch.float32, torch.float64, *HALF_PRECISIONS], ids=str)
@pytest.mark.parametrize("query_dtype", HALF_PRECISIONS, ids=str)
def test_a_half_precision_query_meets_the_table_in_float32(
    query_dtype: torch.dtype, table_dtype: torch.dtype
) -> None:
    layer = EmbedCase("half query", features=64).layer().to(table_dtype)
    query = EmbedCase("half query", features=64).query(query_dtype)
    y, theirs = layer.attend(query), their(layer).attend(query)
    assert y.dtype == query_dtype
    torch.testing.assert_close(y, theirs, rtol=0, atol=0)
    folded = layer.fold().attend(query)
    torch.testing.assert_close(folded, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", HALF_PRECISIONS, ids=str)
@pytest.mark.parametrize("spherical", [False, True])
def test_half_precisions_saturate(dtype: torch.dtype, spherical: bool) -> None:
    alpha = 1e30 if dtype == torch.float16 else 3e38
    layer = YatEmbed(3, 8, constant_alpha=alpha, spherical=spherical, dtype=dtype)
    query = layer.embedding.detach()
    for y in (layer.attend(query), layer.fold().attend(query), their(layer).attend(query)):
        assert y.diagonal().tolist() == [torch.finfo(dtype).max] * 3


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3), (0,)], ids=str)
def test_lookup_returns_rows(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer = EmbedCase("lookup").layer()
    ids = torch.randint(7, shape, dtype=dtype)
    for y in (layer(ids), layer.fold()(ids)):
        torch.testing.assert_close(y, layer.embedding[ids.long()], rtol=0, atol=0)
        assert torch.equal(y, their(layer)(ids))


@pytest.mark.parametrize("wrong", [7, -1, -8])
def test_an_id_out_of_range_is_an_error(wrong: int) -> None:
    layer = EmbedCase("lookup").layer()
    for lookup in (layer, layer.fold(), their(layer)):
        with pytest.raises(IndexError):
            lookup(torch.tensor([[0, wrong]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int16, torch.uint8], ids=str)
def test_ids_of_another_dtype_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(NmnExportError, match=f"ids of dtype int64 or int32; got {dtype}. Call"):
        YatEmbed(7, 8)(torch.ones(2, dtype=dtype))


@pytest.mark.parametrize(
    ("query", "table"),
    [
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.float16),
        (torch.int64, torch.float32),
    ],
    ids=str,
)
def test_other_mixed_dtypes_are_refused(query: torch.dtype, table: torch.dtype) -> None:
    layer, x = YatEmbed(7, 8, dtype=table), torch.ones(2, 8).to(query)
    with pytest.raises(RuntimeError):
        their(layer).attend(x)
    with pytest.raises(NmnExportError, match=f"got a query in {query} for a table in {table}"):
        layer.attend(x)


@pytest.mark.parametrize("shape", [(2, 7), ()], ids=str)
def test_a_query_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NmnExportError, match="YatEmbed takes queries of 8 features; got shape"):
        YatEmbed(7, 8).attend(torch.ones(shape))


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 0, 8)], ids=str)
@pytest.mark.parametrize("spherical", [False, True])
def test_shapes_are_those_of_upstream(shape: tuple[int, ...], spherical: bool) -> None:
    layer = YatEmbed(7, 8, spherical=spherical)
    expected = their(layer).attend(torch.ones(shape)).shape
    assert layer.attend(torch.ones(shape)).shape == expected
    assert layer.fold().attend(torch.ones(shape)).shape == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive and finite; got 0.0"),
        ({"epsilon": math.inf}, "epsilon must be positive and finite; got inf"),
        ({"constant_alpha": math.nan}, "constant_alpha must be finite; got nan"),
        ({"epsilon": 1e-60, "learnable_epsilon": True}, "must be representable in torch.float32"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        YatEmbed(7, 8, **options)


def test_epsilon_and_alpha_can_be_learned() -> None:
    layer = YatEmbed(7, 8, learnable_epsilon=True, epsilon=0.5).half()
    assert layer.epsilon_param.dtype == torch.float32
    layer.attend(torch.ones(2, 8).half()).float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    with torch.no_grad():
        layer.alpha.fill_(3.0)
    assert layer.fold().attend.alpha == 3.0
    assert layer.fold().attend.epsilon == pytest.approx(0.5)


def test_rows_start_with_norms_near_one_or_exactly_there() -> None:
    norms = YatEmbed(1000, 64).embedding.norm(dim=1)
    assert norms.mean().item() == pytest.approx(1, abs=0.02)
    assert norms.std().item() > 0.05
    norms = YatEmbed(1000, 64, weight_normalized=True).embedding.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(1000))


def test_zero_queries_and_rows_have_finite_gradients() -> None:
    layer = YatEmbed(3, 4, spherical=True)
    with torch.no_grad():
        layer.embedding[0] = 0
    query = torch.zeros(2, 4, requires_grad=True)
    layer.attend(query).sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert layer.embedding.grad is not None
    assert layer.embedding.grad.isfinite().all()


def test_the_table_is_shared_by_lookup_and_attend_unless_short_rows_are_spherical() -> None:
    def tables(layer: YatEmbed) -> tuple[Tensor, Tensor]:
        folded = layer.fold()
        return folded.embedding, folded.attend.weight

    for spherical in (False, True):
        looked_up, attended = tables(EmbedCase("shared", spherical=spherical).layer())
        assert looked_up is attended
    looked_up, attended = tables(EmbedCase("short", spherical=True, row_norm=0.01).layer())
    assert looked_up is not attended


@pytest.mark.parametrize("spherical", [False, True])
def test_attend_calls_the_op_where_it_has_kernels(
    spherical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = EmbedCase("kernels", spherical=spherical)
    layer, query = case.layer(), case.query()
    eager = layer.attend(query)
    monkeypatch.setattr(scalars, "has_kernels", lambda _: True)
    monkeypatch.setattr(embed, "yat_dense", lambda *_: pytest.fail("the formula"))
    torch.testing.assert_close(layer.attend(query), eager)


def test_the_representation_names_sizes_and_unusual_options() -> None:
    assert repr(YatEmbed(7, 8)) == "YatEmbed(7, 8, epsilon=1e-05)"
    shown = repr(YatEmbed(7, 8, constant_alpha=2.0, spherical=True))
    assert shown == "YatEmbed(7, 8, epsilon=1e-05, constant_alpha=2.0, spherical=True)"
