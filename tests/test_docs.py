"""The pages of the ops name everything that an op declares."""

import re
from pathlib import Path

import pytest

from nmn_export.ops import OPS
from tests.test_architecture import stem

PAGES = Path(__file__).parents[1] / "docs/ops"


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_a_page_with_its_inputs_attributes_and_defaults(op: str) -> None:
    page = (PAGES / f"{stem(op)}.md").read_text()
    spec = OPS[op]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", page, re.MULTILINE))
    assert set(rows) == {*spec.inputs, *spec.attributes}
    for name, default in spec.attributes.items():
        shown = rows[name].split(" | ")[1]
        assert shown == "required" if default is None else float(shown) == default, name


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda p: p.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
