"""The adapter with packages of other names. test_build.py uses the real tensorrt_rtx.

What 10.16, 11.4 and RTX 1.7 have and lack is from their bindings.
"""

import enum
import importlib.util
from types import SimpleNamespace

import pytest

from nmn_export import NmnExportError
from nmn_export.engine import tensorrt_api as api


class Flag(enum.IntEnum):
    TF32 = 7
    VERSION_COMPATIBLE = 20


class Typed(enum.IntEnum):
    STRONGLY_TYPED = 1


class Nothing(enum.IntEnum):
    pass


class Capability(enum.Enum):
    NONE = 0
    CURRENT = 1
    SM89 = 89
    SM120 = 120


class Config:
    """Records calls and assignments."""

    def __init__(self) -> None:
        self.called: list[tuple[object, ...]] = []

    def __getattr__(self, name):
        return lambda *arguments: self.called.append((name, *arguments))


RTX = {"ComputeCapability": Capability}

PACKAGES = {
    "tensorrt 10.0": SimpleNamespace(BuilderFlag=Flag, NetworkDefinitionCreationFlag=Nothing),
    "tensorrt 11.4": SimpleNamespace(BuilderFlag=Flag, NetworkDefinitionCreationFlag=Typed),
    "tensorrt_rtx 1.7": SimpleNamespace(
        BuilderFlag=Flag, NetworkDefinitionCreationFlag=Typed, **RTX
    ),
}
ALL = pytest.mark.parametrize("trt", PACKAGES.values(), ids=PACKAGES)


@ALL
def test_networks_are_strongly_typed_where_that_can_be_asked_for(trt):
    config = Config()
    api.create_network(trt, config)
    asked = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    assert config.called == [("create_network", 2 if asked else 0)]


@ALL
@pytest.mark.parametrize(("on", "call"), [(True, "set_flag"), (False, "clear_flag")])
def test_tf32_is_always_set_explicitly(trt, on, call):
    config = Config()
    api.set_tf32(trt, config, on)
    assert config.called == [(call, Flag.TF32)]


@ALL
def test_capabilities_are_those_the_package_names(trt):
    named = api.named_capabilities(trt)
    assert list(named) == ([89, 120] if hasattr(trt, "ComputeCapability") else [])


def test_capabilities_are_set_one_by_one():
    config = Config()
    api.set_capabilities(PACKAGES["tensorrt_rtx 1.7"], config, [120, 89])
    assert config.num_compute_capabilities == 2
    assert config.called == [
        ("set_compute_capability", Capability.SM120, 0),
        ("set_compute_capability", Capability.SM89, 1),
    ]


@ALL
def test_plugins_are_embedded_in_version_compatible_engines_of_tensorrt(trt):
    config = Config()
    api.embed_plugins(trt, config, "/lib.so")
    assert config.plugins_to_serialize == ["/lib.so"]
    rtx = hasattr(trt, "ComputeCapability")
    assert config.called == ([] if rtx else [("set_flag", Flag.VERSION_COMPATIBLE)])


CREATOR = SimpleNamespace(name="YatDense", plugin_version="1", plugin_namespace="ai.nmn")


@pytest.mark.parametrize("name", ["all_creators", "plugin_creator_list"])
def test_plugins_are_listed_by_the_name_the_registry_has_for_it(name):
    loaded = []
    registry = SimpleNamespace(
        load_library=lambda path: loaded.append(path) or 1, **{name: [CREATOR]}
    )
    owner = SimpleNamespace(get_plugin_registry=lambda: registry)
    found = api.load_plugins(PACKAGES["tensorrt 11.4"], owner, "/lib.so")
    assert found == {("YatDense", "1", "ai.nmn")}
    assert loaded == ["/lib.so"]


