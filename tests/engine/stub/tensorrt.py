"""A stub of the parts of `tensorrt` 10 and 11 that `nmn_export` uses.

The network is the nodes of the ONNX file, and the engine a list of what was asked for.
"""

import ctypes
import json
import os
from enum import Enum, IntEnum, IntFlag
from pathlib import Path
from types import SimpleNamespace

import onnx

__version__ = os.environ.get("STUB_VERSION", "11.4.0")


class ILogger:
    ERROR = SimpleNamespace(name="ERROR")


class IProgressMonitor:
    pass


class BuilderFlag(IntFlag):
    TF32 = 1
    VERSION_COMPATIBLE = 2


class LayerType(Enum):
    PLUGIN_V3 = 1
    CONVOLUTION = 2


class DataType(Enum):
    FLOAT = 0


class MemoryPoolType(Enum):
    WORKSPACE = 0


class ProfilingVerbosity(Enum):
    LAYER_NAMES_ONLY = 0


class NetworkDefinitionCreationFlag(IntEnum):
    if __version__.startswith("10"):
        EXPLICIT_BATCH = 0
        STRONGLY_TYPED = 1
    else:
        STRONGLY_TYPED = 0


class Registry:
    def __init__(self):
        self.all_creators = []

    def load_library(self, path):
        ctypes.CDLL(path)
        self.all_creators = [
            SimpleNamespace(name=name, plugin_version="1", plugin_namespace="ai.nmn")
            for name in ("YatDense", "YatConv", "YatConvTranspose", "YatAttention")
        ]
        return path


class Config:
    def __init__(self):
        self.flags, self.plugins_to_serialize, self.pools = BuilderFlag.TF32, [], {}
        self.cache = None

    def set_flag(self, flag):
        self.flags |= flag

    def clear_flag(self, flag):
        self.flags &= ~flag

    def set_memory_pool_limit(self, pool, size):
        self.pools[pool.name] = size

    def create_timing_cache(self, content):
        return content

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return not cache or cache.startswith(b"times")

    def get_timing_cache(self):
        return SimpleNamespace(serialize=lambda: b"times " + self.cache)

    def add_optimization_profile(self, profile):
        self.profile = profile


class Builder:
    def __init__(self, logger):
        self.registry = Registry()

    def get_plugin_registry(self):
        return self.registry

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        shapes = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *s: shapes.update({name: s}))

    def create_network(self, flags):
        return SimpleNamespace(flags=flags, builder=self)

    def build_serialized_network(self, network, config):
        config.progress_monitor.phase_start("Building", None, 1)
        config.progress_monitor.phase_finish("Building")
        reported = {
            "flags": network.flags,
            "tf32": bool(config.flags & BuilderFlag.TF32),
            "pools": config.pools,
            "level": config.builder_optimization_level,
            "shapes": config.profile.shapes,
        }
        libraries = b""
        if config.flags & BuilderFlag.VERSION_COMPATIBLE and "STUB_FORGETS" not in os.environ:
            libraries = b"".join(Path(p).read_bytes() for p in config.plugins_to_serialize)
        return json.dumps(reported).encode() + b"\n" + libraries


class OnnxParser:
    num_errors = 0

    def __init__(self, network, logger):
        self.network = network

    def parse_from_file(self, path):
        graph, network = onnx.load(path).graph, self.network
        plugins = {creator.name for creator in network.builder.registry.all_creators}
        layers = [
            SimpleNamespace(name=node.name, type=LayerType(1 if node.op_type in plugins else 2))
            for node in graph.node
        ]
        network.num_layers, network.get_layer = len(layers), layers.__getitem__
        network.num_inputs, network.get_input = len(graph.input), tensors(graph.input)
        network.num_outputs, network.get_output = len(graph.output), tensors(graph.output)
        return True


def tensors(values):
    found = [
        SimpleNamespace(
            name=value.name,
            dtype=DataType.FLOAT,
            shape=[d.dim_value or -1 for d in value.type.tensor_type.shape.dim],
            is_shape_tensor=False,
        )
        for value in values
    ]
    return found.__getitem__
