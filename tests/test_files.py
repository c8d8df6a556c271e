"""Files made ready before the work, and pictures that overwrite nobody's."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from conftest import assert_is_a_picture
from matplotlib.figure import Figure

from config import UserError
from files import SIGNATURE, make_room, refuse_foreign_picture, require_room, save_picture


def drawing(text: str = "riffs") -> Figure:
    figure = Figure(figsize=(4, 3), dpi=100)
    axes = figure.subplots()
    axes.plot([0, 1, 2], [0, 2, 1], lw=9)
    axes.set_title(text)
    return figure


def test_room_is_made_and_nothing_left_in_it(tmp_path: Path) -> None:
    for _ in range(2):
        make_room(tmp_path / "a" / "b")
        assert list((tmp_path / "a" / "b").iterdir()) == []


def test_no_room_is_an_error_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a folder that is there and cannot be written to, which shows only when the work is done."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError):
        make_room(tmp_path / "file")

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make_room(tmp_path / "room")


def test_room_that_cannot_be_is_seen_and_none_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    require_room(tmp_path)
    require_room(tmp_path / "a" / "b")
    for name in ("file", "link"):
        with pytest.raises(UserError, match=f"a: cannot be made, for .*{name} is no folder"):
            require_room(tmp_path / name / "a")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written to"):
        require_room(tmp_path / "a" / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_picture_of_ours_may_be_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.png"
    save_picture(drawing(), path)
    assert_is_a_picture(path)
    first = path.read_bytes()
    assert SIGNATURE.encode() in first[:2000]
    refuse_foreign_picture(path)
    save_picture(drawing("others"), path)
    assert path.read_bytes() != first and [file.name for file in path.parent.iterdir()] == ["a.png"]
    save_picture(drawing(), path)
    assert path.read_bytes() == first  # no clock in it


@pytest.mark.parametrize("content", ["another program's", "a photo", "empty"])
def test_a_picture_of_somebody_elses_is_not_overwritten(content: str, tmp_path: Path) -> None:
    """Guards against the loss of a picture that only has the same name."""
    path = tmp_path / "a.png"
    refuse_foreign_picture(path)  # nothing there
    if content == "another program's":
        drawing().savefig(path)
    else:
        path.write_bytes(b"\x89PNG, a photo" if content == "a photo" else b"")
    before = path.read_bytes()
    for ask in (lambda: refuse_foreign_picture(path), lambda: save_picture(drawing(), path)):
        with pytest.raises(UserError, match="not a picture of ours") as error:
            ask()
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_file_name_that_the_font_cannot_write_is_no_reason_to_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_picture(drawing("\u6f22\u5b57"), tmp_path / "a.png")
    assert_is_a_picture(tmp_path / "a.png")
