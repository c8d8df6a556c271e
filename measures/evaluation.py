"""Rows of riffs set side by side: values with 95 % intervals, the band of real riffs, a verdict, and who else passes.

A study is one set of training riffs, held-out riffs and rows to judge; several studies (training seeds, splits) are put
together: values are means over the studies, and studies that hold out the same songs share their bootstrap draws. No torch.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from config import TokenizerConfig
from measures import metrics
from measures.distances import frechet_distance, median_bandwidth, mmd, precision_recall_density_coverage, riff_features, standardize
from measures.novelty import TrainingRiffs

RESAMPLES = 400  # bootstrap draws
PARTINGS = 100  # random divisions of the real songs, whose distances are the band of distances
SUBSETS = 40  # random subsets for distances that depend on the number of riffs
MOST = 2000  # riffs of one row that distances between sets look at
NEIGHBOURS = 5  # of precision, recall, density and coverage
CHANCE = "may be chance"  # in the verdict on a miss whose interval reaches into the band
HELD, TRAIN, MODEL = "held-out riffs", "training riffs copied", "model"

Rule = Literal["inside", "at most", "at least", "none"]


@dataclass(frozen=True)
class Metric:
    """A number, and when it is that of real riffs: inside their interval, at most its upper end, at least its lower end, or 0."""

    label: str
    rule: Rule
    meaning: str
    words: tuple[str, str] | None = None  # of the verdict, passed and failed, where those of the rule do not fit


MORE = ("no more than real ones", "more than real ones")

METRICS: dict[str, Metric] = {
    "rest_ratio": Metric("rest ratio", "inside", "share of silent steps"),
    "notes_per_bar": Metric("notes per bar", "inside", "note onsets in a bar"),
    "note_density": Metric("notes per second", "inside", "the same at the riff's tempo"),
    "pitch_range": Metric("pitch range", "inside", "semitones from the lowest to the highest note"),
    "pitch_class_entropy": Metric("pitch-class entropy", "inside", "bits; 0 is one pitch class, 3.58 all twelve equally often"),
    "restrike_share": Metric("re-struck share", "inside", "notes that repeat the pitch before"),
    "ngram_repetition": Metric("4-gram repetition", "inside", "passages of four pitches heard before in the riff"),
    "scale_consistency": Metric("share in one scale", "inside", "notes inside the best of 24 keys"),
    "groove_consistency": Metric("groove consistency", "inside", "steps on which the second bar's rhythm is the first one's"),
    "ends_at_home": Metric("ends at home", "inside", "riffs whose last note has the pitch class of the first"),
    "pitch_consistency": Metric("framewise consistency, pitch", "at least", "mean overlap of half bars' pitches, against real riffs"),
    "pitch_variance": Metric("framewise variance, pitch", "at least", "its variance over riffs, against real riffs"),
    "duration_consistency": Metric("framewise consistency, lengths", "at least", "the same for note lengths"),
    "duration_variance": Metric("framewise variance, lengths", "at least", "the same for note lengths"),
    "mmd": Metric("MMD^2, fixed features", "at most", "unbiased, to the held-out riffs; 0 is one and the same style"),
    "mmd_latent": Metric("MMD^2, VAE's latents", "at most", "the same in the VAE's own eyes"),
    "frechet": Metric("Frechet, fixed features", "at most", "to the held-out riffs, at equal numbers of riffs"),
    "frechet_latent": Metric("Frechet, VAE's latents", "at most", "the same in the VAE's own eyes"),
    "precision": Metric("precision", "at least", "riffs that lie among the held-out riffs"),
    "recall": Metric("recall", "at least", "held-out riffs that lie among these"),
    "density": Metric("density", "at least", "how thickly the held-out riffs lie around these"),
    "coverage": Metric("coverage", "at least", "held-out riffs with one of these nearby"),
    "nearest_distance": Metric("distance to training riffs", "at least", "median edit distance to the nearest, 0 to 1"),
    "shared_run": Metric("longest shared run", "at most", "notes in a row found in some training riff, mean", MORE),
    "copies": Metric("copies per 1000", "none", "training riffs token for token, transposed or not"),
    "repeated": Metric("repeats per 1000", "none", "riffs that an earlier one of the row equals"),
}


@dataclass(frozen=True)
class Row:
    """Riffs to measure."""

    tokens: np.ndarray  # int64 [n, steps]
    bpm: np.ndarray  # float64 [n], quarter notes per minute
    song: np.ndarray | None = None  # str [n]; None: every riff was drawn by itself


@dataclass(frozen=True)
class Study:
    """One set of real riffs, and the rows judged by them."""

    name: str
    tokenizer: TokenizerConfig
    train: Row
    held: Row
    known: TrainingRiffs  # what novelty is measured against
    rows: dict[str, Row]
    encode: Callable[[np.ndarray], np.ndarray] | None = None  # tokens -> latents, float64 [n, Z]
    facts: dict[str, Any] = field(default_factory=dict)  # what else is to be reported of it


@dataclass
class Measured:
    """A metric of a row: the value, and what it was in each bootstrap draw (or random subset)."""

    value: float
    draws: np.ndarray  # float64 [R]


def together(each: Sequence[Measured]) -> tuple[float, np.ndarray]:
    """A metric of several studies: its value and draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of NaN only is NaN
        return float(np.mean([m.value for m in each])), np.nanmean([m.draws for m in each], axis=0)


