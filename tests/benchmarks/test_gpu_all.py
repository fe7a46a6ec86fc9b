import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu_all.sh"


def run(tmp_path: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the script with a Python that prints its arguments and fails for timing."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "PYTHON $*"\ncase "$*" in *timing*) exit 1; esac\n')
    python.chmod(0o755)
    variables = {"PYTHON": str(python), "OUT": str(tmp_path / "out"), **environment}
    return subprocess.run(
        [str(SCRIPT), *arguments],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_arguments_it_prints_the_pieces(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.returncode == 0
    assert not [line for line in result.stdout.splitlines() if line.startswith("PYTHON")]
    assert "rtx-measure" in result.stdout


def test_pieces_run_in_order_and_a_failure_does_not_end_them(tmp_path: Path) -> None:
    result = run(tmp_path, "--dry-run", "all")
    assert result.returncode == 1
    calls = [line for line in result.stdout.splitlines() if line.startswith("PYTHON")]
    kinds = ["correctness", "timing", "tiles", "compile", "repeat"]
    assert [call.split("--only ")[1].split()[0] for call in calls] == kinds
    for call in calls:
        assert f"--out {tmp_path / 'out'} " in call
        assert "--resume" in call
        assert call.endswith(" --dry-run")
        assert float(call.split("--budget ")[1].split()[0]) < 500
    assert "not run in a dry run: make gpu-plugin-run" in result.stdout


def test_rtx_pieces_use_the_named_folders(tmp_path: Path) -> None:
    result = run(tmp_path, "rtx-install", "rtx-measure", PIECES="/p", TARGET="/t")
    assert result.returncode == 0
    assert "PYTHON benchmarks/rtx_offline.py install /p /t\n" in result.stdout
    assert f"rtx_offline.py measure /t --out {tmp_path / 'out'} --budget 480" in result.stdout


def test_results_of_an_earlier_machine_are_continued(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text("{}\n")
    assert run(tmp_path, "check", PREVIOUS=str(earlier)).returncode == 0
    assert (tmp_path / "out/gpu.jsonl").read_text() == "{}\n"
    missing = run(tmp_path, "check", PREVIOUS="/nowhere")
    assert missing.returncode == 2
    assert "PREVIOUS must be a gpu.jsonl" in missing.stderr


def test_an_unknown_piece_is_a_user_error(tmp_path: Path) -> None:
    result = run(tmp_path, "check", "speed")
    assert result.returncode == 2
    assert "got 'speed'" in result.stderr
    assert "PYTHON" not in result.stdout
