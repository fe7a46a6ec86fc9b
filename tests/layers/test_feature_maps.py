import math

import nmn.torch as upstream
import numpy as np
import pytest
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.layers.feature_maps import (
    FeatureMap,
    MaclaurinFeatures,
    RadialFeatures,
    SlayFeatures,
)
from nmn_export.layers.projections import (
    create_maclaurin_projection,
    create_radial_projection,
    create_slay_projection,
    maclaurin_coeffs,
)

DIM = 8


def maps(seed: int = 0) -> list[FeatureMap]:
    return [
        SlayFeatures(create_slay_projection(DIM, 3, 4, 2, seed=seed)),
        MaclaurinFeatures(create_maclaurin_projection(DIM, 24, nmax=9, epsilon=0.3, seed=seed)),
        RadialFeatures(create_radial_projection(DIM, 3, 2, 4, epsilon=0.3, seed=seed)),
    ]


def name_of(features: FeatureMap) -> str:
    return type(features).__name__


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 5, DIM, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("epsilon", [1e-5, 0.3])
def test_maclaurin_features_are_those_of_upstream(epsilon: float, x: Tensor) -> None:
    theirs = upstream.create_maclaurin_projection(DIM, 40, bias=1.5, epsilon=epsilon, seed=3)
    ours = create_maclaurin_projection(DIM, 40, bias=1.5, epsilon=epsilon, seed=3)
    assert torch.equal(ours["omegas"], theirs["omegas"])
    assert torch.equal(ours["degrees"], theirs["degrees"])
    assert ours["Z"] == pytest.approx(theirs["Z"], rel=1e-12)
    for normalize in (True, False):
        features = MaclaurinFeatures(theirs, normalize=normalize)
        expected = upstream.maclaurin_features(x, theirs, normalize=normalize)
        y = features(x)
        assert y.shape[-1] == features.num_features
        torch.testing.assert_close(y, expected[..., features.order()], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("epsilon", "tolerance"), [(0.3, 1e-5), (1e-5, 1e-3)])
