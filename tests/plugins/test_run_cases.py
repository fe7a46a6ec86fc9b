"""`make gpu-plugin-run`: the script that runs the test program on every case."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.plugins import written_cases
from tests.plugins.fake_device import PLUGIN, ROOT

SCRIPT = ROOT / "tests/plugins/run_cases.sh"

PROGRAM = """#!/bin/sh
case "$2" in
    */wrong/) echo "FAILED: wrong-fp16-raw: 1 not in [2, 3]"; echo "5 checks, 1 failed"; exit 1 ;;
    */crash/) kill -SEGV $$ ;;
    */hang/) exec sleep 60 ;;
esac
echo "9 checks, 0 failed"
"""


def run(folder: Path, *cases: str) -> tuple[int, str]:
    """Run the script on a program that fails as the names of the cases say."""
    program = folder / "plugin/nmn_plugin_test"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (folder / "plugin/libnmn_plugin.so").touch()
    for case in cases:
        (folder / "cases" / case).mkdir(parents=True)
    done = subprocess.run(
        [SCRIPT, folder / "plugin", folder / "cases", folder / "out"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CASE_SECONDS": "0.5"},
        check=False,
    )
    return done.returncode, done.stdout


def test_results_of_every_case_are_kept(tmp_path):
    code, printed = run(tmp_path, "a", "wrong", "z")
    lines = (tmp_path / "out/gpu-plugin.txt").read_text().splitlines()
    assert code == 1
    assert printed.splitlines() == lines
    assert lines == [
        "a: exit code 0: 9 checks, 0 failed",
        "wrong: exit code 1: 5 checks, 1 failed",
        "    FAILED: wrong-fp16-raw: 1 not in [2, 3]",
        "z: exit code 0: 9 checks, 0 failed",
    ]


def test_if_all_cases_pass_the_exit_code_is_0(tmp_path):
    assert run(tmp_path, "a", "b")[0] == 0


@pytest.mark.parametrize(("case", "expected"), [("crash", 128 + 11), ("hang", 128 + 9)])
def test_the_cases_after_a_crash_still_run(tmp_path, case, expected):
    code, printed = run(tmp_path, case, "z")
    assert code == expected
    assert f"{case}: exit code {expected}" in printed
    assert "z: exit code 0" in printed


def test_make_without_a_virtual_environment_runs_the_copied_cases():
    command = ["make", "-n", "--no-print-directory", "gpu-plugin", "VENV=nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *calls, last = done.stdout.splitlines()
    assert calls == ["make gpu-plugin-run"]
    assert last.startswith("tests/plugins/run_cases.sh build/plugin build/cases ")


def test_without_cases_it_says_how_to_make_them(tmp_path):
    code, printed = run(tmp_path)
    assert code == 2
    assert printed.startswith("error: ")
    assert "make gpu-plugin-cases" in printed
    assert printed.count("\n") == 1


def test_written_cases_run_in_the_real_program(tmp_path, monkeypatch):
    monkeypatch.setattr(written_cases, "COMMON_CASES", written_cases.COMMON_CASES[:1])
    monkeypatch.setattr(written_cases, "ALIGNED_CASES", ())
    monkeypatch.setattr(written_cases, "ATTENTION_CASES", ())
    monkeypatch.setattr(written_cases, "ALIGNED_ATTENTION_CASES", ())
    written_cases.main(tmp_path / "cases")
    (case,) = (tmp_path / "cases").iterdir()
    assert len(list(case.glob("*/case.txt"))) == len(written_cases.NAMES) * 2
    command = [SCRIPT, PLUGIN, tmp_path / "cases", tmp_path]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    # Without a GPU the program gets as far as the driver.
    assert done.returncode in (0, 2)
    if done.returncode:
        assert done.stdout == f"{case.name}: exit code 2: error: the CUDA driver has no cuInit\n"


def test_the_program_has_no_paths_of_the_machine_that_built_it():
    for name in ("nmn_plugin_test", "libnmn_plugin.so"):
        command = ["readelf", "-d", PLUGIN / name]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "NEEDED" in listed
        assert "RPATH" not in listed
        assert "RUNPATH" not in listed
        assert bytes(ROOT) not in (PLUGIN / name).read_bytes()
