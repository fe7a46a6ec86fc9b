"""Append-only JSON lines of a GPU run, each on disk before the next item starts."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Records:
    """The records of one file. A repeated run appends to it."""

    def __init__(self, file: Path) -> None:
        """Open `file` for appending; its folder is made.

        Raises:
            OSError: The folder cannot be made or written to.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab+") as stream:
            # A run that was killed while writing leaves half a line. End it, so that it spoils no
            # other record.
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
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue
