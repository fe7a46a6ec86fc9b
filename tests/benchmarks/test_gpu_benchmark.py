import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_layers, gpu_worker
from benchmarks.gpu_attention_shapes import (
    ATTENTION_SHAPES,
    CHECKED_ATTENTION_SHAPES,
    TINY_ATTENTION_SHAPES,
)
from benchmarks.gpu_queue import Candidate, Item, all_items, candidates
from benchmarks.gpu_shapes import CHECKED_SHAPES, MODES, SHAPES, TINY_SHAPES, VALUABLE_SHAPES, Shape
from benchmarks.gpu_subjects import Subject, near

ROOT = Path(__file__).parents[2]
DENSE, SMALL_DENSE, CONV, TRANSPOSED = TINY_SHAPES


def test_dry_run_prints_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "RESULTS", None)  # a dry run must write nothing
    monkeypatch.delenv("OUT", raising=False)
    code = gpu.main(["--dry-run", "--rounds", "2", "--dtype", "float16", "--only", "timing",
                     "--only", "correctness"])  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0
    assert "records not kept" in printed
    assert "in 6 of 6 checks the kernel agrees with float64 and repeats" in printed
    for shape in (*TINY_SHAPES, *TINY_ATTENTION_SHAPES):
        assert re.search(rf"^{re.escape(shape.name)} .*×", printed, re.MULTILINE)


@pytest.mark.parametrize("shape", TINY_SHAPES, ids=lambda shape: shape.name)
def test_contestants_compute_the_same(shape: Shape) -> None:
    torch.manual_seed(0)
    subject = Subject(shape, "float16", "cpu")
    x = subject.draw()
    exact = subject.exact(x)
    for name in ("fused", "unfused", "eager"):
        y = getattr(subject, name)(x)
        torch.testing.assert_close(y.double(), exact, rtol=2e-2, atol=1e-3)
    assert near(subject, x, subject.fused(x), exact)
    assert not near(subject, x, 1.01 * subject.fused(x), exact)


def test_float32_is_computed_with_the_precision_of_the_mode() -> None:
    for mode in ("float32-bf16x3", "float32-bf16x6"):
        for shape in (DENSE, CONV, TRANSPOSED):
            assert Subject(shape, mode, "cpu").layer.prepared.precision == mode.split("-")[1]


def test_names_are_distinct_and_have_targets() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    assert all(1 < shape.target < 2 for shape in SHAPES)
    names = [item.name for item in all_items(dry_run=False)]
    assert len(set(names)) == len(names)


def test_items_come_in_order_of_value() -> None:
    items = [item for item in all_items(dry_run=False) if item.shape]
    kinds = [item.kind for item in items]
    checks = [item for item in items if item.kind == "correctness"]
    assert items[: len(checks)] == checks
    checked = (*CHECKED_SHAPES, *CHECKED_ATTENTION_SHAPES)
    assert {(i.shape, i.mode) for i in checks} == {(s, m) for s in checked for m in MODES}
    timed = [item for item in items if item.kind == "timing"]
    assert [item.shape for item in timed[: len(VALUABLE_SHAPES)]] == list(VALUABLE_SHAPES)
    assert {item.shape for item in timed} == {*SHAPES, *ATTENTION_SHAPES}
    assert kinds.index("timing") < kinds.index("tiles") < kinds.index("compile")
    assert 1 <= kinds.count("compile") <= 3
    assert kinds.index("compile") < kinds.index("repeat")


def test_an_item_survives_its_line_of_json() -> None:
    for item in all_items(dry_run=False):
        assert Item.from_json(item.to_json()) == item


def test_every_candidate_can_be_launched() -> None:
    """A tile of the sweep computes the layer, whatever it costs."""
    shapes = (
        Shape(65, 32, 16),
        Shape(3, 64, 16),
        Shape(1, 64, 16, 3),
        Shape(1, 64, 16, 2, 2, 2, transposed=True),
    )
    for shape in shapes:
        subject = Subject(shape, "float16", "cpu")
        swept = list(candidates(shape, "float16"))
        assert len(set(swept)) == len(swept) >= 10
        for candidate in (swept[0], swept[-1]):
            subject.assert_close_to_unfused(subject.choice_of(candidate))


def test_the_plan_of_the_sweep_is_what_the_launch_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    planners = ((gpu_layers.dense, "plan_dense"), *[(gpu_layers.images, "plan_conv")] * 2)
    for shape, (module, function) in zip((DENSE, CONV, TRANSPOSED), planners, strict=True):
        subject = Subject(shape, "float16", "cpu")
        chosen: list[object] = []
        plan = getattr(module, function)

        def spy(*arguments: object, plan=plan, chosen=chosen) -> object:
            chosen.append(plan(*arguments))
            return chosen[-1]

        monkeypatch.setattr(module, function, spy)
        subject.fused(subject.draw())
        assert subject.planned() == chosen[0]


