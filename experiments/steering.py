"""How well does the generator do what it is asked, and what does it cost?

    python -m experiments.steering [runs/seed0 runs/seed1 ...] [--num-outputs 1000] [--seed 0] [--picture docs/steering.png]

Each run folder holds a VAE and a diffusion model that knows conditions (default: runs/riff_2bar). Prints a table for each kind of
steering, mean over the runs; what is compared with people is compared with the training riffs, or with the held-out ones where it says so.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from checkpoints import BASE_NAME, load_diffusion, load_same_riffs, load_vae
from config import ATTRIBUTES, DIFFUSION_FILE, VAE_FILE, SampleConfig, SteerConfig, run_script
from dataset import RiffData
from diffusion import LatentDiffusion
from files import make_room, save_picture
from measures.distances import median_bandwidth, mmd, riff_features, standardize
from measures.metrics import onset_mask, pitch_class_entropy, scale_consistency
from measures.novelty import TrainingRiffs, riff_distances
from models import MusicVAE
from presets import Arrange
from steering import from_riff
from steering.arranging import arrange, leaps, parse_form
from steering.attributes import measure
from steering.directions import direction
from steering.drawing import Wish, draw
from steering.keys import parse_key
from steering.picking import pick
from steering.requests import settled, wish_of
from steering.rules import FREE, Demands, RiffRules

SAMPLE = SampleConfig()
LEVELS = 20  # values of an attribute that are asked for
STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SCALES = (0.0, 1.0, 1.5, 2.0, 3.0)
Rows = dict[str, list[float]]


@dataclass(frozen=True)
class Run:
    """What is measured on."""

    vae: MusicVAE
    diffusion: LatentDiffusion
    riffs: RiffData
    known: np.ndarray
    pitch_range: tuple[int, int]
    count: int  # riffs of a row
    seed: int

    def wish(self, steer: SteerConfig | None = None, given: np.ndarray | None = None, keep_key: bool = False) -> Wish:
        steer = steer or SteerConfig()
        return settled(wish_of(steer, self.vae, self.vae.tokenizer, self.pitch_range, self.known, given, keep_key), steer)

    def draw(self, wish: Wish, count: int, first: int = 0, prior: bool = True) -> np.ndarray:
        seeds = range(self.seed + first, self.seed + first + count)
        return draw(self.vae, self.diffusion if prior else None, seeds, SAMPLE, wish).tokens

    def distance(self, tokens: np.ndarray) -> float:
        """MMD^2 to the held-out riffs in fixed features, as evaluate.py has it."""
        tokenizer = self.vae.tokenizer
        unit = riff_features(self.riffs.train_tokens, tokenizer)
        points, real = (standardize(riff_features(riffs, tokenizer), unit) for riffs in (tokens, self.riffs.held_out_tokens))
        return float(mmd(points, real, median_bandwidth(real), None, self.riffs.song[self.riffs.held_out])[0])


def rhythm_differs(a: np.ndarray, b: np.ndarray, run: Run) -> float:
    """Steps on which one of two riffs has an onset and the other has not, mean."""
    tokenizer = run.vae.tokenizer
    return float((onset_mask(a, tokenizer) != onset_mask(b, tokenizer)).sum(axis=1).mean())


def echo(tokens: np.ndarray, run: Run) -> float:
    """Share of riffs whose second half has the first one's onsets, two steps off at most."""
    onsets = onset_mask(tokens, run.vae.tokenizer)
    half = onsets.shape[1] // 2
    return float(((onsets[:, :half] != onsets[:, half:]).sum(axis=1) <= 2).mean())


# ---------------------------------------------------------------- the tables


