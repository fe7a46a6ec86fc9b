"""`nmn-export check`: compare a file with float64 arithmetic."""

import math
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nmn_export import api
from nmn_export.cli.arguments import (
    MODEL_HELP,
    Json,
    ModelFile,
    PluginLibrary,
    Provider,
    Weights,
    read_npz,
)
from nmn_export.cli.terminal import err, out
from nmn_export.graph.file import load
from nmn_export.models.load import load_model
from nmn_export.report import render
from nmn_export.report.inspect import provenance
from nmn_export.runtime.inputs import to_dtypes, to_model_dtypes
from nmn_export.runtime.tensorrt import TensorRtRunner, is_engine


def check(
    model: ModelFile,
    reference: Annotated[str, typer.Option(help=f"The model it was exported from: {MODEL_HELP}")],
    weights: Weights = None,
    inputs: Annotated[
        Path | None, typer.Option(help=".npz with an array per input. Drawn by default.")
    ] = None,
    provider: Provider = "cpu",
    plugin_library: PluginLibrary = None,
    as_json: Json = False,
) -> None:
    """Compare a file in every runtime with float64; exit code 1 if an error is too large.

    The whole model runs on the given inputs or on random ones. Each ⵟ layer then runs alone on
    inputs within 1 % of its weights, where the distance cancels. An engine is compared as a whole.
    """
    arrays = None if inputs is None else read_npz(inputs)
    if is_engine(model):
        runner = TensorRtRunner(model, plugin_library=plugin_library)
        origin, convert = runner.origin, partial(to_dtypes, runner.inputs)
        del runner  # api.check opens its own
    else:
        proto = load(model)
        origin, convert = provenance(proto), partial(to_model_dtypes, proto)
    module = load_model(reference, weights)
    with err.status(f"checking {model}"):
        given = None if arrays is None else convert(arrays)
        comparisons = api.check(model, module, given, provider, plugin_library=plugin_library)
    if as_json:
        print(render.comparison_json(comparisons))
    else:
        out.print(render.comparison_table(comparisons))
        if origin.get("parameters_sha256") != api.parameter_hash(module):
            out.print("note: the reference has other parameters than the exported model")
        if any(math.isinf(c.error) for c in comparisons if c.limit is None):
            out.print("note: eager PyTorch itself overflows on these inputs; use smaller ones")
    if not all(c.passed for c in comparisons):
        raise typer.Exit(1)
