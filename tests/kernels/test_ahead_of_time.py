import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nmn_export.errors import NmnExportError
from nmn_export.kernels.ahead_of_time import audit
from nmn_export.kernels.ahead_of_time.build import ARCHITECTURES, MANIFEST, build
from nmn_export.kernels.ahead_of_time.variants import variants

NAMES = (
    "row_norm_fp16",
    "row_norm_bf16_general",
    "prepare_weight_fp32",
    "pack_pixels_fp16",
    "yat_dense_fp16_grouped",
    "yat_dense_fp32_bf16x3_row_stationary",
    "yat_dense_bf16_split_64x64",
    "yat_dense_fp16_general_spherical_negative",
    "yat_conv_fp16_128x128x64",
    "yat_conv_fp32_bf16x6_general",
    "yat_conv_transpose_fp16_128x128x64",
    "yat_conv_transpose_fp32_bf16x6_general",
    "yat_attention_fp16_plain_64",
    "yat_attention_bf16_split_64",
    "linear_attention_sum_fp32",
    "linear_attention_output_bf16",
)


def run(*arguments: str, **variables: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | variables
    command = [sys.executable, "-m", "tests.kernels.compiled", *arguments]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    run("build", str(folder), *NAMES)
    return folder


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("bad")
    run("bad", str(folder))
    found: dict[str, list[str]] = json.loads((folder / "bad.json").read_text())
    return found


def test_manifest_says_how_to_launch_every_cubin(built: Path) -> None:
    manifest = json.loads((built / MANIFEST).read_text())
    kernels = {(k["name"], k["capability"]): k for k in manifest["kernels"]}
    assert set(kernels) == {(name, arch) for name in NAMES for arch in (80, 90)}
    for kernel in kernels.values():
        cubin = (built / kernel["file"]).read_bytes()
        assert cubin.startswith(b"\x7fELF")
        assert kernel["sha256"] == hashlib.sha256(cubin).hexdigest()
        assert kernel["symbol"].encode() in cubin
        assert b".py" not in cubin, "a path of this machine is in it"
        assert kernel["shared_bytes"] <= (163 if kernel["capability"] == 80 else 227) * 1024
        assert 0 < kernel["registers"] * kernel["threads"] <= 65536
        assert not kernel["problems"]
    for kernel in kernels.values():
        plain = [k for k in kernel["arguments"].values() if not k.startswith("tensordesc")]
        # A tensor descriptor is spread over five parameters; two scratch pointers come last.
        described = len(kernel["arguments"]) - len(plain)
        assert len(kernel["parameters"]) == len(plain) + 5 * described + 2
    assert kernels["yat_dense_fp16_grouped", 90]["tensor_descriptors"][0]["block_size"] == [128, 64]


def test_ptx_runs_on_newer_chips(built: Path) -> None:
    manifest = json.loads((built / MANIFEST).read_text())
    assert set(manifest["ptx"]) == {f"ptx/{name}.ptx" for name in NAMES}
    for file in manifest["ptx"]:
        # sm_90a, with its trailing letter, would run on sm_90 alone.
        text = (built / file).read_text()
        assert ".target sm_80\n" in text
        assert ".py" not in text


def test_cubins_repeat(built: Path, tmp_path: Path) -> None:
    run("build", str(tmp_path), "row_norm_fp16", TRITON_CACHE_DIR=str(tmp_path / "cache"))
    for arch in (80, 90):
        file = Path(f"sm_{arch}", "row_norm_fp16.cubin")
        assert (tmp_path / file).read_bytes() == (built / file).read_bytes()


def test_a_kernel_that_fails_the_audit_fails_the_build(tmp_path: Path) -> None:
    run("fail", str(tmp_path), "row_norm_fp16")
    assert "got row_norm_fp16 for sm_90: it is bad." in (tmp_path / "error.txt").read_text()
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["kernels"][0]["problems"] == ["it is bad"]


def test_audit_passes_a_good_kernel(bad: dict[str, list[str]]) -> None:
    assert bad["good"] == []


def test_audit_finds_the_race(bad: dict[str, list[str]]) -> None:
    assert len(bad["buffers"]) == 1
    assert "has 2 of 3 buffers" in bad["buffers"][0]


def test_audit_finds_spills(bad: dict[str, list[str]]) -> None:
    assert any("of registers spill, 0 allowed" in problem for problem in bad["spills"])


def test_audit_finds_products_without_wgmma(bad: dict[str, list[str]]) -> None:
    assert bad["no wgmma"] == ["its products do not use wgmma"]


TTGIR = """
%x = ttg.local_alloc : () -> !ttg.memdesc<{buffers}x128x64xf16, #shared, #smem, mutable>
%w = ttg.local_alloc : () -> !ttg.memdesc<3x128x64xf16, #shared, #smem, mutable>
%y = ttg.memdesc_index %x[%i] : !ttg.memdesc<{buffers}x128x64xf16> -> !ttg.memdesc<128x64xf16>
%v = ttg.memdesc_index %w[%i] : !ttg.memdesc<3x128x64xf16> -> !ttg.memdesc<128x64xf16>
%u = ttg.memdesc_trans %v {{order = array<i32: 1, 0>}} : !ttg.memdesc<128x64xf16>
%d = ttng.warp_group_dot %y, %u, %acc {{isAsync = true}} : !ttg.memdesc<128x64xf16>
%e:3 = ttng.warp_group_dot_wait %d, %y, %u {{pendings = {pendings} : i32}} : tensor<128x128xf32>
"""


@pytest.mark.parametrize(
    ("buffers", "pendings", "found"),
    [(3, 1, []), (2, 1, ["operand %y has 2 of 3 buffers"]), (2, 0, [])],
)
def test_buffers_are_counted(buffers: int, pendings: int, found: list[str]) -> None:
    assert audit.few_buffers(TTGIR.format(buffers=buffers, pendings=pendings), stages=3) == found


def test_traps_are_found() -> None:
    assert audit.is_trap("$L__func_begin0:\n\ttrap;\n$L__func_end0:\n")
    assert not audit.is_trap("$L__func_begin0:\n\tret;\n// no trap;\n$L__func_end0:\n")


def test_interpreted_kernels_are_not_built(tmp_path: Path) -> None:
    with pytest.raises(NmnExportError, match="TRITON_INTERPRET=1"):
        build((90,), tmp_path)


def test_names_are_distinct() -> None:
    for arch in ARCHITECTURES:
        names = [variant.name for variant in variants(arch)]
        assert len(names) == len(set(names))
        assert set(NAMES) <= set(names)
