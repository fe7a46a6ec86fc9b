"""The items of a GPU run, in order of value. Needs no PyTorch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product

from benchmarks import gpu_attention_shapes as attention
from benchmarks.gpu_attention_shapes import AttentionShape
from benchmarks.gpu_shapes import (
    CHECKED_SHAPES,
    COMPILED_SHAPES,
    MODES,
    SHAPES,
    TIMED_MODES,
    TINY_SHAPES,
    VALUABLE_SHAPES,
    Shape,
)

KINDS = ("correctness", "timing", "tiles", "compile", "repeat")
"""What `--only` selects."""

LARGE_FLOPS = 10**11
"""Items of larger shapes have a time estimate of their own."""


@dataclass(frozen=True)
class Candidate:
    """A tile of the sweep, with the schedule for a dense layer or attention.

    Attributes:
        schedule: Schedule of `DensePlan`; "whole" or "split" for attention; else empty.
        m: Output rows per tile.
        n: Output columns per tile, or keys per step of attention.
        k: Features per step.
        warps: Warps per program.
        parts: Parts of a tile's features, or of the keys, for the schedule "split".
    """

    schedule: str
    m: int
    n: int
    k: int
    warps: int
    parts: int = 0

    @property
    def name(self) -> str:
        """Name in records and tables."""
        schedule = f"{self.schedule} " * bool(self.schedule)
        parts = f" p{self.parts}" * bool(self.parts)
        return f"{schedule}{self.m}x{self.n}x{self.k} w{self.warps}{parts}"


@dataclass(frozen=True)
class Item:
    """One unit of work of a run, small enough to be lost.

    Attributes:
        kind: "machine" or one of `KINDS`.
        shape: Shape of the layer; `None` for "machine".
        mode: One of `MODES`; empty for "machine".
        candidate: Tile to time for "tiles"; `None` for the plan's own choice.
    """

    kind: str
    shape: Shape | AttentionShape | None = None
    mode: str = ""
    candidate: Candidate | None = None

    @property
    def name(self) -> str:
        """Name in records; it is unique in a run."""
        words = [self.kind]
        if self.shape:
            words += [self.shape.name, self.mode]
        if self.kind == "tiles":
            words.append(self.candidate.name if self.candidate else "plan")
        return " ".join(words)

    @property
    def size_class(self) -> str:
        """Items of one kind and size class take a similar time."""
        large = self.shape is not None and self.shape.flops > LARGE_FLOPS
        return f"{self.kind} {'large' if large else 'small'}"

    def to_json(self) -> str:
        """Return the item as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Item":
        """Return the item of a line from `to_json`."""
        fields = json.loads(line)
        if fields["shape"]:
            kind = AttentionShape if "queries" in fields["shape"] else Shape
            fields["shape"] = kind(**fields["shape"])
        if fields["candidate"]:
            fields["candidate"] = Candidate(**fields["candidate"])
        return cls(**fields)


def candidates(shape: Shape | AttentionShape, mode: str) -> Iterator[Candidate]:
    """Yield the tiles of the sweep: those compiled ahead of time and their neighbours.

    Whether a tile fits the shared memory is known only on the GPU, where it is recorded.
    """
    if isinstance(shape, AttentionShape):
        yield from _attention_candidates(shape)
        return
    half = not mode.startswith("float32")
    blocks_k = (64, 32) if half else (32, 16)
    if shape.size:
        blocks = [(128, 128, 8), (128, 64, 8), (64, 64, 4), (64, 128, 4), (256, 64, 8)]
        for (m, n, warps), k in product(blocks, blocks_k):
            yield Candidate("", m, n, k, warps)
        return
    if shape.batch > 64:
        blocks = [(128, 128, 8), (128, 64, 8), (128, 256, 8), (256, 128, 8), (64, 128, 4)]
        for (m, n, warps), schedule in product(blocks, ("grouped", "row_stationary")):
            yield Candidate(schedule, m, n, blocks_k[0], warps)
        yield Candidate("grouped", 128, 128, blocks_k[1], 8)
        return
    rows = 64 if shape.batch > 16 else 16
    for n, k, parts in product((64, 128), blocks_k, (2, 4, 8, 16)):
        yield Candidate("split", rows, n, k, 4, parts)


def _attention_candidates(shape: AttentionShape) -> Iterator[Candidate]:
    if shape.queries == 1:
        for n, parts in product((32, 64, 128), (1, 4, 8, 16, 32)):
            yield Candidate("split", 16, n, shape.features, 4, parts)
        return
    for m, n, warps in product((64, 128), (32, 64, 128), (4, 8)):
        yield Candidate("whole", m, n, shape.features, warps)


def _products(
    kind: str, shapes: Sequence[Shape | AttentionShape], modes: Sequence[str] = TIMED_MODES
) -> Iterator[Item]:
    for mode, shape in product(modes, shapes):
        yield Item(kind, shape, mode)


def _sweeps(
    shapes: Sequence[Shape | AttentionShape], modes: Sequence[str] = TIMED_MODES
) -> Iterator[Item]:
    for mode, shape in product(modes, shapes):
        yield Item("tiles", shape, mode)
        for candidate in candidates(shape, mode):
            yield Item("tiles", shape, mode, candidate)


def all_items(dry_run: bool) -> Iterator[Item]:
    """Yield every item of a run, the most valuable first."""
    checked: tuple[Shape | AttentionShape, ...]
    if dry_run:
        valuable, rest, compiled = TINY_SHAPES, (), TINY_SHAPES[:1]
        valuable_attention, more_attention = attention.TINY_ATTENTION_SHAPES, ()
        checked = (*valuable, *valuable_attention)
    else:
        checked = (*CHECKED_SHAPES, *attention.CHECKED_ATTENTION_SHAPES)
        valuable, compiled = VALUABLE_SHAPES, COMPILED_SHAPES
        rest = tuple(shape for shape in SHAPES if shape not in valuable)
        valuable_attention = attention.VALUABLE_ATTENTION_SHAPES
        more_attention = tuple(
            shape for shape in attention.ATTENTION_SHAPES if shape not in valuable_attention
        )
    yield Item("machine")
    yield from _products("correctness", checked, tuple(MODES))
    yield from _products("timing", valuable)
    yield from _products("timing", valuable_attention, attention.TIMED_MODES)
    yield from _products("timing", rest)
    yield from _products("timing", more_attention, attention.TIMED_MODES)
    if dry_run:  # The interpreter is too slow for whole sweeps.
        yield from (Item("tiles", shape, "float16") for shape in (*valuable, *valuable_attention))
        yield Item("tiles", TINY_SHAPES[0], "float16", Candidate("grouped", 16, 16, 16, 4))
    else:
        yield from _sweeps(valuable)
        yield from _sweeps(valuable_attention, attention.TIMED_MODES[:1])
    yield from _products("compile", compiled, ("float16",))
    yield from _products("repeat", checked, tuple(MODES))
    if not dry_run:
        yield from _sweeps(rest)
        yield from _sweeps(more_attention, attention.TIMED_MODES[:1])
