"""Do samples look like the riffs that were held out? Temperature 1, rest penalty 0, diffusion prior.

    python -m experiments.sample_statistics [--run-dir runs/riff_2bar] [--samples 1000] [--seed 0]

Prints the means of the samples beside the 95 % bootstrap interval of the held-out songs (whole songs are drawn), and
whether any sample is silent, illegal, or a training riff, exact or transposed. Exit 1 if rests or notes per bar lie outside.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from checkpoints import load_diffusion, load_same_riffs, load_vae
from config import DIFFUSION_FILE, VAE_FILE, SampleConfig, UserError, run_script
from metrics import bootstrap_interval, distinct_share, notes_per_bar, relative_tokens, rest_ratio, restrike_share, scale_consistency
from midi_utils import is_legal
from sampling import sample_riffs


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run-dir", default="runs/riff_2bar", help="the run to look at")
    parser.add_argument("--samples", type=int, default=1000, help="riffs to draw")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first riff")
    parser.add_argument("--prior", choices=("diffusion", "normal"), default="diffusion")
    parser.add_argument("--temperature", type=float, default=1.0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    run = Path(options.run_dir)
    vae, content = load_vae(run / VAE_FILE)
    diffusion = load_diffusion(run / DIFFUSION_FILE, vae)[0] if options.prior == "diffusion" else None
    riff_data = load_same_riffs(content, vae.tokenizer, "", run / VAE_FILE)
    if not riff_data.held_out.any():
        raise UserError(f"{run}: nothing was held out, so there is nothing to compare with")
    seeds = range(options.seed, options.seed + options.samples)
    tokens, _ = sample_riffs(vae, diffusion, seeds, SampleConfig(temperature=options.temperature))
    held, songs = riff_data.held_out_tokens, riff_data.song[riff_data.held_out]

    measures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "rest ratio": rest_ratio,
        "notes per bar": lambda x: notes_per_bar(x, vae.tokenizer),
        "re-struck share": lambda x: restrike_share(x, vae.tokenizer),
        "in one scale": lambda x: scale_consistency(x, vae.tokenizer),
    }
    print(f"{'':18s}{'train':>9s}{'held out':>9s}{'95 % of held-out songs':>26s}{'samples':>9s}")
    outside = []
    for name, measure in measures.items():
        known = ~np.isnan(measure(held))
        low, high = bootstrap_interval(measure(held)[known], songs[known])
        mean = float(np.nanmean(measure(tokens)))
        verdict = "inside" if low <= mean <= high else "OUTSIDE"
        outside += [name] * (verdict == "OUTSIDE" and name in ("rest ratio", "notes per bar"))
        train = float(np.nanmean(measure(riff_data.train_tokens)))
        print(f"{name:18s}{train:9.3f}{np.nanmean(measure(held)):9.3f}{f'{low:.3f} to {high:.3f}':>26s}{mean:9.3f}  {verdict}")
    riffs = {riff.tobytes() for riff in relative_tokens(riff_data.tokens)}
    copies = sum(riff.tobytes() in riffs for riff in relative_tokens(tokens))
    illegal = sum(not is_legal(riff, vae.tokenizer) for riff in tokens)
    silent = int((rest_ratio(tokens) == 1).sum())
    print(
        f"{len(tokens)} samples: {silent} silent, {illegal} illegal, {copies} copies of a riff of the folder (exact or transposed), ",
        end="",
    )
    print(f"{distinct_share(tokens):.1%} distinct")
    return 1 if outside or illegal or silent else 0


if __name__ == "__main__":
    run_script(main)