def attributes(run: Run) -> Rows:
    """Asked and got, by guidance scale: Spearman's rho with one candidate, with 16, without a prior that is told; and what it costs."""
    rows: Rows = {}
    each = max(2, run.count // LEVELS)
    rows["nothing asked, MMD^2"] = [run.distance(run.draw(run.wish(), run.count))]
    for name in ATTRIBUTES:
        values = np.quantile(measure(name, run.known, run.vae.tokenizer), (np.arange(LEVELS) + 0.5) / LEVELS)
        for scale, candidates, label in [
            *((scale, 1, f"guidance {scale:g}, 1 candidate") for scale in SCALES),
            (2.0, 16, "guidance 2, 16 candidates (default)"),
            (0.0, 16, "best of 16, the prior not told"),
        ]:
            wishes = [run.wish(SteerConfig(**{name: float(v)}, guidance_scale=scale, candidates=candidates)) for v in values]  # type: ignore[arg-type]
            drawn = [run.draw(wish, each, i * each) for i, wish in enumerate(wishes)]
            got = np.concatenate([measure(name, tokens, run.vae.tokenizer) for tokens in drawn])
            asked = np.repeat(values, each)
            rows[f"{name}, {label}"] = [
                float(spearmanr(asked, got)[0]),
                float(np.abs(asked - got).mean()),
                run.distance(np.concatenate(drawn)),
            ]
    return rows


def strengths(run: Run) -> Rows:
    """How far variations go from the held-out riffs they start from."""
    rows: Rows = {}
    given = run.riffs.held_out_tokens[:24]
    for strength in STRENGTHS:
        changed, rhythm, scale = [], [], []
        for riff in given:
            found = run.draw(from_riff.vary(run.vae, riff, run.wish(), strength), max(2, run.count // 100))
            changed.append(riff_distances(found, riff[None], run.vae.tokenizer).mean())
            rhythm.append(rhythm_differs(found, riff[None], run))
            scale.append(np.nanmean(scale_consistency(found, run.vae.tokenizer)))
        rows[f"vary --strength {strength:g}"] = [float(np.mean(column)) for column in (changed, rhythm, scale)]
    tokens, song = run.riffs.train_tokens, run.riffs.train_song
    same = (song[:, None] == song) & ~np.eye(len(song), dtype=bool)
    first, second = np.nonzero(same)
    between = riff_distances(tokens, tokens, run.vae.tokenizer)
    scale = float(np.nanmean(scale_consistency(tokens, run.vae.tokenizer)))
    rows["people: two riffs of a song"] = [float(between[same].mean()), rhythm_differs(tokens[first], tokens[second], run), scale]
    first, second = np.nonzero(song[:, None] != song)
    rows["people: riffs of two songs"] = [
        float(between[song[:, None] != song].mean()),
        rhythm_differs(tokens[first], tokens[second], run),
        scale,
    ]
    return rows


def gaps(run: Run) -> Rows:
    """The second bar from the first: does it echo, stay in the scale, and leap where it begins?"""
    tokenizer = run.vae.tokenizer
    given = run.riffs.held_out_tokens[:24]
    keep = np.arange(tokenizer.steps) < tokenizer.steps // 2
    each = max(2, run.count // 50)

    def judged(tokens: np.ndarray) -> list[float]:
        joins = []
        for riff in tokens:
            before, after = (riff[half][(riff[half] > 0) & (riff[half] < 128)] for half in (keep, ~keep))
            joins += [abs(int(after[0]) - int(before[-1]))] if len(before) and len(after) else []
        return [echo(tokens, run), float(np.nanmean(scale_consistency(tokens, tokenizer))), float(np.mean(joins))]

    def filled(wish_for: Callable[[np.ndarray], Wish]) -> np.ndarray:
        return np.concatenate([run.draw(wish_for(riff), each) for riff in given])

    def fresh(candidates: int) -> Callable[[np.ndarray], Wish]:
        def wish_for(riff: np.ndarray) -> Wish:
            demands = Demands(*run.pitch_range, fixed=np.where(keep, riff, FREE))
            return dataclasses.replace(run.wish(), rules=RiffRules(tokenizer, demands), candidates=candidates)

        return wish_for

    def infill(strength: float, keep_key: bool) -> Callable[[np.ndarray], Wish]:
        return lambda riff: settled(from_riff.infill(run.vae, riff, keep, run.wish(None, riff, keep_key), strength), SteerConfig())

    rows = {"held-out riffs": judged(run.riffs.held_out_tokens), "fresh z, 1 candidate": judged(filled(fresh(1)))}
    rows["fresh z, 16 candidates"] = judged(filled(fresh(16)))
    for strength in (0.4, 0.6, 0.8):
        rows[f"infill --strength {strength:g} --key any"] = judged(filled(infill(strength, False)))
    rows["infill (--strength 0.6, the riff's key)"] = judged(filled(infill(0.6, True)))
    return rows


def keys(run: Run) -> Rows:
    """Riffs in keys that the training riffs hardly know: moved there, or held there alone."""
    rows: Rows = {}
    for label, move in (("nothing asked", None), ("held to the scale", False), ("moved to the key, then held", True)):
        nats, entropy, tonic = [], [], []
        for name in ("F minor", "G# minor", "A# major"):
            key = parse_key(name)
            steer = SteerConfig(key=name) if move is not None else SteerConfig()
            wish = dataclasses.replace(run.wish(steer), candidates=1)
            wish = wish if move else dataclasses.replace(wish, key=None)
            drawn = draw(run.vae, run.diffusion, range(run.seed, run.seed + run.count // 5), SAMPLE, wish)
            nats.append(-drawn.weights.mean())
            entropy.append(np.nanmean(pitch_class_entropy(drawn.tokens, run.vae.tokenizer)))
            sounds = (drawn.tokens > 0) & (drawn.tokens < 128)
            tonic.append((drawn.tokens[sounds] % 12 == key.tonic).mean())
        rows[label] = [float(np.mean(column)) for column in (nats, entropy, tonic)]
    return rows


def ways(run: Run) -> Rows:
    """Interpolation: neighbours on the way lie nearer than riffs further apart."""
    rows: Rows = {}
    held, steps = run.riffs.held_out_tokens, 9
    rng = np.random.default_rng(run.seed)
    for label, strength in (("through the diffusion (--strength 0.4)", 0.4), ("direct", 0.0)):
        near, middle, far = [], [], []
        for number in range(max(4, run.count // 20)):
            a, b = held[rng.choice(len(held), 2, replace=False)]
            way = from_riff.interpolate(
                run.vae, run.diffusion, (a, b), steps, strength, run.seed + number, SAMPLE, RiffRules(run.vae.tokenizer)
            )
            apart = riff_distances(way, way, run.vae.tokenizer)
            near.append(np.diag(apart, 1).mean())
            middle.append(np.diag(apart, steps // 2).mean())
            far.append(apart[0, -1])
        rows[label] = [float(np.mean(column)) for column in (near, middle, far)]
    return rows


def verses(run: Run) -> Rows:
    """AABA: how far repeats and contrasts lie from the idea; leaps at the joins."""
    repeats, contrasts, joins = [], [], []
    sections, each = parse_form("AABA", 16, run.vae.tokenizer.bars)
    for number, idea in enumerate(run.riffs.held_out_tokens[: max(2, min(24, run.count // 40))]):
        wish = dataclasses.replace(run.wish(None, idea, True), strength=Arrange.strength)
        verse = arrange(
            run.vae, run.diffusion, idea, sections, each, run.seed + number, SAMPLE, wish, lambda tokens: np.zeros(len(tokens), dtype=bool)
        )
        apart = riff_distances(np.stack([part.tokens for part in verse]), idea[None], run.vae.tokenizer)[:, 0]
        repeats.append(np.mean([d for d, part in zip(apart[1:], verse[1:], strict=True) if part.letter == "A"]))
        contrasts.append(np.mean([d for d, part in zip(apart, verse, strict=True) if part.letter == "B"]))
        joins += leaps(verse)
    return {"verses": [float(np.mean(repeats)), float(np.mean(contrasts)), float(np.mean(joins)), float(np.max(joins))]}


def directions(run: Run) -> Rows:
    """Along an attribute's direction: Spearman's rho between what is asked (-2 to 2 standard deviations) and what is got."""
    rows: Rows = {}
    amounts = np.linspace(-2, 2, 9)
    for name in ATTRIBUTES:
        step = direction(run.vae, name, run.known)
        deviation = measure(name, run.known, run.vae.tokenizer).std()
        got = []
        for amount in amounts:
            drawn = run.draw(dataclasses.replace(run.wish(), shift=float(amount) * step), max(4, run.count // 10))
            got.append(measure(name, drawn, run.vae.tokenizer))
        asked = np.repeat(amounts, [len(values) for values in got])
        means = [values.mean() for values in got]
        rows[name] = [float(spearmanr(asked, np.concatenate(got))[0]), float(np.polyfit(amounts, means, 1)[0] / deviation)]
    return rows


def picks(run: Run) -> Rows:
    """16 of 200 riffs: how new, and how different from each other."""
    tokens = run.draw(run.wish(), 200)
    distance = TrainingRiffs(run.known, [""] * len(run.known), run.vae.tokenizer).distances(tokens)[1]
    apart = riff_distances(tokens, tokens, run.vae.tokenizer)

    def judged(index: np.ndarray) -> list[float]:
        among = apart[np.ix_(index, index)][~np.eye(len(index), dtype=bool)]
        return [float(distance[index].mean()), float(among.mean()), float(among.min())]

    return {
        "the first 16": judged(np.arange(16)),
        "the 16 newest": judged(np.argsort(-distance)[:16]),
        "--pick 16 --by novelty": judged(pick(distance, tokens, 16, run.vae.tokenizer)),
    }


TABLES: dict[str, tuple[Callable[[Run], Rows], tuple[str, ...]]] = {
    "attributes": (attributes, ("rho", "mean error", "MMD^2")),
    "strengths": (strengths, ("changed", "rhythm, steps", "in one scale")),
    "gaps": (gaps, ("echo", "in one scale", "leap at the join")),
    "keys": (keys, ("forced, nats a riff", "pitch-class entropy", "on the tonic")),
    "ways": (ways, ("neighbours", "half a way", "ends")),
    "verses": (verses, ("A to the idea", "B to the idea", "mean leap", "largest leap")),
    "directions": (directions, ("rho", "got per asked")),
    "picks": (picks, ("distance to training riffs", "to each other", "nearest two")),
}


def load_run(folder: Path, count: int, seed: int) -> Run:
    vae, content = load_vae(folder / VAE_FILE)
    diffusion, _ = load_diffusion(folder / DIFFUSION_FILE, vae)
    riffs = load_same_riffs(content, vae.tokenizer, "", folder / VAE_FILE)
    known = content["known"]["tokens"].numpy().astype(np.int64)
    own = np.array([not name.startswith(BASE_NAME) for name in content["known"]["names"]])
    limits = (content["data"]["lowest"], content["data"]["highest"])
    return Run(vae, diffusion, riffs, known[own] if own.any() else known, limits, count, seed)


def draw_picture(tables: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Asked against got by guidance, change by strength, echoes of filled bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name in ATTRIBUTES:
        values = [tables["attributes"][f"{name}, guidance {scale:g}, 1 candidate"][0] for scale in SCALES]
        left.plot(SCALES, values, marker="o", label=name)
    left.axhline(0.9, color="grey", linewidth=0.8, linestyle=":")
    left.set(xlabel="--guidance-scale (one candidate)", ylabel="Spearman's rho, asked and got", title="Asked and got")
    left.legend(frameon=False)
    changed = [tables["strengths"][f"vary --strength {strength:g}"][0] for strength in STRENGTHS]
    middle.plot(STRENGTHS, changed, marker="o", label="variations")
    for label, style in (("people: two riffs of a song", "--"), ("people: riffs of two songs", ":")):
        middle.axhline(tables["strengths"][label][0], color="grey", linestyle=style, label=label.removeprefix("people: "))
    middle.set(xlabel="--strength", ylabel="share of notes changed", title="vary", ylim=(0, 1))
    middle.legend(frameon=False, loc="lower right")
    names = list(tables["gaps"])
    right.barh(range(len(names)), [tables["gaps"][name][0] for name in names], color=["grey", *["C0"] * (len(names) - 1)])
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.invert_yaxis()
    right.set(xlabel="second bars that echo the first one's rhythm", title="infill --keep-bars 1")
    make_room(path.parent)
    save_picture(figure, path)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", default=["runs/riff_2bar"])
    parser.add_argument("--num-outputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="tables, with commas: " + ", ".join(TABLES))
    parser.add_argument("--picture", default="")
    options = parser.parse_args(argv)
    runs = [load_run(Path(folder), options.num_outputs, options.seed) for folder in options.runs]
    tables: dict[str, dict[str, np.ndarray]] = {}
    for name, (table, columns) in TABLES.items():
        if options.only and name not in options.only.split(","):
            continue
        found = [table(run) for run in runs]
        tables[name] = {row: np.mean([rows[row] for rows in found], axis=0) for row in found[0]}
        print(f"\n| {name} | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
        for row, values in tables[name].items():
            cells = [f"{value:.3f}" for value in values]
            print(f"| {row} | " + " | ".join([""] * (len(columns) - len(cells)) + cells) + " |", flush=True)
    if options.picture:
        draw_picture(tables, Path(options.picture))
        print(f"\n{options.picture}")
    return 0


if __name__ == "__main__":
    run_script(main)