def test_a_library_that_tensorrt_refuses_is_reported():
    registry = SimpleNamespace(load_library=lambda path: None)
    owner = SimpleNamespace(get_plugin_registry=lambda: registry)
    with pytest.raises(NmnExportError, match=r"able to load the plugin library; got '/lib\.so'"):
        api.load_plugins(SimpleNamespace(__name__="tensorrt"), owner, "/lib.so")


@pytest.mark.parametrize("content", [b"", b"times"])
def test_a_timing_cache_is_used_or_refused(content):
    cache = SimpleNamespace(create_timing_cache=lambda content: content, set_timing_cache=None)
    taken = []
    cache.set_timing_cache = lambda *arguments: taken.append(arguments) or True
    api.set_timing_cache(cache, content)
    assert taken == [(content, False)]
    cache.set_timing_cache = lambda *_: False
    with pytest.raises(NmnExportError, match=f"got {len(content)} bytes that are not"):
        api.set_timing_cache(cache, content)


@pytest.mark.parametrize(
    ("installed", "gpu", "choice", "expected"),
    [
        ({"tensorrt", "tensorrt_rtx"}, 89, "auto", "tensorrt"),
        ({"tensorrt", "tensorrt_rtx"}, None, "auto", "tensorrt_rtx"),
        ({"tensorrt", "tensorrt_rtx"}, 89, "tensorrt-rtx", "tensorrt_rtx"),
        ({"tensorrt", "tensorrt_rtx"}, None, "tensorrt", "tensorrt"),
        ({"tensorrt"}, None, "auto", "tensorrt"),
        ({"tensorrt_rtx"}, 89, "auto", "tensorrt_rtx"),
        (set(), 89, "auto", "got no package tensorrt or tensorrt_rtx"),
        ({"tensorrt_rtx"}, None, "tensorrt", "got no package tensorrt. Run: pip install"),
        ({"tensorrt"}, None, "tensorrt-rtx", r"pip install 'nmn-export[tensorrt-rtx]'"),
    ],
)
def test_the_package_is_the_one_for_this_machine(monkeypatch, installed, gpu, choice, expected):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name in installed else None
    )
    monkeypatch.setattr(api, "gpu_capability", lambda: gpu)
    if expected in installed:
        assert api.choose_package(choice) == expected
    else:
        with pytest.raises(NmnExportError) as caught:
            api.choose_package(choice)
        assert expected in str(caught.value)


LAYERS = {
    "names": ('{"Layers": ["conv", "head"]}', [("conv", ""), ("head", "")]),
    "details": (
        '{"Layers": [{"Name": "conv", "LayerType": "PluginV3"}], "I/O Tensors": []}',
        [("conv", "PluginV3")],
    ),
    "an engine that does not load": (None, []),
}


@pytest.mark.parametrize(("reported", "expected"), LAYERS.values(), ids=LAYERS)
def test_layers_of_an_engine_are_listed_where_it_loads(reported, expected):
    inspector = SimpleNamespace(get_engine_information=lambda form: reported)
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if reported else None)
    trt = SimpleNamespace(
        Runtime=lambda logger: runtime, LayerInformationFormat=SimpleNamespace(JSON=1)
    )
    assert api.inspect_engine(trt, None, b"", host_code=True) == expected
    assert runtime.engine_host_code_allowed


def test_the_end_of_a_phase_is_reported():
    trt = SimpleNamespace(
        IProgressMonitor=type("IProgressMonitor", (), {"__init__": lambda s: None})
    )
    reported = []
    monitor = api.make_monitor(trt, lambda *step: reported.append(step))
    monitor.phase_start("all", None, 2)
    monitor.phase_start("part", "all", 0)
    monitor.phase_finish("part")
    assert monitor.step_complete("all", 0)
    assert monitor.step_complete("all", 1)
    monitor.phase_finish("all")
    assert reported == [
        ("all", None, 0, 2),
        ("part", "all", 0, 1),
        ("part", "all", 1, 1),
        ("all", None, 1, 2),
        ("all", None, 2, 2),
    ]
