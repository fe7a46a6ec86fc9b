import subprocess
import types

import pytest
import torch

from nmn_export.report import machine

PROPERTIES = types.SimpleNamespace(name="NVIDIA L4", major=8, minor=9, uuid="12ab-34cd")


def test_the_processor_and_installed_packages_are_reported():
    about = machine.machine(("torch", "no-such-package"))
    assert about["processor"]
    assert about["packages"] == {"torch": torch.__version__}


CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu avx avx2 avx512f{flags}

processor\t: 1
model name\t: another
"""


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            CPUINFO.format(flags=" hypervisor avx512_bf16"),
            "AMD EPYC (family 25, model 17, stepping 1) with AVX-512 and bfloat16 "
            "in a virtual machine",
        ),
        (
            CPUINFO.format(flags="").replace("AMD EPYC", "AMD EPYC 9654 96-Core Processor"),
            "AMD EPYC 9654 96-Core Processor (family 25, model 17, stepping 1) with AVX-512",
        ),
        (
            "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n",
            "m (implementer 0x41, part 0xd40) with NEON",
        ),
        ("processor\t: 0\n", "m"),
    ],
)
def test_the_name_of_a_processor(monkeypatch, cpuinfo, name):
    monkeypatch.setattr("platform.machine", lambda: "m")
    assert machine.processor_name(cpuinfo) == name


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: PROPERTIES)


def test_a_gpu_is_described_with_its_state_from_nvidia_smi(one_gpu, monkeypatch):
    asked = []

    def run(command, **options):
        asked.extend(command)
        return types.SimpleNamespace(stdout="580.65, 2040 MHz, 6251 MHz, 71.20 W, 52\n")

    monkeypatch.setattr(subprocess, "run", run)
    about = machine.gpu()
    assert "--id=GPU-12ab-34cd" in asked
    assert about["gpu"] == "NVIDIA L4"
    assert about["capability"] == "8.9"
    assert (about["driver"], about["sm_clock"], about["power"]) == ("580.65", "2040 MHz", "71.20 W")


def test_without_nvidia_smi_the_rest_is_reported(one_gpu, monkeypatch):
    def run(command, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", run)
    assert set(machine.gpu()) == {"gpu", "capability", "cuda"}
