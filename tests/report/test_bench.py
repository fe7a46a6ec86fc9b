"""Benchmarks of files in ONNX Runtime on the CPU, and errors without a GPU.

Nothing here opens a session that shares threads, which would bind all others of this process: what
gets so far is timed in a process of its own, as `bench` does it.
"""

import copy
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

from nmn_export import CheckError, NmnExportError, export
from nmn_export.report import bench_process
from nmn_export.report.bench import Benchmark, BenchRequest, BenchRow, Times, measure
from nmn_export.report.bench_process import measure_apart
from nmn_export.report.contestant import Contestant, check_alike, in_precision_of_all
from nmn_export.report.gpu_timing import Percentiles
from nmn_export.report.render import bench_json, bench_notes, bench_table
from nmn_export.report.timing import Ratio
from nmn_export.runtime.inputs import Input

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about having no GPU")


@pytest.fixture(scope="module")
def files(small_net, tmp_path_factory) -> Path:
    """One network as functions, as standard ops, in float16, and with other weights."""
    folder = tmp_path_factory.mktemp("bench")
    x, axes = torch.randn(2, 3, 10, 10), {"x": {0: "batch"}}
    export(small_net, x, folder / "ours.onnx", dynamic_shapes=axes)
    export(small_net, x, folder / "inlined.onnx", dynamic_shapes=axes, inline=True)
    export(small_net, x, folder / "half.onnx", dtype="float16", check=False)
    other = copy.deepcopy(small_net)
    with torch.no_grad():
        other.head.weight.mul_(1.01)
    export(other, x, folder / "other.onnx")
    (folder / "text.onnx").write_text("not ONNX")
    (folder / "cut.onnx").write_bytes((folder / "ours.onnx").read_bytes()[:-500])
    return folder


def request_of(folder: Path, *names: str, **options) -> BenchRequest:
    return BenchRequest(tuple(folder / name for name in names), rounds=6, **options)


def refusal(request: BenchRequest) -> str:
    """Return the error of a benchmark that fails before any session is opened."""
    with pytest.raises(NmnExportError) as caught:
        measure(request)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_result_is_a_ratio_to_the_first_file(files, tmp_path):
    rounds = []
    request = request_of(files, "ours.onnx", "inlined.onnx", "half.onnx", "ours.onnx")
    result = measure_apart(request, lambda: rounds.append(1))
    assert len(rounds) == 6
    first, *others = result.rows
    assert (first.error, first.times.ratio) == (None, Ratio(1.0, 1.0, 1.0))
    assert [Path(row.file).name for row in others] == ["inlined.onnx", "half.onnx", "ours.onnx"]
    for row in others:
        assert 0 < row.times.ratio.low <= row.times.ratio.value <= row.times.ratio.high
        assert row.error <= result.tolerance == 2e-3  # that of float16, which takes part
    assert others[1].error > 1e-5 > others[0].error
    assert result.inputs == {"x": "2x3x10x10 float32"}
    assert "processor" in result.machine

    reported = json.loads(bench_json(result))
    # On a CPU only ratios are shown.
    assert all(row["times"]["gpu"] is None for row in reported["rows"])
    console = Console(width=300, record=True, file=(tmp_path / "out").open("w"))
    console.print(bench_table(result))
    text = console.export_text()
    assert "1.000" in text
    assert " ms" not in text
    notes = " ".join(bench_notes(result))
    assert "medians of 6 rounds in one run on" in notes
    assert "Outputs agree with those of" in notes
    assert "to 2e-03" in notes


def test_files_that_disagree_are_not_timed(files):
    request = request_of(files, "ours.onnx", "inlined.onnx", "other.onnx")
    with pytest.raises(CheckError, match=r"must agree to 1\.0e-05 before .*other\.onnx against"):
        measure_apart(request)


def test_files_that_are_meant_to_differ_are_timed_on_given_inputs(files):
    x = np.ones((5, 3, 10, 10), np.float32)
    names = ("ours.onnx", "inlined.onnx")
    result = measure_apart(request_of(files, *names, inputs={"x": x}, tolerance=math.inf))
    assert result.given
    assert result.inputs == {"x": "5x3x10x10 float32"}
    assert json.loads(bench_json(result))["tolerance"] is None
    assert "the tolerance is infinite" in " ".join(bench_notes(result))


def test_a_process_that_dies_is_one_line(files, monkeypatch):
    dying = "import os, sys; print('last words', file=sys.stderr, flush=True); os.abort()"
    monkeypatch.setattr(bench_process, "_START", dying)
    with pytest.raises(NmnExportError) as caught:
        measure_apart(request_of(files, "ours.onnx"))
    assert "got signal SIGABRT (last words)" in str(caught.value)


WRONG = {
    "no file": (("no.onnx",), "A benchmark takes files; got no file"),
    "text": (("text.onnx",), "takes ONNX files and .engine files of TensorRT; got a file that is"),
    "cut off": (("cut.onnx",), "got a file that is neither or is cut off"),
    "no engine": (("ours.onnx", "no.engine"), "An engine is a file; got no file"),
}