# ---------------------------------------------------------------- draws


class Songs:
    """Bootstrap draws: whole songs, because riffs of one song resemble each other. A set of songs has the same draws wherever it stands."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def rng(self, names: Sequence[str]) -> np.random.Generator:
        digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).digest()
        return np.random.default_rng(np.random.SeedSequence([self.seed, int.from_bytes(digest[:8], "big")]))

    def weights(self, row: Row, number: int) -> np.ndarray:
        """How often each riff of a row counts in each draw. float64 [R, n]; riffs without songs are drawn one by one."""
        if row.song is None:
            rng, places, count = (
                np.random.default_rng(np.random.SeedSequence([self.seed, 2, number])),
                np.arange(len(row.tokens)),
                len(row.tokens),
            )
        else:
            names, places = np.unique(row.song, return_inverse=True)
            rng, count = self.rng([str(name) for name in names]), len(names)
        return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)[:, places].astype(float)

    def partings(self, train: Row, held: Row) -> list[np.ndarray]:
        """Other divisions of the real riffs with as many songs held out. bool [n], True where held out; none without songs"""
        if train.song is None or held.song is None:
            return []
        names, places = np.unique(np.concatenate([train.song, held.song]), return_inverse=True)
        rng, size = self.rng(sorted({str(name) for name in held.song})), len(np.unique(held.song))
        return [np.isin(places, rng.choice(len(names), size, replace=False)) for _ in range(PARTINGS)]


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of the known values in each draw. values: [n], NaN where unknown; weights: [R, n] -> [R]"""
    known = ~np.isnan(values)
    total = weights[:, known].sum(axis=1)
    return np.where(total > 0, weights[:, known] @ values[known] / np.where(total > 0, total, 1), np.nan)


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Lower medians in each draw. values: [n]; weights: [R, n] -> [R]"""
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weights[:, order], axis=1)
    found = values[order][(mass >= mass[:, -1:] / 2).argmax(axis=1)]
    return np.where(mass[:, -1] > 0, found, np.nan)


def lower_median(values: np.ndarray) -> float:
    return float(weighted_medians(values, np.ones((1, len(values))))[0])


# ---------------------------------------------------------------- one study


def first_riffs(row: Row, most: int) -> Row:
    """A row cut down to its first riffs: kernels grow with the square of their number."""
    return Row(row.tokens[:most], row.bpm[:most], None if row.song is None else row.song[:most])


def per_riff_values(row: Row, tokenizer: TokenizerConfig) -> dict[str, np.ndarray]:
    """What is measured riff by riff and averaged. float64 [n] each"""
    tokens = row.tokens
    return {
        "rest_ratio": metrics.rest_ratio(tokens),
        "notes_per_bar": metrics.notes_per_bar(tokens, tokenizer),
        "note_density": metrics.note_density(tokens, tokenizer, row.bpm),
        "pitch_range": metrics.pitch_range(tokens, tokenizer),
        "pitch_class_entropy": metrics.pitch_class_entropy(tokens, tokenizer),
        "restrike_share": metrics.restrike_share(tokens, tokenizer),
        "ngram_repetition": metrics.ngram_repetition(tokens, tokenizer),
        "scale_consistency": metrics.scale_consistency(tokens, tokenizer),
        "groove_consistency": metrics.groove_consistency(tokens, tokenizer),
        "ends_at_home": metrics.ends_at_home(tokens, tokenizer),
    }


def framewise(overlaps: np.ndarray, real: np.ndarray, weights: np.ndarray, real_weights: np.ndarray) -> tuple[Measured, Measured]:
    """Consistency and variance of a row, with their draws. overlaps: [n], real: [m], NaN where unknown; weights: [R, n], [R, m]"""
    means, variances = [], []
    for values, drawn in ((overlaps, weights), (real, real_weights)):
        counted = np.concatenate([np.ones((1, len(values))), drawn])  # first without resampling
        means.append(weighted_means(values, counted))
        variances.append(np.maximum(weighted_means(values**2, counted) - means[-1] ** 2, 0))
    consistency, variance = metrics.closeness(*means), metrics.closeness(*variances)
    return Measured(float(consistency[0]), consistency[1:]), Measured(float(variance[0]), variance[1:])


def equal_subsets(points: np.ndarray, real: np.ndarray, times: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Distances that depend on the number of points, on random subsets of equal size. float64 [times] each; none with few points"""
    size = min(len(points), len(real))
    if size <= NEIGHBOURS:
        return {}
    found: dict[str, list[float]] = {"frechet": []}
    for _ in range(times):
        some, others = (x[rng.choice(len(x), size, replace=False)] for x in (points, real))
        found["frechet"].append(frechet_distance(some, others))
        for name, share in precision_recall_density_coverage(some, others, NEIGHBOURS).items():
            found.setdefault(name, []).append(share)
    return {name: np.array(values) for name, values in found.items()}