def answers(item: Item, fault: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    monkeypatch.setattr(Subject, "fused", Subject.fused)  # undone at the end of the test
    gpu_worker.break_kernel(fault, "M40")
    replies = io.StringIO()
    good = Item("correctness", SMALL_DENSE, "float16")
    lines = io.StringIO(item.to_json() + "\n" + good.to_json() + "\n")
    gpu_worker.serve(gpu_worker.Bench("cpu", 2), lines, replies)
    first, *rest = map(json.loads, replies.getvalue().splitlines())
    assert first["gpu"]
    return rest


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("wrong", "correctness", "does not agree with float64"),
        ("wrong", "timing", "differs from unfused"),
        ("wrong", "tiles", "differs from unfused"),
        ("race", "correctness", "there is a race"),
        ("raise", "timing", "broken on purpose"),
    ],
)
def test_a_broken_kernel_is_an_error_and_the_next_item_runs(
    fault: str, kind: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, record, done = answers(Item(kind, DENSE, "bfloat16"), fault, monkeypatch)
    assert reason in bad["failed"]
    assert "Traceback" in bad["text"]
    assert record["record"]["agrees"]
    assert done == {"done": True, "usable": True}


def test_a_worker_whose_device_is_unusable_takes_no_other_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_worker.Bench, "is_usable", lambda self: False)
    (bad,) = answers(Item("timing", DENSE, "bfloat16"), "raise", monkeypatch)
    assert "broken on purpose" in bad["failed"]
    assert bad["usable"] is False


def test_a_tile_that_does_not_fit_is_recorded_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(*_: object, **__: object) -> None:
        raise gpu_worker.OutOfResources(300, 200, "shared memory")

    monkeypatch.setattr(Subject, "fused", fused)
    tile = Candidate("grouped", 256, 128, 64, 8)
    (record,) = gpu_worker.Bench("cpu", 2).execute(Item("tiles", DENSE, "float16", tile))
    assert "shared memory" in record["does_not_fit"]
    assert record["tile"] == tile.name


BLOCKED = ["onnx", "onnxruntime", "onnxscript", "onnx_ir", "safetensors", "typer", "rich", "nmn"]


def test_it_needs_pytorch_and_triton_only_and_survives_a_crash(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Filtered(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {BLOCKED}:\n"
        "            return None\n"
        "        return PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Filtered if f is PathFinder else f for f in sys.meta_path]\n"
    )
    out = tmp_path / "out"

    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--budget", "120",
                   "--dtype", "float16", "--out", str(out), "--rounds", "2"]  # fmt: skip
        paths = os.pathsep.join((str(tmp_path), str(ROOT)))
        environment = os.environ | {"PYTHONPATH": paths}
        return subprocess.run(
            [*command, *more],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    broken = run("--only", "correctness,compile,repeat", "--inject-fault", "crash", CONV.name)
    assert broken.returncode == 1, broken.stderr
    records = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    errors = [r["item"] for r in records if r["kind"] == "error"]
    assert errors == [f"correctness {CONV.name} float16", f"repeat {CONV.name} float16"]
    done = {r["item"] for r in records if r["kind"] == "done"}
    assert {f"{kind} {shape.name} float16" for kind in ("correctness", "repeat")
            for shape in (DENSE, SMALL_DENSE, TRANSPOSED)} < done  # fmt: skip
    assert f"compile {DENSE.name} float16" in done
    assert "in 5 of 6 checks" in broken.stdout
    assert "2 failures in this run" in broken.stdout

    repaired = run("--only", "correctness", "--resume")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    items = re.findall(r"^done +(.*) \(", repaired.stdout, re.MULTILINE)
    assert items == [f"correctness {CONV.name} float16"]
    assert "in 6 of 6 checks" in repaired.stdout


def test_without_a_gpu_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so its absence cannot be tested")
    with pytest.raises(SystemExit) as caught:
        gpu.main(["--out", str(tmp_path)])
    assert caught.value.code == 2
    assert "no GPU was found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "--only must be one of correctness"),
        (["--inject-fault", "melt", "dense"], "--inject-fault must be one of wrong"),
        (["--inject-fault", "wrong", "M9999"], DENSE.name),
        (["--rounds", "1"], "--rounds must be at least 2"),
        (["--budget", "0"], "--budget must be positive"),
        (["M9999"], "no item matches"),
        (["--out", "/dev/null/x"], "the output folder must be writable"),
    ],
)
def test_a_user_error_is_one_line_with_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        gpu.main(["--dry-run", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_is_a_user_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gpu.Records, "append", full)
    monkeypatch.setattr(gpu.Supervisor, "start", lambda self: self.device.update(gpu="fake"))
    with pytest.raises(SystemExit) as caught:
        gpu.main(["--dry-run", "--out", str(tmp_path)])
    assert caught.value.code == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