@pytest.mark.parametrize(("names", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files_are_one_line(files, names, message):
    assert message in refusal(request_of(files, *names))


@needs_no_gpu
def test_without_a_gpu_it_says_so(files):
    assert "Provider 'cuda' needs a machine with an NVIDIA GPU" in refusal(
        request_of(files, "ours.onnx", provider="cuda")
    )
    (files / "m.engine").write_bytes(b"anything")
    assert "An engine needs a machine with an NVIDIA GPU" in refusal(
        request_of(files, "ours.onnx", "m.engine")
    )


def test_a_cpu_and_a_gpu_are_not_compared(files):
    reported = refusal(request_of(files, "ours.onnx", "m.engine", provider="cpu"))
    assert "must run on the same processor; got --provider cpu and the engine" in reported


def test_no_round_is_no_benchmark(files):
    assert "at least one round; got 0" in refusal(BenchRequest((files / "ours.onnx",), rounds=0))


@pytest.mark.parametrize("tolerance", [-1.0, math.nan])
def test_a_tolerance_that_nothing_is_within_is_refused(files, tolerance):
    request = BenchRequest((files / "ours.onnx",), tolerance=tolerance)
    assert f"--tolerance must be 0 or more; got {tolerance}" in refusal(request)


def contestant(name: str, *inputs: Input) -> Contestant:
    return Contestant(name, inputs, None, None, None)


def taking(dtype, *shape: int | str, name: str = "x") -> Input:
    return Input(name, shape, np.dtype(dtype), tuple(d if isinstance(d, int) else 2 for d in shape))


FLOAT = taking("float32", "batch", 4)

UNLIKE = {
    "name": taking("float32", "batch", 4, name="y"),
    "rank": taking("float32", "batch", 4, 1),
    "size": taking("float32", "batch", 5),
    "kind": taking("int64", "batch", 4),
}


@pytest.mark.parametrize("other", UNLIKE.values(), ids=UNLIKE)
def test_files_that_take_other_inputs_are_refused(other):
    with pytest.raises(NmnExportError, match=r"take the same inputs; got x.* in a\.onnx and .* in"):
        check_alike([contestant("a.onnx", FLOAT), contestant("b.onnx", other)])


def test_precisions_and_dynamic_axes_may_differ():
    alike = [FLOAT, taking("float16", 3, 4), taking(ml_dtypes.bfloat16, "1..8", "n")]
    check_alike([contestant(str(i), value) for i, value in enumerate(alike)])


def test_all_get_the_same_numbers_in_their_own_precision():
    dtypes = (np.float32, np.float16, ml_dtypes.bfloat16)
    x = np.random.default_rng(0).standard_normal((50, 4), dtype=np.float32)
    contestants = [contestant(np.dtype(d).name, taking(d, 50, 4)) for d in dtypes]
    arrays = [arrays["x"] for arrays in in_precision_of_all({"x": x}, contestants)]
    assert [a.dtype for a in arrays] == [np.dtype(d) for d in dtypes]
    for other in arrays[1:]:
        assert np.array_equal(other.astype(np.float64), arrays[0].astype(np.float64))
    assert np.abs(arrays[0] - x).max() < 0.02


@pytest.mark.parametrize(("dtype", "given"), [("float32", "int64"), ("int64", "float32")])
def test_integers_are_not_given_for_numbers_nor_numbers_for_integers(dtype, given):
    with pytest.raises(NmnExportError, match=rf"Input 'x' has dtype {dtype}; got {given}"):
        in_precision_of_all({"x": np.ones(3, given)}, [contestant("a", taking(dtype, 3))])


def test_weights_that_a_file_lists_as_inputs_are_none(files, tmp_path):
    model = onnx.load(files / "ours.onnx")
    weight = model.graph.initializer[0]
    value = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    model.graph.input.append(value)
    onnx.save(model, tmp_path / "listed.onnx")
    request = BenchRequest((files / "ours.onnx", tmp_path / "listed.onnx"), rounds=2)
    assert measure_apart(request).rows[1].error == 0


def row(name: str, gpu: float, enqueue: float) -> BenchRow:
    def all_of(seconds: float) -> Percentiles:
        return Percentiles(*[seconds] * 6)

    times = Times(Ratio(1.0, 1.0, 1.0), all_of(gpu), all_of(2 * gpu), all_of(enqueue))
    return BenchRow(name, "tensorrt", None, times)


def test_gpu_times_name_the_gpu_and_launch_bound_files(tmp_path):
    rows = [row("a.engine", 1e-3, 2e-4), row("b.engine", 1e-3, 9.5e-4)]
    machine = {"gpu": "NVIDIA L4", "driver": "580.65"}
    result = Benchmark("cuda", {"x": "1x4 float32"}, True, 1e-5, 50, False, "", machine, rows)
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(bench_table(result))
    text = console.export_text()
    assert "GPU ms" in text
    assert "host ms" in text
    notes = bench_notes(result)
    assert "on NVIDIA L4, driver 580.65" in notes[0]
    assert [note for note in notes if "launch-bound" in note] == [notes[-1]]
    assert notes[-1].startswith("b.engine")
    assert json.loads(bench_json(result))["rows"][0]["times"]["gpu"]["p99"] == 1e-3
