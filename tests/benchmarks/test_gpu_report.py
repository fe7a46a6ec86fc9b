from pathlib import Path

import pytest

from benchmarks import gpu_report
from benchmarks.gpu_records import Records


def seconds(fused: float) -> dict[str, dict[str, float]]:
    row = {"p20": 1e-5, "p80": 1e-5, "ratio_low": fused - 0.01, "ratio_high": fused + 0.01}
    return {
        "linear": {"median": 1e-4, "ratio": 1.0, **row},
        "fused": {"median": fused * 1e-4, "ratio": fused, **row},
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    records = Records(tmp_path / "gpu.jsonl")
    add = records.append
    add("run", gpu="GPU X", torch="2", triton="3")
    add("machine", item="machine", copy_tb_s=2.0, matmul_tflop_s={"float16": 500.0}, clocks="9 MHz")
    timing = {"shape": "dense A", "mode": "float16", "bytes": 10**8, "flops": 10**10}
    add("timing", item="timing A", **timing, target=1.08, seconds=seconds(3.0))
    add("timing", item="timing A", **timing, target=1.08, seconds=seconds(1.25))
    for tile, ratio in (("plan", 1.25), ("grouped 64x64x64 w4", 1.125)):
        add("tiles", item=tile, shape="dense A", mode="float16", tile=tile, seconds=seconds(ratio))
    add("tiles", item="big", shape="dense A", mode="float16", tile="big", does_not_fit="memory")
    add("correctness", item="c1", shape="dense A", mode="float16", agrees=True, repetitions=10)
    add("correctness", item="c2", shape="dense B", mode="float16", agrees=True, repetitions=10)
    add("error", of="correctness", item="c2", reason="there is a race", text="", seconds=1)
    add("error", of="timing", item="timing B", reason="was repaired", text="", seconds=1)
    add("timing", item="timing B", **timing, target=1.08, seconds=seconds(1.5))
    add("done", item="timing B", seconds=1)
    add("skipped", reason="budget", items=["timing B", "timing C", "timing D"])
    with records.file.open("a") as stream:
        stream.write('{"kind": "timing", "item": "timing E", "sec')
    return records.file


def test_the_tables_of_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.main([str(file)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith("GPU: GPU X; torch 2; triton 3; copies 2.00 TB/s")
    assert "in 1 of 2 checks" in printed
    (row,) = (line for line in lines if line.startswith("dense A") and "1.08×" in line
              and "125.0" in line)  # fmt: skip
    assert "3.00×" not in printed  # the last record of an item counts
    # 10^8 bytes and 10^10 operations in 125 µs: 0.8 TB/s of 2, 80 TFLOP/s of 500.
    assert row.split()[2:] == ["float16", "100.0", "125.0", "1.25×", "-", "-", "-", "-", "1.08×",
                               "40%", "16%", "1.240", "to", "1.260"]  # fmt: skip
    (sweep,) = (line for line in lines if line.endswith("grouped 64x64x64 w4"))
    assert sweep.split()[2:6] == ["float16", "1.250×", "1.125×", "2"]
    assert "c2: there is a race" in printed
    assert "was repaired" not in printed
    assert "2 items skipped" in printed


def test_files_of_two_gpus_have_tables_of_their_own(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Records(tmp_path / "other.jsonl")
    other.append("run", gpu="GPU Y")
    gpu_report.main([str(file), str(other.file)])
    printed = capsys.readouterr().out
    assert printed.index("GPU: GPU X") < printed.index("GPU: GPU Y")


def test_a_file_that_cannot_be_read_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        gpu_report.main(["/nowhere/gpu.jsonl"])
    assert caught.value.code == 2
    assert "/nowhere/gpu.jsonl" in capsys.readouterr().err


def test_attention_has_a_table_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = Records(tmp_path / "gpu.jsonl")
    times = seconds(1.25)
    times["flex"] = times["fused"] | {"ratio": 2.5}
    memory = {"fused_workspace": 2**20, "linear": 3 * 2**20, "fused": 2**22, "flex": 2**23}
    about = {"shape": "attention X", "mode": "float16", "bytes": 10**8, "flops": 10**10}
    records.append("run", gpu="GPU X")
    records.append("timing", item="a", **about, target=1.4, seconds=times, memory=memory)
    gpu_report.main([str(records.file)])
    head, row = capsys.readouterr().out.splitlines()[-2:]
    assert head.endswith("MiB: workspace, sdpa, fused, flex, eager")
    assert row.split()[2:] == ["float16", "100.0", "125.0", "1.25×", "-", "-", "2.50×", "-",
                               "1.40×", "-", "1.0,", "3.0,", "4.0,", "8.0,", "-"]  # fmt: skip
