"""The TensorRT runner with test doubles. Tests that need a GPU are at the end."""

import types

import numpy as np
import pytest
import torch

from nmn_export import NmnExportError
from nmn_export.engine.build import build
from nmn_export.runtime import bindings, tensorrt
from nmn_export.runtime.engine_file import Log, OpenEngine
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from nmn_export.runtime.tensorrt import TensorRtRunner
from tests.runtime.engine_double import ALIGNMENT, PROFILE, Engine, Gpu

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

PLAIN = types.SimpleNamespace(__name__="tensorrt")


class Rtx:
    """A double of `tensorrt_rtx`, which compiles kernels at run time."""

    __name__ = "tensorrt_rtx"
    DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER="EAGER")


@pytest.fixture
def gpu(monkeypatch):
    double = Gpu()
    double.install(monkeypatch)
    monkeypatch.setattr(bindings, "_ALIGNMENT", ALIGNMENT)
    return double


@pytest.fixture
def runner_of(gpu, monkeypatch):
    """Return a function that makes a runner of a fake engine, which runs on the CPU."""

    def make(engine, trt=PLAIN, **options):
        opened = OpenEngine(trt, None, engine, Log())
        monkeypatch.setattr(tensorrt, "open_engine", lambda *_: opened)
        runner = TensorRtRunner("m.engine", **options)
        runner.device = torch.device("cpu")
        return runner

    return make


def test_a_run_is_ordered_with_the_work_of_the_caller(runner_of, gpu):
    runner_of(Engine()).infer({"x": torch.ones(2, 4)})
    assert gpu.done == [
        "runner 1 waits for caller",
        "execute 2 on runner 1",
        "caller waits for runner 1",
    ]


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_the_caller_owns_the_outputs(runner_of, cuda_graph):
    runner = runner_of(Engine(), cuda_graph=cuda_graph)
    inputs = [torch.full((2, 4), float(i)) for i in range(3)]
    outputs = [runner.infer({"x": x})["y"] for x in inputs]
    for x, y in zip(inputs, outputs, strict=True):
        assert torch.equal(y, 2 * x)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_numpy_goes_in_and_out(runner_of, cuda_graph):
    runner = runner_of(Engine(), cuda_graph=cuda_graph)
    for batch in (1, 3, 1):
        x = np.random.default_rng(batch).standard_normal((batch, 4), dtype=np.float32)
        np.testing.assert_array_equal(runner.run({"x": x})["y"], 2 * x)
    assert runner.name == "tensorrt"


def test_errors_name_numpy_dtypes(runner_of):
    runner = runner_of(Engine())
    with pytest.raises(NmnExportError, match=r"has dtype float32; got float64. Use astype"):
        runner.run({"x": np.zeros((2, 4))})
    with pytest.raises(NmnExportError, match=r"has shape 1\.\.8x4; got 2x5"):
        runner.run({"x": np.zeros((2, 5), np.float32)})
    with pytest.raises(NmnExportError, match=r"1x4 to 8x4, tuned for 2x4; got 9x4"):
        runner.run({"x": np.zeros((9, 4), np.float32)})


def test_one_context_serves_all_shapes(runner_of):
    engine = Engine()
    runner = runner_of(engine)
    for batch in (1, 8, 2):
        runner.infer({"x": torch.ones(batch, 4)})
    assert len(engine.contexts) == 1


def test_profiles_have_contexts_of_their_own(runner_of):
    engine = Engine(profiles=(PROFILE, {"x": ((16, 4), (32, 4), (64, 4))}))
    runner = runner_of(engine)
    for batch in (1, 20, 2, 30):
        runner.infer({"x": torch.ones(batch, 4)})
    assert [context.profile for context in engine.contexts] == [0, 1]


def test_a_graph_is_captured_once_for_each_set_of_shapes_and_replayed(runner_of, gpu):
    engine = Engine()
    runner = runner_of(engine, cuda_graph=True)
    for batch in (2, 3, 2, 3):
        x = torch.randn(batch, 4)
        assert torch.equal(runner.infer({"x": x})["y"], 2 * x)
    assert gpu.done.count("capture") == 2
    assert [what for what in gpu.done if "replay" in what] == [
        f"replay execute {batch} on runner 1" for batch in (2, 3, 2, 3)
    ]
    # A shape must run once before it can be captured.
    assert [what for what in gpu.done if what.startswith("execute")] == [
        f"execute {batch} on runner 1" for batch in (2, 3)
    ]
    # A graph keeps the state that its context had at capture.
    assert [context.shapes["x"][0] for context in engine.contexts] == [2, 3]