def cloud_distances(
    points: np.ndarray, real: np.ndarray, row: Row, held: Row, weights: Sequence[np.ndarray], seed: int
) -> dict[str, Measured]:
    """MMD, Frechet distance, precision, recall, density and coverage of a row's points [n, D] and the held-out riffs' [m, D]."""
    bandwidth = median_bandwidth(real)
    value = mmd(points, real, bandwidth, row.song, held.song)
    results = {"mmd": Measured(float(value[0]), mmd(points, real, bandwidth, row.song, held.song, *weights))}
    subsets = equal_subsets(points, real, SUBSETS, np.random.default_rng(seed))
    return results | {name: Measured(float(values.mean()), values) for name, values in subsets.items()}


def real_distances(
    points: np.ndarray, real: np.ndarray, train: Row, held: Row, partings: Sequence[np.ndarray], seed: int
) -> dict[str, Measured]:
    """The same between real riffs: the value is that of the training riffs, the draws are those of other divisions of the songs."""
    bandwidth, rng = median_bandwidth(real), np.random.default_rng(seed)
    values = {"mmd": mmd(points, real, bandwidth, train.song, held.song)} | equal_subsets(points, real, SUBSETS, rng)
    if not partings:
        return {name: Measured(float(each.mean()), np.array([np.nan])) for name, each in values.items()}
    every, song = np.concatenate([points, real]), np.concatenate([train.song, held.song])  # type: ignore[list-item]
    draws: dict[str, list[float]] = {name: [] for name in values}
    for out in partings:
        a, b = every[~out], every[out]
        found = {"mmd": mmd(a, b, bandwidth, song[~out], song[out])} | equal_subsets(a, b, 1, rng)
        for name in draws:
            draws[name].append(float(found[name][0]) if name in found else np.nan)
    return {name: Measured(float(each.mean()), np.array(draws[name])) for name, each in values.items()}


