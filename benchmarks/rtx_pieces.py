"""Files cut into pieces that a small transfer can carry, and installed from them; no dependencies.

The pieces are consecutive parts of one zip archive, which contains `wheels/` and `subjects/`.
`pieces.json` lists their names, sizes and SHA-256.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PIECES, LIST, INSTALLED = "pieces", "pieces.json", "installed.json"

WHEELS, SUBJECTS = "wheels", "subjects"
"""Folders in the archive. Wheels are unpacked; subjects are copied as they are."""


class RtxError(Exception):
    """What the user has to change, in one line."""


def running_python() -> str:
    """Return the version of this Python, as in 3.12."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def cut(
    wheels: Sequence[Path], subjects: Sequence[Path], folder: Path, size: int, python: str
) -> int:
    """Write files as pieces and the list of them, in place of earlier ones; return their number.

    The same files make the same pieces, so that pieces which were carried before are still valid.

    Args:
        wheels: Wheel files.
        subjects: Other files.
        folder: Folder to write.
        size: Largest size of a piece in bytes.
        python: Version of Python that the wheels are for, as in 3.12.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryFile(dir=folder) as archive:
        with zipfile.ZipFile(archive, "w") as content:
            for place, files in ((WHEELS, wheels), (SUBJECTS, subjects)):
                for file in sorted(files):
                    # A ZipInfo of its own has no date.
                    content.writestr(zipfile.ZipInfo(f"{place}/{file.name}"), file.read_bytes())
        archive.seek(0)
        pieces: list[dict[str, Any]] = []
        while part := archive.read(size):
            name = f"piece-{len(pieces) + 1:02}"
            (folder / name).write_bytes(part)
            pieces.append(_describe(name, part))
    listed = {"python": python, "pieces": pieces}
    (folder / LIST).write_text(json.dumps(listed, indent=1) + "\n")
    return len(pieces)


def _describe(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def install(source: Path, target: Path) -> str:
    """Take pieces from a folder, and install what they make once all are there.

    Pieces are kept in `target`, so that each call may bring some of them. The list has to be there
    in the first call.

    Args:
        source: Folder of some pieces and the list.
        target: Folder to install packages into, as `pip install --target` does.

    Returns:
        What was done, in one line.

    Raises:
        RtxError: There is no list, or a piece is damaged; nothing is installed.
    """
    kept = target / PIECES
    listed = _read_list(source, kept)
    kept.mkdir(parents=True, exist_ok=True)
    (kept / LIST).write_text(json.dumps(listed))
    missing = _keep(listed["pieces"], source, kept)
    if missing:
        return f"waiting for pieces {', '.join(map(str, missing))}"
    done = target / INSTALLED
    earlier = json.loads(done.read_text()) if done.is_file() else {"entries": []}
    if earlier.get("list") == listed:
        return f"already installed in {target}"
    with tempfile.TemporaryDirectory(dir=target, prefix="unpacked-") as temporary:
        unpacked = Path(temporary)
        _unpack([kept / piece["name"] for piece in listed["pieces"]], unpacked)
        done.unlink(missing_ok=True)
        for name in earlier["entries"]:
            _remove(target / name)
        names = sorted(entry.name for entry in unpacked.iterdir())
        for name in names:
            _remove(target / name)
            (unpacked / name).rename(target / name)
    done.write_text(json.dumps({"list": listed, "entries": names}))
    return f"installed {len(names)} folders and files in {target}, for Python {listed['python']}"


def installed_python(target: Path) -> str:
    """Return the version of Python that a folder was installed for.

    Raises:
        RtxError: It is not complete.
    """
    done = target / INSTALLED
    if not done.is_file():
        raise RtxError(
            f"TARGET_DIR must be complete; got no '{done}'. Install all pieces into it first."
        )
    python: str = json.loads(done.read_text())["list"]["python"]
    return python


def _read_list(source: Path, kept: Path) -> dict[str, Any]:
    file = next((f / LIST for f in (source, kept) if (f / LIST).is_file()), None)
    if file is None:
        raise RtxError(
            f"The list of pieces must be there first; got no '{source / LIST}'. Copy it."
        )
    try:
        listed: dict[str, Any] = json.loads(file.read_text())
        if all(Path(piece["name"]).name == piece["name"] for piece in listed["pieces"]):
            return listed
    except (ValueError, KeyError, TypeError):
        pass
    raise RtxError(f"The list of pieces must be as `pack` wrote it; got '{file}'. Copy it again.")


def _keep(pieces: list[dict[str, Any]], source: Path, kept: Path) -> list[int]:
    """Copy the pieces that are not kept yet; return the numbers of the missing ones."""
    missing = []
    for number, piece in enumerate(pieces, 1):
        name = piece["name"]
        if (kept / name).is_file() and _describe(name, (kept / name).read_bytes()) == piece:
            continue
        if not (source / name).is_file():
            missing.append(number)
            continue
        content = (source / name).read_bytes()
        if _describe(name, content) != piece:
            raise RtxError(
                f"A piece must have the SHA-256 in {LIST}; got another one, {len(content)} bytes "
                f"instead of {piece['bytes']}: '{source / name}'. Copy it again."
            )
        partial = kept / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(kept / name)
    return missing


def _unpack(pieces: Sequence[Path], folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder.parent) as archive:
        for piece in pieces:
            archive.write(piece.read_bytes())
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
    for wheel in sorted((folder / WHEELS).iterdir()):
        with zipfile.ZipFile(wheel) as content:
            content.extractall(folder)
    shutil.rmtree(folder / WHEELS)
    # TensorRT's parser opens the library under its name without a version, which the wheel lacks.
    for library in folder.glob("tensorrt_rtx_libs/libtensorrt_rtx.so.*"):
        library.with_name("libtensorrt_rtx.so").symlink_to(library.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
