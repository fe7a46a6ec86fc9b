import ml_dtypes
import numpy as np
import pytest

from nmn_export import NmnExportError
from nmn_export.report.compare import EAGER_FACTOR, TOLERANCES, Comparison, compare, error


class Fixed:
    """A runner that returns one array."""

    def __init__(self, name: str, values: np.ndarray, key: str = "output") -> None:
        self.name = name
        self.outputs = {key: values}

    def run(self, inputs):
        return self.outputs

    def run_displaced(self, inputs, displacement):
        return self.outputs


TRUTH = np.array([1.0, -100.0, 1e-3])


def off_by(relative: float, dtype: type = np.float32) -> np.ndarray:
    return (TRUTH * (1 + relative)).astype(dtype)


def test_error_of_the_truth_is_nothing():
    assert error(TRUTH, TRUTH) == 0


def test_a_large_element_is_held_to_its_own_size():
    rms = np.sqrt(np.mean(TRUTH**2))
    assert error(TRUTH + np.array([0, 1.0, 0]), TRUTH) == pytest.approx(1 / (100 + rms))


def test_a_small_element_is_held_to_the_typical_size():
    rms = np.sqrt(np.mean(TRUTH**2))
    assert error(TRUTH + np.array([0, 0, 1.0]), TRUTH) == pytest.approx(1 / (1e-3 + rms))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_have_an_infinite_error(bad):
    values = TRUTH.copy()
    values[0] = bad
    assert error(values, TRUTH) == np.inf


def test_another_shape_has_an_infinite_error():
    assert error(TRUTH[:2], TRUTH) == np.inf


def test_a_value_where_the_truth_is_all_zeros_has_an_infinite_error():
    assert error(np.array([1e-9]), np.zeros(1)) == np.inf
    assert error(np.zeros(1), np.zeros(1)) == 0


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.float16, 65504.0), (ml_dtypes.bfloat16, 3.3895313892515355e38)]
)
def test_saturated_values_have_no_error(dtype, largest):
    truth = np.array([1e39, 1.0])
    assert error(np.array([largest, 1.0]).astype(dtype), truth) < 1e-6
    assert error(np.array([np.inf, 1.0]).astype(dtype), truth) == np.inf


def verdict(backend: float, eager: float = 0.0) -> Comparison:
    runners = Fixed("eager", off_by(eager)), Fixed("truth", TRUTH)
    return compare("model", "given", {}, *runners, [Fixed("other", off_by(backend))])[1]


def test_within_the_tolerance_passes_whatever_eager_does():
    assert verdict(0.5 * TOLERANCES["float32"]).passed
    assert not verdict(10 * TOLERANCES["float32"]).passed


def test_within_a_factor_of_eager_passes():
    assert verdict(0.5 * EAGER_FACTOR * 1e-2, eager=1e-2).passed
    assert not verdict(2 * EAGER_FACTOR * 1e-2, eager=1e-2).passed


def test_eager_is_the_yardstick_and_only_has_to_be_finite():
    wrong, truth = Fixed("eager", off_by(0.5)), Fixed("truth", TRUTH)
    assert compare("model", "given", {}, wrong, truth, [])[0].passed
    broken = Fixed("eager", np.full(3, np.nan))
    assert not compare("model", "given", {}, broken, truth, [])[0].passed


class Displaced(Fixed):
    """A truth that rounding changes by `share`."""

    def __init__(self, share: float) -> None:
        super().__init__("truth", TRUTH)
        self.share = share

    def run_displaced(self, inputs, displacement):
        return {"output": TRUTH * (1 + np.sign(displacement) * self.share)}


def test_an_error_that_rounding_explains_passes():
    eager, other = Fixed("eager", off_by(0.0)), Fixed("other", off_by(1e-3))
    assert compare("model", "given", {}, eager, Displaced(2e-3), [other])[1].passed
    assert not compare("model", "given", {}, eager, Displaced(0.5e-3), [other])[1].passed


def test_an_infinite_error_of_eager_excuses_nobody():
    eager, other = Fixed("eager", np.full(3, np.nan)), Fixed("other", np.full(3, np.nan))
    assert not compare("model", "given", {}, eager, Fixed("truth", TRUTH), [other])[1].passed


def test_other_outputs_than_the_reference_has_are_refused():
    runners = Fixed("eager", TRUTH), Fixed("truth", TRUTH)
    with pytest.raises(NmnExportError, match="must have the outputs of the file"):
        compare("model", "given", {}, *runners, [Fixed("other", TRUTH, key="output_0")])


def test_nothing_finite_to_compare_is_refused():
    for nothing in (np.zeros((0, 3)), np.full(3, np.nan)):
        runners = Fixed("eager", nothing), Fixed("truth", nothing)
        with pytest.raises(NmnExportError, match="compared where they are finite numbers; got"):
            compare("model", "given", {}, *runners, [Fixed("other", nothing)])


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_inputs_with_nan_are_refused(dtype):
    runners = Fixed("eager", TRUTH), Fixed("truth", TRUTH)
    inputs = {"x": np.array([1.0, np.nan]).astype(dtype)}
    with pytest.raises(NmnExportError, match=r"have no NaN, .*; got NaN in 'x'"):
        compare("model", "given", inputs, *runners, [Fixed("other", TRUTH)])


def test_a_number_where_the_truth_is_nan_has_an_infinite_error():
    truth = TRUTH.copy()
    truth[0] = np.nan
    assert error(TRUTH, truth) == np.inf
    assert error(truth, truth) == 0


def test_numbers_beside_a_shared_infinity_are_still_measured():
    truth = np.append(TRUTH, np.inf)
    assert 0 < error(np.append(off_by(0.1), np.inf), truth) < np.inf
