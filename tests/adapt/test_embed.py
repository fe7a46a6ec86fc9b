"""`YatEmbed` of all supported releases."""

from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nmn_export import check, export
from nmn_export.adapt import adapt
from nmn_export.errors import NmnExportError
from nmn_export.layers import YatEmbed
from tests.adapt.agreement import assert_same_tensors
from tests.adapt.conftest import CURRENT, at_least
from tests.embed_cases import EMBED_CASES, EmbedCase

WELL_DEFINED = [case for case in EMBED_CASES if case.values in ("normal", "zeros")]
"""Cases in which the distance does not cancel: only later releases clamp it."""


def theirs_of(nmn_torch: Any, case: EmbedCase) -> nn.Module:
    """Return upstream's layer for a case."""
    ours = case.layer()
    theirs: nn.Module = nmn_torch.YatEmbed(
        case.vocabulary,
        case.features,
        constant_alpha=case.alpha,
        epsilon=case.epsilon,
        spherical=case.spherical,
    )
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval()


@pytest.mark.parametrize("case", WELL_DEFINED, ids=attrgetter("id"))
def test_attend_and_lookup(nmn_torch: ModuleType, case: EmbedCase) -> None:
    theirs, query = theirs_of(nmn_torch, case), case.query()
    ours = adapt(theirs)
    assert type(ours) is YatEmbed
    assert_same_tensors(ours, theirs)
    y, expected = ours.attend(query), theirs.attend(query)
    # A spherical layer of ours divides by two norms, the second near 1.
    tolerance = 2e-6 if case.spherical else 1e-6
    assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
    assert (y - expected).abs().max() <= tolerance * expected.abs().max()
    ids = torch.randint(case.vocabulary, (2, 5))
    assert torch.equal(ours(ids), theirs(ids))


@pytest.mark.parametrize("options", [{}, {"constant_alpha": False}, {"use_alpha": False}], ids=str)
def test_every_kind_of_alpha(nmn_torch: ModuleType, options: dict[str, bool]) -> None:
    theirs = nmn_torch.YatEmbed(7, 8, **options)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name == "alpha":
                parameter.fill_(1.3)
    query = EmbedCase("alpha").query()
    torch.testing.assert_close(adapt(theirs).attend(query), theirs.attend(query))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(nmn_torch: ModuleType, release: str, dtype: torch.dtype) -> None:
    theirs = theirs_of(nmn_torch, EmbedCase("half", features=16)).to(dtype)
    query = EmbedCase("half", features=16).query(dtype)
    y, expected = adapt(theirs).attend(query), theirs.attend(query)
    if at_least(release, "0.3.3"):
        assert torch.equal(y, expected)
    else:  # which computes in half precision
        tolerance = 0.1 if dtype == torch.float16 else 0.8
        torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance / 4)


def test_a_changed_attend_is_refused(nmn_torch: ModuleType) -> None:
    class Temperature(nmn_torch.YatEmbed):  # type: ignore[name-defined, misc]
        def attend(self, query: Tensor) -> Tensor:
            y: Tensor = super().attend(query) / 2
            return y

    with pytest.raises(NmnExportError, match="a Temperature with a attend of its own"):
        adapt(Temperature(7, 8))


def test_a_tied_head_is_exported(nmn_torch: ModuleType, release: str, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nmn_torch.YatEmbed(7, 32)
            self.mix = nmn_torch.YatNMN(32, 32, epsilon=1.0)

        def forward(self, ids: Tensor) -> Tensor:
            y: Tensor = self.embed.attend(self.mix(self.embed(ids)))
            return y

    torch.manual_seed(0)
    model, ids = Tied().eval(), torch.randint(7, (2, 3))
    ours = adapt(model)
    assert ours.embed.embedding is model.embed.embedding
    torch.testing.assert_close(ours(ids), model(ids), rtol=1e-4, atol=0)
    if release == CURRENT:
        path = tmp_path / "m.onnx"
        result = export(model, {"ids": ids}, path, dynamic_shapes={"ids": {1: "length"}})
        assert result.ops == {"YatDense": 2}
        assert all(c.passed for c in check(path, model))
