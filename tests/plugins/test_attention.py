"""Launches and results of YatAttention's plugin; the kernels run in Triton's interpreter."""

from pathlib import Path

import pytest
import torch

from tests.cases import ATTENTION_CASES, AttentionCase
from tests.plugins.fake_device import Device, fake_device, run_cases
from tests.plugins.written_cases import ALIGNED_ATTENTION_CASES, NAMES, write_case

DTYPES = tuple(NAMES)
"""Cases alternate between dtypes, because the interpreter is slow."""


def run(folder: Path, capability: int, processors: int = 2) -> tuple[int, Device]:
    """Run the cases in a folder; return the exit status and the device."""
    with fake_device(capability, processors) as device:
        status = run_cases(folder)
    assert not device.errors, device.errors[0]
    return status, device


@pytest.mark.parametrize("number", range(len(ALIGNED_ATTENTION_CASES)))
def test_aligned_cases(number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case, dtype = ALIGNED_ATTENTION_CASES[number], DTYPES[number % 3]
    write_case(tmp_path / case.id, case, dtype)
    status, device = run(tmp_path, 90)
    assert status == 0, capfd.readouterr().out
    families = {name.split("_")[-2] for name in device.launched if "attention" in name}
    plain = not (case.spherical or case.power or case.scale < 0)
    expected = {"split", "general"} | ({"masked"} if plain else set())
    assert families == expected | ({"plain"} if plain and case.mask == "none" else set())


@pytest.mark.parametrize("start", range(4))
def test_common_cases(start: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, case in list(enumerate(ATTENTION_CASES))[start::4]:
        write_case(tmp_path / case.id, case, DTYPES[number // 4 % 3])
    status, _ = run(tmp_path, 80)
    assert status == 0, capfd.readouterr().out


@pytest.mark.parametrize("added", [float("-inf"), float("nan"), float("inf"), -3.0])
def test_one_number_for_all_scores_is_honoured(
    added: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = AttentionCase("one-number", batch=1, queries=3, keys=4, features=16)
    write_case(tmp_path / "case", case, torch.float16)
    number = torch.tensor(added, dtype=torch.float16)
    (tmp_path / "case/input3.bin").write_bytes(number.numpy().tobytes())
    is_finite, output = number.isfinite(), case.tensors()[0].numel()
    if added == float("-inf"):
        zeros = torch.zeros(output)
        for name in ("low", "high"):
            (tmp_path / f"case/{name}.bin").write_bytes(zeros.numpy().tobytes())
    status, _ = run(tmp_path, 80)
    printed = capfd.readouterr().out
    if is_finite or added == float("-inf"):
        assert status == 0, printed
    else:
        assert "element 0 is nan" in printed or "element 0 is -nan" in printed


def test_few_rows_take_several_parts(tmp_path: Path) -> None:
    case = AttentionCase("parts", batch=1, heads=2, queries=1, keys=500, features=16)
    write_case(tmp_path / "case", case, torch.float16)
    status, device = run(tmp_path, 80, processors=8)
    assert status == 0
    assert device.grids["yat_attention_fp16_split_64"] == {(2, 4)}
