"""Input shapes of an engine: parsing trtexec's syntax, defaults and checks."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import onnx

from nmn_export.errors import NmnExportError
from nmn_export.graph.file import LARGEST_SIZE, example_shapes, invalid_example_shapes

Shape = tuple[int, ...]

ShapeRequest = Sequence[int] | Sequence[Sequence[int] | None]
"""One shape, or (min, opt, max), some of which may be `None`."""

LARGEST_DEFAULT_BATCH = 8
"""Default maximum batch size, unless the model was exported with a larger batch."""


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that an input of an engine may have.

    Attributes:
        min: The smallest size of each axis.
        opt: The sizes that the engine is tuned for.
        max: The largest size of each axis.
    """

    min: Shape
    opt: Shape
    max: Shape

    def __str__(self) -> str:
        if self.min == self.max:
            return _written(self.opt)
        return f"{_written(self.min)} to {_written(self.max)}, tuned for {_written(self.opt)}"


def parse_shapes(option: str, text: str) -> dict[str, Shape]:
    """Parse shapes by input name, such as `x:1x3x224x224,y:1x8`.

    Raises:
        NmnExportError: The text has another form.
    """
    shapes: dict[str, Shape] = {}
    for part in text.split(","):
        name, _, sizes = part.strip().rpartition(":")
        name = name.strip("'")
        if not name or name in shapes or not all(d.isdecimal() for d in sizes.split("x")):
            raise NmnExportError(
                f"{option} is NAME:SIZExSIZE…, separated by commas, with each input once",
                got=f"'{text}'",
                fix=f"Use, for example, {option} x:1x3x224x224.",
            )
        # Python does not parse longer numbers. The truncated one is above the limit, too.
        shapes[name] = tuple(int(d[:4000]) for d in sizes.split("x"))
    return shapes


def ranges(model: onnx.ModelProto, given: Mapping[str, ShapeRequest]) -> dict[str, ShapeRange]:
    """Return the shape range of every input, including inputs without dynamic axes.

    A missing min or max defaults to opt. A missing opt defaults to max, or else to min. An input
    without shapes keeps the sizes of the file. If its only dynamic axis is the batch (axis 0), the
    batch ranges from 1 to 8 and is tuned for the batch size of the export.

    Raises:
        NmnExportError: A name, rank, size or order is wrong, or a dynamic axis has no bounds.
    """
    examples = example_shapes(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    declared = {v.name: _declared(v) for v in model.graph.input if v.name not in weights}
    for name in given:
        if name not in declared:
            raise NmnExportError(
                f"The model's inputs are {', '.join(declared)}",
                got=f"shapes of '{name}'",
                fix="Use one of these names.",
            )
    found = {
        name: _checked(name, dims, _filled(given[name]))
        if name in given
        else _default(name, dims, examples.get(name))
        for name, dims in declared.items()
    }
    _check_shared_sizes(declared, found)
    return found


def _declared(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"axis {i}"
        for i, d in enumerate(dims)
    )


def _filled(request: ShapeRequest) -> ShapeRange:
    """Replace missing shapes by their defaults."""
    low, opt, high = _triple(request)
    known = next(shape for shape in (opt, high, low) if shape is not None)
    return ShapeRange(tuple(low or known), tuple(known), tuple(high or known))


def _triple(request: ShapeRequest) -> Sequence[Sequence[int] | None]:
    shapes = [item for item in request if not isinstance(item, int)]
    sizes = [item for item in request if isinstance(item, int)]
    if len(sizes) == len(request):
        return sizes, sizes, sizes
    if len(shapes) != 3 or sizes or shapes == [None, None, None]:
        raise NmnExportError(
            "The shapes of an input are one shape, or min, opt and max",
            got=request,
            fix="Use, for example, ((1, 3, 224, 224), (4, 3, 224, 224), (8, 3, 224, 224)).",
        )
    return shapes


def _default(name: str, dims: tuple[int | str, ...], example: Sequence[int] | None) -> ShapeRange:
    fixed = tuple(d for d in dims if isinstance(d, int))
    if len(fixed) == len(dims):
        return ShapeRange(fixed, fixed, fixed)
    if len(fixed) < len(dims) - 1 or isinstance(dims[0], int):
        axes = ", ".join(f"{i} ({d})" for i, d in enumerate(dims) if isinstance(d, str))
        raise NmnExportError(
            "An engine needs bounds for every dynamic axis",
            got=f"no shapes for input '{name}' with the dynamic axes {axes}",
            fix=f"Specify --min-shapes, --opt-shapes and --max-shapes {name}:"
            f"{_written(tuple(example or (d if isinstance(d, int) else 1 for d in dims)))}.",
        )
    if example is not None and (len(example) != len(dims) or example[0] < 1):
        raise invalid_example_shapes(f"{_written(example)} for '{name}' of shape {_written(dims)}")
    batch = example[0] if example else 1
    return ShapeRange((1, *fixed), (batch, *fixed), (max(batch, LARGEST_DEFAULT_BATCH), *fixed))


def _checked(name: str, dims: tuple[int | str, ...], given: ShapeRange) -> ShapeRange:
    for bound, shape in zip(("min", "opt", "max"), astuple(given), strict=True):
        fits = len(shape) == len(dims) and all(
            size == d if isinstance(d, int) else 1 <= size <= LARGEST_SIZE
            for size, d in zip(shape, dims, strict=True)
        )
        if not fits:
            raise NmnExportError(
                f"Input '{name}' has shape {_written(dims)}",
                got=f"{bound} shape {_written(shape)}",
                fix=f"Use the same number of sizes, each from 1 to {LARGEST_SIZE}, and keep the "
                "fixed sizes.",
            )
    for low, opt, high in zip(given.min, given.opt, given.max, strict=True):
        if not low <= opt <= high:
            raise NmnExportError(
                f"The shapes of input '{name}' must satisfy min <= opt <= max",
                got=f"{_written(given.min)}, {_written(given.opt)}, {_written(given.max)}",
                fix="Order the sizes of every axis.",
            )
    return given


def _check_shared_sizes(
    declared: Mapping[str, tuple[int | str, ...]], found: Mapping[str, ShapeRange]
) -> None:
    """Check that axes of the same name, which have the same size at run time, share bounds."""
    bounds: dict[str, tuple[str, tuple[int, int, int]]] = {}
    for name, dims in declared.items():
        rows = zip(dims, found[name].min, found[name].opt, found[name].max, strict=True)
        for dim, *sizes in rows:
            if isinstance(dim, int) or dim.startswith("axis "):
                continue
            first, expected = bounds.setdefault(dim, (name, tuple(sizes)))  # type: ignore[arg-type]
            if expected != tuple(sizes):
                raise NmnExportError(
                    f"Axes named '{dim}' must have the same sizes in min, opt and max",
                    got=f"{expected} for input '{first}' and {tuple(sizes)} for '{name}'",
                    fix="Use the same sizes for both.",
                )


def _written(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "scalar"
