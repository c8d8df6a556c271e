"""What can be asked of a riff in a number: how dense, how silent, how syncopated, how wide.

One table, used to condition the denoiser, to find directions in the latent space, to choose among many, and to report.
Run `python -m steering.attributes FOLDER` to see what a folder's riffs have of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from config import ATTRIBUTES, DataConfig, TokenizerConfig, UserError, run_script
from dataset import load_riffs
from measures.metrics import notes_per_bar, pitch_range, rest_ratio, syncopation

UNITS = {
    "density": "notes per bar",
    "rests": "share of silent steps",
    "syncopation": "per bar, Longuet-Higgins & Lee",
    "range": "semitones",
}


def measure(name: str, tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """One attribute of some riffs, in its unit.

    Args:
        name: of ATTRIBUTES.
        tokens: int [riffs, T]

    Returns:
        float64 [riffs], finite: a silent riff has the range 0.
    """
    if name == "density":
        return notes_per_bar(tokens, tokenizer)
    if name == "rests":
        return rest_ratio(tokens)
    if name == "syncopation":
        return syncopation(tokens, tokenizer)
    if name == "range":
        return np.nan_to_num(pitch_range(tokens, tokenizer))
    raise KeyError(name)


def measure_all(tokens: np.ndarray, tokenizer: TokenizerConfig, names: Sequence[str] = ATTRIBUTES) -> np.ndarray:
    """Some attributes of some riffs. tokens: int [riffs, T] -> float64 [riffs, names]"""
    return np.stack([measure(name, tokens, tokenizer) for name in names], axis=1) if names else np.empty((len(tokens), 0))


def main(argv: Sequence[str]) -> int:
    if len(argv) > 1 or argv[:1] == ["--help"]:
        raise UserError("give one folder of riffs: python -m steering.attributes midi_riffs")
    tokenizer = TokenizerConfig()
    riff_data = load_riffs(DataConfig(data=argv[0] if argv else DataConfig.data), tokenizer)
    values = measure_all(np.stack([riff.tokens for riff in riff_data.riffs]), tokenizer)
    print(f"{'':12s} {'least':>8s} {'middle':>8s} {'most':>8s}")
    for name, column in zip(ATTRIBUTES, values.T, strict=True):
        print(f"{name:12s} {column.min():8.2f} {np.median(column):8.2f} {column.max():8.2f}  {UNITS[name]}")
    return 0


if __name__ == "__main__":
    run_script(main)
