"""Writing files so that nobody loses one: whole or not at all, and together or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from config import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGNATURE = "midi riffs"  # inside our pictures, so that no other is overwritten


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: under a temporary name beside it, then renamed."""
    write_files({Path(path): data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together, all or none: only when all are on the disk are they renamed."""
    temporary = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp") for path in files}
    try:
        for path, data in files.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary[path].write_bytes(data)
            except OSError as error:
                error.filename = os.fspath(path)  # the temporary name would tell nobody anything
                raise
        for path in files:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            with contextlib.suppress(NotADirectoryError):  # then it is not there
                path.unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    """The fingerprint of a file's content."""
    return hashlib.sha256(data).hexdigest()


def require_ours(path: Path, fingerprint: str | None, script: str) -> None:
    """
    Args:
        fingerprint: of the file as the script wrote it; None: it wrote none.

    Raises:
        UserError: there is a file that the script did not write, or that was edited since.
    """
    if path.exists() and sha256(path.read_bytes()) != fingerprint:
        raise UserError(f"{path}: is not, or no longer, as {script} wrote it; move it away, or give another --output-dir")


def require_file(file: str, option: str = "") -> None:
    """
    Raises:
        UserError: there is no such file.
    """
    if Path(file).is_dir():
        raise UserError(f"{option}{file}: is a folder; give one MIDI file")
    if not Path(file).exists():
        raise UserError(f"{option}{file}: there is no such file; give a MIDI file, such as midi_riffs/harbour_verse1a.mid")


def require_room(folder: Path) -> None:
    """See whether a folder could be made and written to, and make nothing.

    Raises:
        UserError: it could not, as far as can be told.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{folder}: cannot be made, for {place} is no folder; give another --output-dir")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to, for {place} may not be; give another --output-dir")


def make_room(folder: Path) -> None:
    """Make a folder that files are to be written to, before the work that they need.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def refuse_foreign_picture(path: Path) -> None:
    """
    Raises:
        UserError: there is a file by that name that this project did not draw.
    """
    if path.exists() and SIGNATURE.encode() not in path.read_bytes()[:2000]:
        raise UserError(f"{path}: is not a picture of ours and would be overwritten; move it away, or give another --output-dir")


def new_picture(width: float, height: float) -> Figure:
    """An empty picture, in inches. matplotlib is loaded when the first one is made: it takes half a second."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        UserError: see refuse_foreign_picture.
    """
    refuse_foreign_picture(path)
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that the font lacks is drawn as a box
        figure.savefig(data, format="png", metadata={"Software": SIGNATURE})
    write_file(path, data.getvalue())
