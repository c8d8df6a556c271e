"""Writing files so that nobody loses one: whole or not at all, and together or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: under a temporary name beside it, then renamed."""
    write_files({Path(path): data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together, all or none: only when all are on the disk are they renamed."""
    temporary = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp") for path in files}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_bytes(data)
        for path in files:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
