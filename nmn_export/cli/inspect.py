"""`nmn-export inspect`: list the contents of a file."""

from nmn_export.cli.arguments import Json, ModelFile
from nmn_export.cli.terminal import out
from nmn_export.engine.record import read_record
from nmn_export.graph.file import load
from nmn_export.report import render
from nmn_export.report.inspect import inspect_model, provenance
from nmn_export.runtime.tensorrt import is_engine


def inspect(model: ModelFile, as_json: Json = False) -> None:
    """List the ⵟ ops of a file: shapes, attributes, weights, FLOPs and bytes.

    A dynamic axis counts as size 1. For an engine, print its JSON record.
    """
    if is_engine(model):
        record = read_record(model)
        if as_json:
            print(record.to_json())
        else:
            out.print(render.engine_table(record))
        return
    proto = load(model)
    reports, origin = inspect_model(proto), provenance(proto)
    if as_json:
        print(render.op_json(reports, origin))
        return
    out.print(render.op_table(reports))
    for key, value in origin.items():
        out.print(f"{key}: {value}", markup=False, soft_wrap=True)
