import re

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_subjects import SHAPES, TINY_SHAPES, Subject, near


def test_dry_run_prints_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "RESULTS", None)  # a dry run must write nothing
    gpu.main(["--dry-run", "--rounds", "2"])
    printed = capsys.readouterr().out
    assert "agrees with float64 and repeats" in printed
    for shape in TINY_SHAPES:
        assert re.search(rf"^{re.escape(shape.name)} .*×", printed, re.MULTILINE)


@pytest.mark.parametrize("shape", TINY_SHAPES, ids=lambda shape: shape.name)
def test_contestants_compute_the_same(shape: object) -> None:
    torch.manual_seed(0)
    subject = Subject(shape, torch.float16, "cpu")
    x = subject.draw()
    exact = subject.exact(x)
    for name in ("fused", "unfused", "eager"):
        y = getattr(subject, name)(x)
        torch.testing.assert_close(y.double(), exact, rtol=2e-2, atol=1e-3)
    assert near(subject, x, subject.fused(x), exact)
    assert not near(subject, x, 1.01 * subject.fused(x), exact)


def test_names_are_distinct_and_have_targets() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    assert all(1 < shape.target < 2 for shape in SHAPES)


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit) as caught:
        gpu.main([])
    assert caught.value.code == 2
    assert "no GPU is to be seen" in capsys.readouterr().err
