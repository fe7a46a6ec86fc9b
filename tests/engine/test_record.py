import json
import shutil

import pytest

from nmn_export import NmnExportError
from nmn_export.engine.record import read_record, record_path


@pytest.fixture
def engine(aether_engine, tmp_path):
    built = aether_engine(compute_capabilities=[89], plugin="require")
    path = tmp_path / built.path.name
    shutil.copy(built.path, path)
    shutil.copy(record_path(built.path), record_path(path))
    return path


def test_a_record_is_valid_for_a_copy_of_its_engine(engine):
    assert read_record(engine).engine.file == engine.name


def test_a_link_to_an_engine_has_its_record(engine, tmp_path):
    link = tmp_path / "folder" / "latest.engine"
    link.parent.mkdir()
    link.symlink_to(engine)
    assert read_record(link) == read_record(engine)


def test_an_engine_that_has_changed_is_reported(engine):
    with engine.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"corrupt")
    with pytest.raises(NmnExportError, match="must not change after it was built"):
        read_record(engine)


def test_a_truncated_engine_is_reported(engine):
    with engine.open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(NmnExportError, match=r"after it was built; got .* 1000 bytes"):
        read_record(engine)


def test_both_files_are_needed(engine):
    record_path(engine).unlink()
    with pytest.raises(
        NmnExportError,
        match=r"its record must be in the same folder; got no file '.*\.engine\.json'",
    ):
        read_record(engine)
    engine.unlink()
    with pytest.raises(NmnExportError, match=r"got no file '.*\.engine'"):
        read_record(engine)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '{"format": 1}', "null"])
def test_an_invalid_record_is_reported(engine, content):
    record_path(engine).write_text(content)
    with pytest.raises(NmnExportError, match="must be JSON of format 1"):
        read_record(engine)


EDITS = {
    "reasons": ({"plugin": {"reasons": 3}}, "got plugin.reasons is 3"),
    "mode": ({"plugin": {"mode": "of"}}, "got plugin.mode is 'of'"),
    "flag": ({"plugin": {"embedded": 1}}, "got plugin.embedded is 1"),
    "library": ({"plugin": {"library": {"file": "a"}}}, "got plugin.library lacks 'sha256'"),
    "capabilities": ({"compute_capabilities": [8.9]}, "got compute_capabilities[0] is 8.9"),
    "layers": ({"layers": "x"}, "got layers is 'x'"),
    "counts": ({"layer_counts": {"A": "b"}}, "got layer_counts.A is 'b'"),
    "bool for a number": ({"plugin": {"layers": True}}, "got plugin.layers is True"),
    "shapes": ({"profile": {"x": {"min": [1], "opt": [1]}}}, "got profile.x lacks 'max'"),
    "engine layers": ({"engine_layers": [1]}, "got engine_layers[0] is 1"),
    "other counts": ({"layer_counts": {"A": 5}}, "got layer_counts, which contradicts"),
    "plugin layers": ({"plugin": {"layers": 8}}, "got plugin.layers, which contradicts"),
    "decomposed": ({"plugin": {"decomposed": 5}}, "got plugin.decomposed, which contradicts"),
}


@pytest.mark.parametrize(("changes", "reported"), EDITS.values(), ids=EDITS)
def test_a_value_that_cannot_be_is_reported(engine, changes, reported):
    values = json.loads(record_path(engine).read_text())
    for key, change in changes.items():
        values[key] = values[key] | change if isinstance(change, dict) else change
    record_path(engine).write_text(json.dumps(values))
    with pytest.raises(NmnExportError, match="must be JSON of format 1") as caught:
        read_record(engine)
    assert reported in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_field_is_reported(engine):
    values = json.loads(record_path(engine).read_text())
    record_path(engine).write_text(json.dumps(values | {"new": 1}))
    with pytest.raises(NmnExportError, match="must be JSON of format 1"):
        read_record(engine)
