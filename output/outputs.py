"""What lies beside a generated MIDI file: the JSON that says how it was made; tab, Guitar Pro and sound. No torch.

All files of one riff have its name with another ending and are written together or not at all. The JSON holds a fingerprint of each, so
that what somebody edited is never overwritten.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config import SoundConfig, TokenizerConfig, UserError
from dataset import plural
from files import require_ours, sha256, write_files
from guitar.fretboard import Fretboard
from guitar.guitar_pro import MAX_STRINGS, STEPS_PER_BEAT, riffs_to_gp5
from guitar.sound import render, wav_bytes
from guitar.tab import tab_page
from midi_utils import Riff

COMPANIONS = (".txt", ".gp5", ".wav")  # what may lie beside a riff, besides its JSON


def _hash_of_record(text: bytes) -> str:
    """The fingerprint of a JSON's text without the fingerprint that stands in it."""
    return sha256(re.sub(rb'"record_sha256": "\w*"', b"", text))


def _known_files(record: Path) -> dict[str, str]:
    """The fingerprints that a JSON of ours holds, by file ending; none without a JSON.

    Raises:
        UserError: it is not, or no longer, ours.
    """
    if not record.exists():
        return {}
    try:
        text = record.read_bytes()
        content = json.loads(text)
        known = {".mid": content["sha256"], **content.get("beside", {})}
        ours = content.get("record_sha256")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{record}: was not written by generate.py; move it away, or give another --output-dir") from None
    if ours != _hash_of_record(text):
        raise UserError(f"{record}: was edited since generate.py wrote it; move it away, or give another --output-dir")
    return known


def refuse_to_overwrite(path: Path) -> None:
    """Our own output may be replaced, since its JSON says how to make it again; anything else may not.

    Args:
        path: of the MIDI file.

    Raises:
        UserError: there is a file that generate.py did not write, or that was edited since.
    """
    known = _known_files(path.with_suffix(".json"))
    for ending in (".mid", *COMPANIONS):
        require_ours(path.with_suffix(ending), known.get(ending), "generate.py")


def companions(riffs: Sequence[Riff], tokenizer: TokenizerConfig, board: Fretboard, sound: SoundConfig) -> dict[str, bytes]:
    """Tab, Guitar Pro and, if asked for, sound of riffs in a row, by file ending. What a format has no signs for is left out.

    Raises:
        UserError: fluidsynth is asked for and fails.
    """
    files = {".txt": "\n".join(tab_page(riff, tokenizer, board) for riff in riffs).encode()}
    if tokenizer.steps_per_beat in STEPS_PER_BEAT and len(board.strings) <= MAX_STRINGS:
        files[".gp5"] = riffs_to_gp5(riffs, tokenizer, board)
    if sound.wav:
        files[".wav"] = wav_bytes(render(riffs, tokenizer, sound))
    return files


def write_with_json(path: Path, midi: bytes, facts: Mapping[str, Any], beside: Mapping[str, bytes] | None = None) -> None:
    """Write a MIDI file, the JSON that describes it and what else belongs to it: all or none.

    Args:
        beside: files by ending. Those of an earlier call that are not written again are removed: they would belong to another riff.
    """
    beside = beside or {}
    hashes = {ending: sha256(data) for ending, data in beside.items()}
    record = {"file": path.name, "sha256": sha256(midi), "record_sha256": "", **({"beside": hashes} if beside else {}), **facts}
    text = (json.dumps(record, indent=1) + "\n").encode()
    text = text.replace(b'"record_sha256": ""', f'"record_sha256": "{_hash_of_record(text)}"'.encode(), 1)
    stale = set(_known_files(path.with_suffix(".json"))) - set(beside) - {".mid"}
    write_files({path: midi, path.with_suffix(".json"): text, **{path.with_suffix(ending): data for ending, data in beside.items()}})
    for ending in stale & set(COMPANIONS):
        path.with_suffix(ending).unlink(missing_ok=True)


# ---------------------------------------------------------------- what is said about it


def mention_others(folder: Path, noun: str, ours: Sequence[Path], names: str = "") -> None:
    """Say that files of earlier calls lie beside those of this one. names: what they match; <noun>_seed*.mid if nothing is said"""
    others = set(folder.glob(names or f"{noun}_seed*.mid")) - set(ours)
    if others:
        print(f"{folder}: {plural(len(others), noun)} of earlier calls lie there too; --output-dir keeps sets apart")


def report_redrawn(
    noun: str, attempts: np.ndarray, refused: Sequence[int], max_copy: float, attempts_made: int
) -> int:  # fmt: skip
    """Say what was drawn again and what could not be had. -> exit status"""
    if (attempts > 0).any():
        print(f"drawn again because they copied too much (--max-copy {max_copy:g}): {int((attempts > 0).sum())} of {len(attempts)}")
    if refused:
        shown = ", ".join(map(str, refused[:8])) + ", ..." * (len(refused) > 8)
        print(
            f"generate.py: no {noun} for seed {shown}: {attempts_made} attempts all copied more than --max-copy {max_copy:g}",
            file=sys.stderr,
        )
    return 1 if refused else 0
