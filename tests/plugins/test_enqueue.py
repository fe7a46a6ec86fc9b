"""Launches and results of the plugins; the kernels run in Triton's interpreter."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.cases import ConvCase, ConvTransposeCase, DenseCase
from tests.plugins.fake_device import fake_device, run_cases
from tests.plugins.written_cases import ALIGNED_CASES, COMMON_CASES, NAMES, PluginCase, write_case

FORMS = list(itertools.product(NAMES, ("raw", "prepared")))
"""Dtypes and forms of weights. Cases alternate between them, because the interpreter is slow."""


def run(folder: Path, capability: int, capfd: pytest.CaptureFixture[str]) -> dict[str, int]:
    with fake_device(capability) as device:
        status = run_cases(folder)
    output = capfd.readouterr().out
    assert not device.errors, device.errors[0]
    assert status == 0, output
    return device.launched


def forms(number: int, count: int) -> list[tuple[torch.dtype, str]]:
    """Return `count` forms that differ in dtype and form of weights."""
    return [FORMS[(number + 3 * i) % len(FORMS)] for i in range(count)]


def numbered(cases: Sequence[PluginCase]) -> list[pytest.ParameterSet]:
    return [pytest.param(number, case, id=named(case)) for number, case in enumerate(cases)]


def named(case: PluginCase) -> str:
    return f"{type(case).__name__}-{case.id}"


@pytest.mark.parametrize(("number", "case"), numbered(ALIGNED_CASES))
def test_aligned_cases(number, case, tmp_path, capfd):
    for dtype, form in forms(number, 2):
        write_case(tmp_path / f"{NAMES[dtype]}-{form}", case, dtype, prepared=form == "prepared")
    launched = run(tmp_path, 80, capfd)
    assert any(name.startswith("prepare_weight") for name in launched)


@pytest.mark.parametrize(("number", "case"), numbered(ALIGNED_CASES[:3]))
def test_operands_copied_as_tensors_are_described(number, case, tmp_path, capfd):
    dtype, form = FORMS[2 * number]
    write_case(tmp_path / "case", case, dtype, prepared=form == "prepared")
    launched = run(tmp_path, 90, capfd)
    assert any(name.endswith("_row_stationary") for name in launched)


@pytest.mark.parametrize("start", range(6))
def test_common_cases(start, tmp_path, capfd):
    for number, case in list(enumerate(COMMON_CASES))[start::6]:
        dtype, form = FORMS[number // 6 % len(FORMS)]
        place = tmp_path / f"{named(case)}-{NAMES[dtype]}-{form}"
        write_case(place, case, dtype, prepared=form == "prepared")
    run(tmp_path, 80, capfd)


@pytest.mark.parametrize(
    "case",
    [DenseCase("none", batch=(0,)), ConvCase("none", batch=0), ConvTransposeCase("none", batch=0)],
)
def test_an_empty_batch_launches_nothing(case, tmp_path, capfd):
    for form in ("raw", "prepared"):
        write_case(tmp_path / form, case, torch.float16, prepared=form == "prepared")
    assert run(tmp_path, 80, capfd) == {}


def test_a_wrong_result_is_noticed(tmp_path, capfd):
    place = tmp_path / "wrong"
    write_case(place, ALIGNED_CASES[0], torch.float16, prepared=True)
    (place / "high.bin").write_bytes((place / "low.bin").read_bytes())
    with fake_device(80):
        assert run_cases(tmp_path) == 1
    assert "not in [" in capfd.readouterr().out
