"""The demo and the benchmarks run. Their speed is not tested."""

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
    reported = run("examples.demo", *arguments)
    assert "they differ on 0 images" in reported
    assert "FAILED" not in reported
    assert "9 ⵟ ops in the plugin, 0 made of standard ops" in reported
    assert len(onnx.load(tmp_path / "digits.onnx").functions) == 2
    report = (tmp_path / "report.md").read_text()
    assert "AetherResNet-18, 224×224" in report
    right = int(reported.split("PyTorch has ")[1].split()[0])
    assert right > 400  # of 450: the network has learned something


def test_the_benchmark_times_four_contestants():
    reported = run("benchmarks.onnxruntime_cpu", "--rounds", "2", "conv 64 3×3 56² b1", "dense 512")
    assert "ours" in reported
    assert "naive" in reported
    assert "dense 512→1000 b8" in reported
    assert "AetherResNet" not in reported
