"""Draw one network as exported by `torch.onnx.export` and by `nmn_export.export`.

`python docs/pictures.py` writes `graph_before.svg` and `graph_after.svg` to its own folder. It
needs this package with the extras `cpu` and `nmn`, and the program `dot` of Graphviz
(`apt-get install graphviz`).
"""

import ast
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import onnx
import torch
from nmn.torch import YatConv2D, YatNMN
from torch import Tensor, nn

import nmn_export

BATCH = {"x": {0: "batch"}}
SCOPES = "pkg.torch.onnx.name_scopes"
NOT_DRAWN = re.compile(r"<\?xml.*?\?>\s*|<!.*?>\s*", re.DOTALL)

FONT = "Helvetica,Arial,sans-serif"
INK, FAINT, WHITE = "#1f2328", "#59636e", "#ffffff"
GREY, BORDER = "#e4e7eb", "#8c959f"
STRONG, TINT = "#6d28d9", "#f3edff"


class Block(nn.Module):
    """A residual block like those of upstream's YATConvNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.yat_conv = YatConv2D(channels, channels, 3, padding=1, bias=False, epsilon=0.007)
        self.lin_conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus the output of the two convolutions."""
        y: Tensor = self.lin_conv(self.yat_conv(x)) + x
        return y


class Network(nn.Module):
    """One block, global average pooling, and a dense head."""

    def __init__(self, channels: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.block = Block(channels)
        self.head = YatNMN(channels, classes, bias=False, epsilon=0.007)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [batch, classes]."""
        y: Tensor = self.head(self.block(x).mean((2, 3)))
        return y


def before(model: nn.Module, x: Tensor) -> onnx.ModelProto:
    """Return the model exported by PyTorch."""
    program = torch.onnx.export(
        model, (x,), dynamo=True, opset_version=18, verbose=False, dynamic_shapes=BATCH
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto


def after(model: nn.Module, x: Tensor) -> onnx.ModelProto:
    """Return the model exported by this package."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        nmn_export.export(model, x, path, dynamic_shapes=BATCH)
        return onnx.load(path)


def dot_source(model: onnx.ModelProto, title: str) -> str:
    """Return the main graph in the DOT language; constants other than weights are omitted."""
    graph = model.graph
    own = Counter(node.domain for node in graph.node if node.domain)
    nodes = f"{len(graph.node)} nodes" + "".join(f", {n} of them {d}" for d, n in own.items())
    lines = [
        f'digraph "{title}: {nodes}" {{',
        f'graph [bgcolor="{WHITE}", fontname="{FONT}", fontsize=15, fontcolor="{INK}", labelloc=t,'
        f" label=<<b>{title}</b><br/>{nodes}>, nodesep=0.2, ranksep=0.22, pad=0.15]",
        f'node [fontname="{FONT}", fontsize=13, height=0.3, margin="0.12,0.04"]',
        f'edge [color="{FAINT}", arrowsize=0.6]',
    ]
    lines += [terminal("input", value) for value in graph.input]
    lines += [terminal("output", value) for value in graph.output]

    made_by = {value.name: f"input {value.name}" for value in graph.input}
    made_by |= {name: str(i) for i, node in enumerate(graph.node) for name in node.output}
    weights = {
        tensor.name: f"{tensor.name.rpartition('.')[2]} {'×'.join(map(str, tensor.dims))}"
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) > 1
    }
    layers = [layer_of(node) for node in graph.node]
    for layer, size in Counter(layers).items():
        lines += frame(layer, size) if size > 1 else []
        for i, node in enumerate(graph.node):
            if layers[i] == layer:
                lines.append(box(str(i), node, layer if size == 1 else ""))
                for name in node.input:
                    if name in weights:
                        lines += weight(f"{layer} {name}", weights[name], str(i))
        lines += ["}"] if size > 1 else []
    for i, node in enumerate(graph.node):
        lines += [f'"{made_by[name]}" -> "{i}"' for name in node.input if name in made_by]
    lines += [f'"{made_by[v.name]}" -> "output {v.name}"' for v in graph.output]
    return "\n".join([*lines, "}"])


def layer_of(node: onnx.NodeProto) -> str:
    """Return the name of a node's layer; empty for nodes outside layers."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            return str(ast.literal_eval(entry.value)[-2])
    return node.name.removesuffix(node.op_type).rstrip("/")


def box(key: str, node: onnx.NodeProto, layer: str) -> str:
    """Return a box for a node, with its op and, in small print, its layer."""
    fill, edge, ink, faint = (
        (STRONG, STRONG, WHITE, WHITE) if node.domain else (GREY, BORDER, INK, FAINT)
    )
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return (
        f'"{key}" [shape=box, style="filled,rounded", fillcolor="{fill}", color="{edge}",'
        f' fontcolor="{ink}", label={label(op, layer, faint)}]'
    )


def label(bold: str, small: str, ink: str) -> str:
    """Return a label of one or two parts; table cells keep the gap the same in any font."""
    cells = f"<td><b>{bold}</b></td>"
    if small:
        cells += f'<td width="8"></td><td><font point-size="11" color="{ink}">{small}</font></td>'
    plain = 'border="0" cellborder="0" cellspacing="0" cellpadding="0"'
    return f"<<table {plain}><tr>{cells}</tr></table>>"


def frame(layer: str, size: int) -> list[str]:
    """Open a frame around the nodes of a layer, with its name and number of nodes."""
    return [
        f'subgraph "cluster {layer}" {{',
        f'label=<<b>{layer}</b><br align="left"/>{size} nodes<br align="left"/>>;',
        f'style="filled,rounded,dashed"; fillcolor="{TINT}"; color="{STRONG}"; margin=10;',
        f'fontcolor="{STRONG}"; fontsize=13; labelloc=b; labeljust=l;',
    ]


def terminal(kind: str, value: onnx.ValueInfoProto) -> str:
    """Return a box for an input or output of the model, with its shape."""
    shape = "×".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
    return (
        f'"{kind} {value.name}" [shape=box, style="filled,rounded", fillcolor="{INK}",'
        f' fontcolor="{WHITE}", label={label(kind, shape, WHITE)}]'
    )


def weight(key: str, label: str, node: str) -> list[str]:
    """Return a weight and its edge to a node."""
    return [
        f'"{key}" [shape=plaintext, fontsize=10, fontcolor="{FAINT}", height=0.2,'
        f' margin="0.02,0.01", label="{label}"]',
        f'"{key}" -> "{node}" [arrowsize=0.4, color="{BORDER}"]',
    ]


def draw(model: onnx.ModelProto, title: str, path: Path) -> None:
    """Write a self-contained SVG file without comments and metadata."""
    source = dot_source(model, title)
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=source, capture_output=True, encoding="utf-8", check=True
    )
    path.write_text(NOT_DRAWN.sub("", drawn.stdout), encoding="utf-8")
    print(f"{path.name}: {len(model.graph.node)} nodes")


def main() -> None:
    """Export one model both ways and draw the graphs."""
    if shutil.which("dot") is None:
        sys.exit("Drawing needs Graphviz: apt-get install graphviz")
    model, x = Network().eval(), torch.randn(2, 64, 32, 32)
    folder = Path(__file__).parent
    draw(before(model, x), "torch.onnx.export", folder / "graph_before.svg")
    draw(after(model, x), "nmn_export.export", folder / "graph_after.svg")


if __name__ == "__main__":
    main()
