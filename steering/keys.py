"""Keys, scales and named pitches, as players write them.

Run `python -m steering.keys` to see the scales.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from config import MAX_PITCH, TokenizerConfig, UserError, run_script
from midi_utils import parse_pitch, pitch_class_name, tokens_to_notes

SCALES: dict[str, tuple[int, ...]] = {  # semitones above the tonic
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic-minor": (0, 2, 3, 5, 7, 8, 11),
    "melodic-minor": (0, 2, 3, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "phrygian-dominant": (0, 1, 4, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "minor-pentatonic": (0, 3, 5, 7, 10),
    "major-pentatonic": (0, 2, 4, 7, 9),
    "blues": (0, 3, 5, 6, 7, 10),
    "chromatic": tuple(range(12)),
}
_ALIASES = {"": "major", "maj": "major", "ionian": "major", "m": "minor", "min": "minor", "aeolian": "minor", "natural-minor": "minor"}
_ALIASES |= {"pentatonic": "minor-pentatonic", "minor-blues": "blues"}
_NOTE = r"([a-g][#b]?)"

# How well a pitch class fits a key, from its tonic up (Krumhansl & Kessler 1982): major, minor; and the same for all 24 keys, major first,
# each of mean 0 and length 1, so that a product with weights ranks the keys as correlations do.
_PROFILES = np.array(
    [
        [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
        [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
    ]
)
_CENTRED = _PROFILES - _PROFILES.mean(axis=1, keepdims=True)
_KEYS = np.stack([np.roll(row / np.linalg.norm(row), tonic) for row in _CENTRED for tonic in range(12)])


@dataclass(frozen=True)
class Key:
    """A tonic and the pitch classes that go with it."""

    tonic: int  # 0..11, C is 0
    scale: str  # of SCALES
    extra: frozenset[int] = frozenset()  # pitch classes outside the scale that are allowed too

    @property
    def classes(self) -> frozenset[int]:
        return frozenset((self.tonic + step) % 12 for step in SCALES[self.scale]) | self.extra

    @property
    def name(self) -> str:
        return f"{pitch_class_name(self.tonic)} {self.scale}"


def _plain(text: str) -> str:
    return text.strip().replace("♯", "#").replace("♭", "b")


def _class_of(name: str) -> int:
    """The pitch class of a letter with its sharp or flat."""
    return parse_pitch(name + "4") % 12


def parse_key(key: str, scale: str = "") -> Key:
    """Read a key such as `E minor`, `F#m`, `Bb`, `A minor pentatonic`, or a tonic with a scale of its own.

    Args:
        scale: of SCALES, instead of what the key says.

    Raises:
        UserError: no such key or scale.
    """
    match = re.fullmatch(rf"{_NOTE}\s*([\w\s-]*)", _plain(key), flags=re.IGNORECASE)
    if match and match[2] and scale:
        raise UserError(f"--key {key[:40]} --scale {scale[:40]}: name two scales; give the tonic alone to --key, such as E")
    words = scale or (match[2] if match else "")
    words = "major" if words == "M" else re.sub(r"[\s_-]+", "-", words.strip()).lower()
    name = _ALIASES.get(words, words)
    if match is None or name not in SCALES:
        flag = f"--scale {scale[:40]}" if scale and match is not None else f"--key {key[:40]}"
        raise UserError(f"{flag}: give a tonic and a scale, such as 'E minor'; scales: {', '.join(SCALES)}")
    return Key(_class_of(match[1]), name)


def parse_one_pitch(flag: str, text: str) -> int:
    """Read a pitch: a name with its octave (E2 is the low E of a guitar), or a MIDI number.

    Raises:
        UserError: neither, or outside 1..127.
    """
    found = parse_pitches(flag, text)
    if len(found) != 1:
        raise UserError(f"{flag} {text[:40]}: give one note with its octave, such as E2, or a MIDI number, 1 to {MAX_PITCH}")
    return min(found)


def parse_pitches(flag: str, text: str) -> frozenset[int]:
    """Read some pitches with commas: E2 is one, E is every E, 40 is a MIDI number.

    Raises:
        UserError: something else.
    """
    found: set[int] = set()
    for word in map(_plain, text.split(",")):
        if match := re.fullmatch(_NOTE, word, flags=re.IGNORECASE):
            found |= set(range(_class_of(match[1]) or 12, MAX_PITCH + 1, 12))
            continue
        try:
            pitch = int(word) if word.isdecimal() else parse_pitch(word)
        except ValueError:
            pitch = 0
        if not 1 <= pitch <= MAX_PITCH:
            raise UserError(f"{flag} {text[:40]}: give notes such as E2 or G, or MIDI numbers, 1 to {MAX_PITCH}, with commas")
        found.add(pitch)
    return frozenset(found)


def estimate_key(tokens: np.ndarray, tokenizer: TokenizerConfig) -> Key:
    """The major or minor key that a riff is likeliest in; its own notes outside the scale are allowed too.

    The pitch classes, by how long they sound and with the first and the last note once more by a beat each, are correlated with the
    profiles of 24 keys (Krumhansl & Kessler 1982). tokens: int [T]; a silent riff is in C chromatic.
    """
    start, end, pitch = tokens_to_notes(tokens, tokenizer)
    if not len(pitch):
        return Key(0, "chromatic")
    weight = np.bincount(pitch % 12, weights=end - start, minlength=12).astype(float)
    weight[pitch[[0, -1]] % 12] += tokenizer.steps_per_beat
    mode, tonic = divmod(int(np.argmax(_KEYS @ weight)), 12)
    key = Key(tonic, ("major", "minor")[mode])
    return Key(key.tonic, key.scale, frozenset(int(p) for p in np.unique(pitch % 12)) - key.classes)


def main(argv: Sequence[str]) -> int:
    for scale in SCALES:
        print(f"{scale:18s} E: {' '.join(pitch_class_name(c) for c in ((4 + step) % 12 for step in SCALES[scale]))}")
    return 0


if __name__ == "__main__":
    run_script(main)
