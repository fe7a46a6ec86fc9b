import subprocess
import types

import pytest
import torch

from nmn_export.report import machine

PROPERTIES = types.SimpleNamespace(name="NVIDIA L4", major=8, minor=9, uuid="12ab-34cd")


def test_the_processor_and_the_packages_that_are_there_are_told():
    about = machine.machine(("torch", "no-such-package"))
    assert about["processor"]
    assert about["packages"] == {"torch": torch.__version__}


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: PROPERTIES)


def test_a_gpu_is_told_with_what_nvidia_smi_says_of_the_very_same(one_gpu, monkeypatch):
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


def test_without_nvidia_smi_the_rest_is_told(one_gpu, monkeypatch):
    def run(command, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", run)
    assert set(machine.gpu()) == {"gpu", "capability", "cuda"}
