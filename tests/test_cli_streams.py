"""Commands with closed or full streams, and commands that are stopped while they start."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nmn_export.cli.signals import Stopped, stopped_in_one_line

MAIN = "from nmn_export.cli import main; main()"


def start(file: Path, *arguments: str, prefix: str = "", **streams) -> subprocess.Popen[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    command = [sys.executable, "-c", prefix + MAIN, *arguments]
    return subprocess.Popen(command, cwd=file.parent, text=True, **streams)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_standard_output_is_one_line(small_file, options):
    with (
        Path("/dev/full").open("w") as full,
        start(small_file, "inspect", str(small_file), *options, stdout=full) as process,
    ):
        _, reported = process.communicate()
    assert process.returncode == 2
    assert len(reported.splitlines()) == 1
    assert reported.startswith(
        "error: There must be disk space for the output and the temporary files"
    )


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_has_gone_is_no_error(small_file, options):
    read, write = os.pipe()
    os.close(read)
    with start(small_file, "inspect", str(small_file), *options, stdout=write) as process:
        os.close(write)
        _, reported = process.communicate()
    assert process.returncode == 128 + signal.SIGPIPE
    assert reported == ""


def test_a_standard_output_that_was_never_open_is_no_error(small_file):
    command = f"exec {sys.executable} -c '{MAIN}' inspect {small_file} >&-"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("delay", [0.3, 1.0])
def test_a_command_is_silent_when_it_is_stopped_while_it_loads(tmp_path, delay):
    """Start the command as the console script does, under its name."""
    script = tmp_path / "nmn-export"
    script.write_text(f"import sys\nprint('begun', flush=True)\n{MAIN}\n")
    with subprocess.Popen(
        [sys.executable, str(script), "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, reported = process.communicate()
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in reported
    assert len(reported.splitlines()) <= 1


def test_a_command_that_is_stopped_is_one_line(small_file):
    prefix = (
        "import os, signal; from nmn_export.cli import check, commands\n"
        "commands.app = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    with start(small_file, "check", prefix=prefix) as process:
        _, reported = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert reported == "error: the check was stopped by SIGINT\n"


def test_errors_of_a_library_that_is_stopped_are_not_printed():
    def swallow() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as error:
            raise RecursionError from error

    with (
        pytest.raises(Stopped, match="the build was stopped by SIGINT"),
        stopped_in_one_line("build"),
    ):
        swallow()


def test_a_run_into_a_full_disk_is_one_line(small_file, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.ones((4, 3, 10, 10), np.float32))
    output = tmp_path / "out.npz"
    arguments = ("run", str(small_file), "--inputs", str(tmp_path / "in.npz"), "-o", str(output))
    with start(
        small_file,
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    ) as process:
        _, reported = process.communicate()
    assert process.returncode == 2, reported
    assert reported.startswith("error: The output folder must have room for the file")
    assert len(reported.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.npz"]
