"""Render riffs.txt, the notation our riffs were written in, to the MIDI files of this folder.

python -m midi_riffs.render            write what is missing, and say which files differ
python -m midi_riffs.render --force    write those too
python -m midi_riffs.render --check    only say whether the files are what the notation says
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from config import HOLD, REST, TokenizerConfig, UserError, run_script
from files import write_file
from midi_utils import Riff, is_legal, parse_pitch, riffs_to_midi

FOLDER = Path(__file__).parent
TOKENIZER = TokenizerConfig()


def read_notation(text: str) -> list[Riff]:
    """Read the notation.

    Args:
        text: see the head of riffs.txt.

    Returns:
        the riffs, named <song>_verse<letter>.

    Raises:
        UserError: a line that cannot be read, with its number.
    """
    riffs, song, fields = [], "", {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("song "):
                first, *rest = line.removeprefix("song ").split("|")
                song = first.strip()
                fields = {key: value for key, _, value in (part.strip().partition(" ") for part in rest)}
                continue
            section, *cells = line.replace("|", " ").split()
            symbols = {".": REST, "-": HOLD}
            tokens = np.array([symbols[cell] if cell in symbols else parse_pitch(cell) for cell in cells], dtype=np.int64)
            if len(tokens) != TOKENIZER.steps:
                raise ValueError(f"{len(tokens)} cells, a riff has {TOKENIZER.steps}")
            if not is_legal(tokens, TOKENIZER):
                raise ValueError("a - with no note before it")
            name = f"{song}_verse{section}"
            markers = ((0.0, f"Verse {section}"),)
            riffs.append(Riff(tokens, ((0.0, float(fields["bpm"])),), int(fields["program"]), name, markers))
        except (ValueError, KeyError) as error:
            raise UserError(f"riffs.txt, line {number}: {error}; see the head of the file for the notation") from None
    return riffs


def main(argv: Sequence[str]) -> int:
    riffs = read_notation((FOLDER / "riffs.txt").read_text(encoding="utf-8"))
    files = {FOLDER / f"{riff.name}.mid": riffs_to_midi([riff], TOKENIZER) for riff in riffs}
    stale = [path.name for path, data in files.items() if not path.exists() or path.read_bytes() != data]
    stale += [path.name for path in FOLDER.glob("*.mid") if path not in files]
    if "--check" in argv:
        print(f"{len(files)} riffs, {len(stale)} files differ from the notation {' '.join(stale[:5])}")
        return 1 if stale else 0
    kept = []
    for path, data in files.items():
        if path.exists() and path.read_bytes() != data and "--force" not in argv:
            kept.append(path.name)
        else:
            write_file(path, data)
    print(f"{len(files) - len(kept)} files in {FOLDER.name}/ are as in the notation")
    if kept:
        print(f"kept {len(kept)} that differ from it, --force overwrites them: {' '.join(kept[:5])}{' ...' * (len(kept) > 5)}")
    return 1 if kept else 0


if __name__ == "__main__":
    run_script(main)
