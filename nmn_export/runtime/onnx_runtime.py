"""ONNX Runtime, on the requested provider only: it never falls back to another."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.runtime.arrays import Arrays, to_numpy

# By default it leaves files in the temporary folder and sends usage data to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Provider = Literal["cpu", "cuda"]

_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 is on by default there, and makes small distances wrong.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
_EXTRAS = {"cpu": "cpu", "cuda": "gpu"}


class OnnxRuntimeRunner:
    """An ONNX file in ONNX Runtime, on as many threads as PyTorch uses.

    Args:
        model: Path of the file, or the model itself if it is below 2 GB.
        provider: `"cpu"` or `"cuda"`.
        shared_threads: Use the thread pool that all sessions of the process share. Once one session
            uses it, every later session of the process has to.
        stream: CUDA stream to run on with provider `"cuda"`; a new one if `None`.

    Raises:
        NmnExportError: ONNX Runtime or the provider is not installed, ONNX Runtime chose another
            provider, or it cannot run the model.
    """

    def __init__(
        self,
        model: Path | onnx.ModelProto,
        provider: Provider = "cpu",
        *,
        shared_threads: bool = False,
        stream: "torch.cuda.Stream | None" = None,
    ) -> None:
        try:
            import onnxruntime as ort  # noqa: PLC0415 - an extra; its absence is a message
        except ImportError as error:
            raise NmnExportError(
                "This needs ONNX Runtime",
                got="no package onnxruntime",
                fix=f"Run: pip install 'nmn-export[{_EXTRAS[provider]}]'",
            ) from error
        self.name = "onnxruntime" if provider == "cpu" else f"onnxruntime-{provider}"
        wanted, options = _PROVIDERS[provider]
        if wanted not in ort.get_available_providers():
            raise NmnExportError(
                f"Provider '{provider}' needs ONNX Runtime's {wanted}",
                got=", ".join(ort.get_available_providers()),
                fix=f"Run: pip install 'nmn-export[{_EXTRAS[provider]}]'",
            )
        session_options = ort.SessionOptions()
        session_options.log_severity_level = 4
        session_options.intra_op_num_threads = torch.get_num_threads()
        if shared_threads:
            _share_threads()
            session_options.use_per_session_threads = False
        if stream is not None:
            options = options | {"user_compute_stream": str(stream.cuda_stream)}
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        with _OrtErrors():
            self.session = ort.InferenceSession(
                source, session_options, providers=[(wanted, options)]
            )
        self.session.disable_fallback()
        if self.session.get_providers()[0] != wanted:
            raise NmnExportError(
                f"Provider '{provider}' was asked for and must be used",
                got=", ".join(self.session.get_providers()),
                fix="Check the driver and the CUDA libraries with `nmn-export doctor`.",
            )

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name."""
        outputs = self.session.get_outputs()
        names = [output.name for output in outputs]
        with _OrtErrors():
            # An input of ids has no dtype that tells.
            if any("bfloat16" in value.type for value in (*self.session.get_inputs(), *outputs)):
                values = self._run_bfloat16(names, inputs)
            else:
                values = self.session.run(names, inputs)
        return dict(zip(names, values, strict=True))

    def launcher(self, tensors: Mapping[str, Tensor]) -> Callable[[], None]:
        """Return a function that runs the model on the same inputs, without copying them.

        Outputs stay on the device. With provider `"cuda"` the function returns when the work is
        enqueued on the runner's stream.

        Args:
            tensors: The inputs by name, contiguous, on the device of the provider. They must live
                as long as the function.
        """
        import onnxruntime as ort  # noqa: PLC0415 - an extra

        binding = self.session.io_binding()
        device, index = "cpu", 0
        for name, tensor in tensors.items():
            device, index = tensor.device.type, tensor.device.index or 0
            onnx_type = int(ir.tensor_adapters.from_torch_dtype(tensor.dtype))
            place = (device, index, onnx_type, tuple(tensor.shape), tensor.data_ptr())
            binding.bind_input(name, *place)
        for output in self.session.get_outputs():
            binding.bind_output(output.name, device, index)
        options = ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def launch() -> None:
            with _OrtErrors():
                self.session.run_with_iobinding(binding, options)

        return launch

    def _run_bfloat16(self, names: list[str], inputs: Arrays) -> list[Any]:
        """Run with bfloat16 tensors, which NumPy and therefore `session.run` do not have."""
        import onnxruntime as ort  # noqa: PLC0415 - an extra

        binding = self.session.io_binding()
        for name, array in inputs.items():
            onnx_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            bits = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
            value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx_type)
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        outputs = (
            torch.utils.dlpack.from_dlpack(v._ortvalue.to_dlpack()) for v in binding.get_outputs()
        )
        return [to_numpy(output) for output in outputs]


@functools.cache
def _share_threads() -> None:
    """Create the thread pool of the process."""
    import onnxruntime as ort  # noqa: PLC0415 - an extra

    ort.set_global_thread_pool_sizes(torch.get_num_threads(), 1)


class _OrtErrors:
    """Turns errors of ONNX Runtime into one line."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is None or not error:
            return
        # Errors of a run with bound tensors have no class of their own.
        if kind is RuntimeError or kind.__module__.startswith("onnxruntime."):
            raise NmnExportError(
                "ONNX Runtime must be able to run the model",
                got=f"{kind.__name__}: {str(error).splitlines()[0]}",
                fix="See `nmn-export doctor`. bfloat16 layers other than ⵟ need a GPU.",
            ) from error
