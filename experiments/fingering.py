"""Can generated riffs be played, and does planning ahead save the hand anything?

    python -m experiments.fingering [--run-dir runs/riff_2bar] [--num-outputs 1000] [--seed 0] [--tuning ""]

Draws riffs as generate.py does and fingers each twice: the cheapest of all ways, and greedily, each note where it is cheapest after the one
before. Prints the notes that the guitar lacks (there should be none), both costs and how far the hand travels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from checkpoints import load_diffusion, load_vae
from config import DIFFUSION_FILE, VAE_FILE, GuitarConfig, SampleConfig, run_script
from guitar.fretboard import Fretboard, finger, fretboard, greedy_fingering
from midi_utils import tokens_to_notes
from sampling import sample_riffs
from steering.rules import Demands, RiffRules


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run-dir", default="runs/riff_2bar")
    parser.add_argument("--num-outputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tuning", default="")
    options = parser.parse_args(argv)
    folder = Path(options.run_dir)
    vae, content = load_vae(folder / VAE_FILE)
    diffusion, _ = load_diffusion(folder / DIFFUSION_FILE, vae)
    low, high = content["data"]["lowest"], content["data"]["highest"]
    board: Fretboard = fretboard(GuitarConfig(tuning=options.tuning), low, high)
    rules = RiffRules(vae.tokenizer, Demands(max(low, board.lowest), min(high, board.highest)))
    seeds = range(options.seed, options.seed + options.num_outputs)
    tokens, _ = sample_riffs(vae, diffusion, seeds, SampleConfig(), rules)
    unplayable, costs, moves, seconds = 0, np.zeros((len(tokens), 2)), np.zeros((len(tokens), 2)), 0.0
    for i, riff in enumerate(tokens):
        notes = tokens_to_notes(riff, vae.tokenizer)
        begin = time.perf_counter()
        best = finger(board, *notes)
        seconds += time.perf_counter() - begin
        other = greedy_fingering(board, *notes)
        unplayable += int((~best.playable).sum())
        costs[i], moves[i] = (best.cost, other.cost), (best.moves, other.moves)
    print(f"{len(tokens)} riffs on {board.name}: {unplayable} notes that it lacks; {1000 * seconds / len(tokens):.2f} ms each")
    dearer = int((costs[:, 0] > costs[:, 1] + 1e-9).sum())
    print(f"cost: {costs[:, 0].mean():.2f} cheapest, {costs[:, 1].mean():.2f} greedy; dearer than greedy: {dearer}")
    print(f"frets travelled by the hand: {moves[:, 0].mean():.2f} cheapest, {moves[:, 1].mean():.2f} greedy")
    return 0


if __name__ == "__main__":
    run_script(main)