def real_framewise(train: np.ndarray, held: np.ndarray, partings: Sequence[np.ndarray]) -> tuple[Measured, Measured]:
    """Framewise consistency and variance of training against held-out riffs, and of other divisions. train, held: overlaps, NaN unknown"""
    values, every = [], np.concatenate([train, held])
    for a, b in [(train, held), *((every[~out], every[out]) for out in partings)]:
        values.append([metrics.closeness(np.nanmean(a), np.nanmean(b)), metrics.closeness(np.nanvar(a), np.nanvar(b))])
    table = np.array(values, dtype=float)
    draws = table[1:] if partings else np.full((1, 2), np.nan)
    return Measured(float(table[0, 0]), draws[:, 0]), Measured(float(table[0, 1]), draws[:, 1])


def measure(study: Study, songs: Songs) -> dict[str, dict[str, Measured]]:
    """Every metric of every row, the held-out riffs first; metric -> row -> value and draws.

    A distance needs two sets: the line of the held-out riffs tells how far the training riffs are from them, and its draws how far
    real riffs are from real riffs when the songs are divided another way.
    """
    tokenizer, held, train = study.tokenizer, study.held, study.train
    results: dict[str, dict[str, Measured]] = {key: {} for key in METRICS}
    for number, (name, row) in enumerate({HELD: held, **study.rows}.items()):
        for key, measured in measure_alone(study, name, row, songs.weights(row, number)).items():
            results[key][name] = measured

    partings = songs.partings(train, held)
    half_bar = tokenizer.steps_per_bar // 2
    held_weights = songs.weights(held, 0)
    spaces: dict[str, Callable[[np.ndarray], np.ndarray]] = {"": lambda tokens: riff_features(tokens, tokenizer)}
    if study.encode is not None:
        spaces["_latent"] = study.encode
    frames = {HELD: metrics.framewise_overlap(held.tokens, tokenizer, half_bar, half_bar)}
    references = {suffix: embed(train.tokens) for suffix, embed in spaces.items()}
    for number, (name, whole) in enumerate({HELD: train, **study.rows}.items()):
        row = first_riffs(whole, MOST)
        weights = songs.weights(row, number)
        overlaps = metrics.framewise_overlap(row.tokens, tokenizer, half_bar, half_bar)
        for part, ours, real in zip(("pitch", "duration"), overlaps, frames[HELD], strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # riffs without two frames of notes only
                pair = real_framewise(ours, real, partings) if name == HELD else framewise(ours, real, weights, held_weights)
            results[f"{part}_consistency"][name], results[f"{part}_variance"][name] = pair
        for suffix, embed in spaces.items():
            points, real = (standardize(embed(x.tokens), references[suffix]) for x in (row, held))
            seed = int(np.random.SeedSequence([songs.seed, 3, number]).generate_state(1)[0])
            if name == HELD:
                found = real_distances(points, real, train, held, partings, seed)
            else:
                found = cloud_distances(points, real, row, held, (weights, held_weights), seed)
            for key, measured in found.items():
                if key + suffix in METRICS:
                    results[key + suffix][name] = measured
    return {key: rows for key, rows in results.items() if rows}


def measure_alone(study: Study, name: str, row: Row, weights: np.ndarray) -> dict[str, Measured]:
    """What a row's riffs are by themselves, and what they share with the training riffs. weights: [R, n]"""
    results = {}
    for key, values in per_riff_values(row, study.tokenizer).items():
        mean = float(np.nanmean(values)) if not np.isnan(values).all() else np.nan
        results[key] = Measured(mean, weighted_means(values, weights))
    own_songs = row.song if name == HELD and study.known.song is not None else None
    nearest = study.known.nearest(row.tokens, own_songs)
    results["nearest_distance"] = Measured(lower_median(nearest.distance), weighted_medians(nearest.distance, weights))
    for key, values in (("shared_run", nearest.shared_run.astype(float)), ("copies", 1000.0 * nearest.copy)):
        results[key] = Measured(float(values.mean()), weighted_means(values, weights))
    repeated = 1000 * (1 - metrics.distinct_share(row.tokens))
    results["repeated"] = Measured(repeated, np.full(len(weights), repeated))
    return results


# ---------------------------------------------------------------- several studies, and what they say


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of some draws; NaN draws are left out."""
    known = draws[~np.isnan(draws)]
    return (float("nan"), float("nan")) if not len(known) else tuple(float(x) for x in np.percentile(known, [2.5, 97.5]))  # type: ignore[return-value]


def can_fail(rule: Rule, band: Sequence[float]) -> bool:
    """Whether a band tells anything: not where real riffs all have one value, or reach down to nothing."""
    low, high = band
    if rule == "none":
        return True
    return not (np.isnan(band).any() or (rule == "inside" and high - low < 1e-9) or (rule == "at least" and low < 0.05))


def passes(rule: Rule, value: float, band: Sequence[float]) -> bool:
    """Whether a value is one that real riffs have."""
    low, high = band
    return {"inside": low <= value <= high, "at most": value <= high, "at least": value >= low, "none": value == 0}[rule]


def verdict(metric: Metric, value: float, band: Sequence[float], chance: Sequence[float]) -> str:
    """A value in plain words.

    Args:
        band: of the real riffs.
        chance: the value's own 95 % interval: where it reaches into the band, a miss may be chance.
    """
    if np.isnan(value) or not can_fail(metric.rule, band):
        return "cannot be told"
    ok = passes(metric.rule, value, band)
    if metric.rule == "none":
        return "none" if ok else "some"
    if ok:
        return (
            metric.words[0]
            if metric.words
            else {"inside": "inside the human band", "at most": "as close as real riffs", "at least": "as good as real riffs"}[metric.rule]
        )
    beyond = f"{'below' if value < band[0] else 'above'} the human band"
    words = (
        metric.words[1]
        if metric.words
        else {"at most": "further than real riffs", "at least": "short of real riffs"}.get(metric.rule, beyond)
    )
    reaches = passes(metric.rule, float(np.clip(band[0] if value < band[0] else band[1], *chance)), band)
    return words + f" ({CHANCE})" * reaches


def compare(studies: Sequence[Study], seed: int = 0) -> dict[str, Any]:
    """Measure some studies and put them together.

    Args:
        studies: with rows of the same names; at least one.

    Returns:
        plain types, for JSON: metric -> label, meaning, rule, band of the real riffs, rows (value, interval, one value for each
        study, passes (None where it cannot be told), verdict) and blind_to, the rivals that pass as well.
    """
    if len({tuple(study.rows) for study in studies}) != 1:
        raise ValueError("the studies have different rows")
    songs = Songs(seed)
    return conclude([measure(study, songs) for study in studies], METRICS)


def conclude(measured: Sequence[Mapping[str, Mapping[str, Measured]]], metrics_used: Mapping[str, Metric]) -> dict[str, Any]:
    """What was measured in some studies (metric -> row -> value and draws), put together and judged: see `compare`."""
    results: dict[str, Any] = {}
    for key, metric in metrics_used.items():
        if not all(HELD in one.get(key, {}) for one in measured):
            continue  # too few riffs, or no latents
        rows: dict[str, Any] = {}
        for name in [name for name in measured[0][key] if all(name in one[key] for one in measured)]:
            each = [one[key][name] for one in measured]
            value, draws = together(each)
            rows[name] = {"value": value, "interval": interval(draws), "each": [m.value for m in each]}
        band = rows[HELD]["interval"]
        for name, row in rows.items():
            known = not np.isnan(row["value"]) and can_fail(metric.rule, band)
            row["passes"] = name == HELD or (passes(metric.rule, row["value"], band) if known else None)
            row["verdict"] = "the band itself" if name == HELD else verdict(metric, row["value"], band, row["interval"])
        blind = [name for name, row in rows.items() if row["passes"] and name not in (HELD, MODEL)]
        about = {"label": metric.label, "meaning": metric.meaning, "rule": metric.rule}
        results[key] = {**about, "band": band, "rows": rows, "blind_to": blind}
    return results


def losses(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """On which metrics each row fails: row -> keys."""
    names = [name for name in next(iter(results.values()))["rows"] if name != HELD]
    return {
        name: [key for key, metric in results.items() if name in metric["rows"] and metric["rows"][name]["passes"] is False]
        for name in names
    }