def test_only_the_graphs_used_last_are_kept(runner_of, gpu, monkeypatch):
    monkeypatch.setattr(tensorrt, "_GRAPHS", 2)
    runner = runner_of(Engine(), cuda_graph=True)
    for batch in (1, 2, 1, 3, 1):
        x = torch.randn(batch, 4)
        assert torch.equal(runner.infer({"x": x})["y"], 2 * x)
    assert gpu.done.count("capture") == 3
    assert len(runner._launches) == 2


def test_kernels_for_a_shape_are_compiled_before_a_graph_is_captured(runner_of):
    engine = Engine()
    runner_of(engine, Rtx, cuda_graph=True).infer({"x": torch.ones(2, 4)})
    runner_of(engine, Rtx).infer({"x": torch.ones(2, 4)})
    graph, plain = engine.contexts
    assert graph.config.dynamic_shapes_kernel_specialization_strategy == "EAGER"
    assert plain.config is None


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_launcher_reads_the_current_values_of_its_inputs(runner_of, gpu, cuda_graph):
    x = torch.ones(2, 4)
    launch = runner_of(Engine(), cuda_graph=cuda_graph).launcher({"x": x})
    x.fill_(3)
    gpu.done.clear()
    launch()
    assert gpu.done == [f"{'replay ' if cuda_graph else ''}execute 2 on runner 1"]
    assert torch.equal(launch.outputs["y"], torch.full((2, 4), 6.0))


def test_launchers_do_not_get_into_each_others_way(runner_of):
    runner = runner_of(Engine())
    a, b = (runner.launcher({"x": torch.full((n, 4), float(n))}) for n in (1, 2))
    a()
    b()
    a()
    runner.infer({"x": torch.zeros(5, 4)})
    a()
    assert torch.equal(a.outputs["y"], torch.full((1, 4), 2.0))
    assert torch.equal(b.outputs["y"], torch.full((2, 4), 4.0))


def test_a_run_that_fails_is_one_line_with_tensorrts_words(runner_of):
    engine = Engine()
    runner = runner_of(engine)
    runner.infer({"x": torch.ones(2, 4)})
    engine.contexts[0].fails = True
    runner._open.log("ERROR", "out of\nmemory")
    with pytest.raises(NmnExportError, match="tensorrt must be able to run the engine; got out of"):
        runner.infer({"x": torch.ones(2, 4)})


def test_an_engine_without_room_for_a_context_is_one_line(runner_of, monkeypatch):
    engine = Engine()
    runner = runner_of(engine)
    monkeypatch.setattr(engine, "create_execution_context", lambda: None)
    with pytest.raises(NmnExportError, match="must be able to create an execution context"):
        runner.infer({"x": torch.ones(2, 4)})


@pytest.fixture(scope="module")
def engine_for_this_gpu(small_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "gpu.engine"
    build(small_file, path)
    return path


@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_on_a_gpu_it_agrees_with_onnxruntime(small_file, engine_for_this_gpu, cuda_graph):
    runner = TensorRtRunner(engine_for_this_gpu, cuda_graph=cuda_graph)
    for batch in (1, 8, 2, 8):
        x = torch.randn(batch, 3, 10, 10)
        reference = OnnxRuntimeRunner(small_file).run({"x": x.numpy()})["output"]
        y = runner.infer({"x": x.cuda()})["output"]
        assert y.is_cuda
        np.testing.assert_allclose(y.cpu().numpy(), reference, rtol=1e-4, atol=1e-6)


@needs_gpu
def test_on_a_gpu_it_is_ordered_with_the_stream_of_its_caller(engine_for_this_gpu):
    runner = TensorRtRunner(engine_for_this_gpu)
    stream = torch.cuda.Stream()
    x = torch.randn(8, 3, 10, 10, device="cuda")
    expected = 1 + runner.infer({"x": 2 * x})["output"]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(100):
            torch.cuda._sleep(100_000)
            assert torch.equal(1 + runner.infer({"x": 2 * x})["output"], expected)
