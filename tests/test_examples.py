"""The demo and the benchmark run, and say what they are for; how fast is not a matter of tests."""

import subprocess
import sys
from pathlib import Path

import onnx

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_demo_ends_with_files_and_a_report(tmp_path):
    arguments = ("--output", str(tmp_path), "--epochs", "8", "--rounds", "1")
    told = run("examples.demo", *arguments)
    assert "they differ on 0 images" in told
    assert "FAILED" not in told
    assert "9 ⵟ ops in the plugin, 0 made of standard ops" in told
    assert len(onnx.load(tmp_path / "digits.onnx").functions) == 2
    report = (tmp_path / "report.md").read_text()
    assert "AetherResNet-18, 224×224" in report
    right = int(told.split("PyTorch has ")[1].split()[0])
    assert right > 400  # of 450: the network has learned something


def test_the_benchmark_times_four_contestants():
    told = run("benchmarks.onnxruntime_cpu", "--rounds", "2", "conv 64 3×3 56² b1", "dense 512")
    assert "ours" in told
    assert "naive" in told
    assert "dense 512→1000 b8" in told
    assert "AetherResNet" not in told