def test_radial_features_are_those_of_upstream(epsilon: float, tolerance: float, x: Tensor) -> None:
    theirs = upstream.create_radial_projection(DIM, 3, 4, 5, bias=2.0, epsilon=epsilon, seed=3)
    ours = create_radial_projection(DIM, 3, 4, 5, bias=2.0, epsilon=epsilon, seed=3)
    for name in ("W1", "W2", "phases", "coef"):
        assert torch.equal(ours[name], theirs[name]), name
    torch.testing.assert_close(ours["omegas"], theirs["omegas"], rtol=2e-7, atol=0)
    for normalize in (True, False):
        features = RadialFeatures(theirs, normalize=normalize)
        expected = upstream.radial_features(x, theirs, normalize=normalize)
        y = features(x)
        assert y.shape[-1] == features.num_features
        scale = expected.abs().max().item()
        torch.testing.assert_close(y / scale, expected / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("normalize", [True, False])
def test_slay_features_are_their_formula(normalize: bool, x: Tensor) -> None:
    projection = create_slay_projection(DIM, 3, 4, 2, seed=1)
    epsilon = 0.01
    y = SlayFeatures(projection, normalize=normalize, epsilon=epsilon)(x)
    anchors, omegas, nodes, weights = (t.double() for t in projection.values())
    unit = x.double()
    for _ in range(2 if normalize else 1):
        unit = unit / (unit.square().sum(-1, keepdim=True) + epsilon).sqrt()
    columns = []
    for p in range(3):
        for m in range(4):
            for r in range(2):
                square = (unit @ anchors[p]).square() / math.sqrt(3)
                exponent = (2 * nodes[r]).sqrt() * (unit @ omegas[r, m]) - nodes[r]
                feature = exponent.clamp(-20, 20).exp() / math.sqrt(4)
                columns.append(weights[r].sqrt() * square * feature + epsilon)
    torch.testing.assert_close(y.double(), torch.stack(columns, -1), rtol=1e-5, atol=1e-7)


def test_slay_clips_its_exponents() -> None:
    projection = create_slay_projection(DIM, 1, 1, 1, seed=0)
    projection["projections"] = projection["projections"] * 1e6
    x = projection["projections"][0] / 1e6
    up, down = SlayFeatures(projection)(x), SlayFeatures(projection)(-x)
    assert (up / down).log().item() == pytest.approx(
        20 + math.log(up.item() / math.exp(20) / 1e-5), abs=0.1
    )


def test_coefficients_add_up_to_the_kernel() -> None:
    coefficients = maclaurin_coeffs(1.5, 0.3, 80)
    for t in (-0.7, 0.0, 0.5):
        series = sum(c * t**n for n, c in enumerate(coefficients))
        assert series == pytest.approx((t + 1.5) ** 2 / (2.3 - 2 * t), rel=1e-7)
    assert np.all(coefficients >= 0)


@pytest.mark.parametrize("features", maps(), ids=name_of)
def test_a_folded_map_gives_the_same_features_from_other_buffers(
    features: FeatureMap, x: Tensor
) -> None:
    folded = features.fold()
    torch.testing.assert_close(folded(x), features(x), rtol=1e-6, atol=1e-7)
    assert set(dict(folded.named_buffers())) != set(dict(features.named_buffers()))
    assert torch.equal(folded.fold()(x), folded(x))


def test_a_folded_maclaurin_map_has_the_rows_that_are_used() -> None:
    features = MaclaurinFeatures(create_maclaurin_projection(DIM, 24, nmax=9, seed=0))
    folded = features.fold()
    rows = sum(len(buffer) for buffer in folded.buffers())
    assert rows == int(features.degrees.sum())
    assert rows < features.omegas.shape[0] * features.omegas.shape[1]


def test_maclaurin_features_of_degree_zero_only_are_constant(x: Tensor) -> None:
    projection = create_maclaurin_projection(DIM, 6, nmax=3, seed=0)
    projection["degrees"] = torch.zeros(6, dtype=torch.int64)
    for features in (MaclaurinFeatures(projection), MaclaurinFeatures(projection).fold()):
        expected = torch.full((*x.shape[:-1], 6), math.sqrt(projection["Z"] / 6))
        torch.testing.assert_close(features(x), expected)


@pytest.mark.parametrize("index", range(3))
def test_a_state_dict_carries_the_projection(index: int, x: Tensor) -> None:
    source, other = maps(seed=0)[index], maps(seed=1)[index]
    expected = source(x)
    assert not torch.allclose(other(x), expected)
    other.load_state_dict(source.state_dict())
    torch.testing.assert_close(other(x), expected)


@pytest.mark.parametrize("features", maps(), ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_with_constants_in_float32(
    features: FeatureMap, dtype: torch.dtype, x: Tensor
) -> None:
    expected = features(x.to(dtype).float())
    features.to(dtype)
    assert {b.dtype for b in features.buffers() if b.is_floating_point()} == {torch.float32}
    y = features(x.to(dtype))
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)


@pytest.mark.parametrize("index", range(3))
def test_float64_is_computed_in_float64(index: int, x: Tensor) -> None:
    features = maps()[index]
    expected = features(x)
    y = features.double()(x.double())
    assert y.dtype == torch.float64
    torch.testing.assert_close(y.float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", maps(), ids=name_of)
def test_zero_vectors_have_finite_features(features: FeatureMap) -> None:
    assert features(torch.zeros(2, DIM)).isfinite().all()


def test_a_degree_beyond_the_rows_is_refused() -> None:
    projection = create_maclaurin_projection(DIM, 4, nmax=3, seed=0)
    projection["degrees"][0] = 5
    with pytest.raises(NmnExportError, match="got degree 5 and 4 rows"):
        MaclaurinFeatures(projection)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_maclaurin_projection(DIM, bias=-1), "bias must be finite and at least 0"),
        (lambda: create_radial_projection(DIM, bias=math.nan), "bias must be finite"),
        (lambda: create_slay_projection(DIM, epsilon=0), "epsilon must be positive and finite"),
        (lambda: create_slay_projection(DIM, 0), "num_anchor_features must be at least 1; got 0"),
        (lambda: create_maclaurin_projection(DIM, nmax=0), "nmax must be at least 1; got 0"),
        (lambda: create_radial_projection(0), "head_dim must be at least 1; got 0"),
    ],
)
def test_bad_options_are_refused(call: object, message: str) -> None:
    with pytest.raises(NmnExportError, match=message):
        call()
