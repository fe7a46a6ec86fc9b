"""Append-only JSON lines of a GPU run. Each is on disk before the next item starts."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Records:
    """The records of one file. A repeated run appends to it."""

    def __init__(self, file: Path) -> None:
        """Open `file` for appending; create its folder if it does not exist.

        Raises:
            OSError: The folder cannot be created or written to.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab+") as stream:
            # A run that was killed while writing leaves an incomplete line. End that line, so that
            # the next record starts on a line of its own.
            if stream.tell() and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n":
                stream.write(b"\n")
        self.file = file

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record of a kind and wait until it is on disk."""
        record: Record = {"kind": kind, **fields}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        return record

    def __iter__(self) -> Iterator[Record]:
        """Yield every complete record, the oldest first."""
        return self.read(self.file)

    @staticmethod
    def read(file: Path) -> Iterator[Record]:
        """Yield every complete record of a file, the oldest first.

        Raises:
            OSError: The file cannot be read.
        """
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict) and "kind" in record:
                yield record

    def finished(self) -> set[str]:
        """Return the names of the items whose last run ended without an error."""
        names = set()
        for record in self:
            if record["kind"] == "done":
                names.add(record["item"])
            elif record["kind"] == "error":
                names.discard(record["item"])
        return names
