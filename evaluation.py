"""Rows of riffs set side by side: values with 95 % intervals, the band of real riffs, a verdict, and who else passes.

A study is one set of training riffs, held-out riffs and rows to judge; several studies (training seeds, splits) are put
together: values are means over the studies, and every bootstrap draw takes the same songs in all of them. No torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

import metrics
from config import TokenizerConfig
from distances import frechet_distance, median_bandwidth, mmd, precision_recall_density_coverage, riff_features, standardize
from novelty import TrainingRiffs

RESAMPLES = 400  # bootstrap draws
SUBSETS = 40  # random subsets for distances that depend on the number of riffs
MOST = 2000  # riffs of one row that distances between sets look at
NEIGHBOURS = 5  # of precision, recall, density and coverage
HELD, TRAIN, MODEL = "held-out riffs", "training riffs copied", "model"

Rule = Literal["inside", "at most", "at least", "none"]


@dataclass(frozen=True)
class Metric:
    """A number, and when it is that of real riffs: inside their interval, at most its upper end, at least its lower end, or 0."""

    label: str
    rule: Rule
    meaning: str


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
    "shared_run": Metric("longest shared run", "at most", "notes in a row found in some training riff, mean"),
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
    """A metric of a row: the value, and what it was in each bootstrap draw (or random subset).

    Where a metric compares moments, several studies are put together by their moments, not by what each makes of its few riffs.
    """

    value: float
    draws: np.ndarray  # float64 [R]
    moments: np.ndarray | None = None  # float64 [1 + R, 4]: mean and mean square of ours and of the real riffs; first without resampling
    finish: Callable[[np.ndarray], np.ndarray] | None = None  # moments [..., 4] -> the metric


def together(each: Sequence[Measured]) -> tuple[float, np.ndarray]:
    """A metric of several studies: its value and draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of NaN only is NaN
        if each[0].finish is not None:
            finished = each[0].finish(np.nanmean([m.moments for m in each], axis=0))
            return float(finished[0]), finished[1:]
        return float(np.mean([m.value for m in each])), np.nanmean([m.draws for m in each], axis=0)


# ---------------------------------------------------------------- draws


class Songs:
    """Bootstrap draws of songs, the same for every row and study that a song is in."""

    def __init__(self, studies: Sequence[Study], seed: int) -> None:
        rows = [row for study in studies for row in (study.train, study.held)]
        names = sorted({str(name) for row in rows if row.song is not None for name in row.song})
        self.seed = seed
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        draws = (
            rng.multinomial(len(names), np.full(len(names), 1 / max(1, len(names))), size=RESAMPLES) if names else np.zeros((RESAMPLES, 0))
        )
        self._counts = {name: draws[:, i] for i, name in enumerate(names)}

    def weights(self, row: Row, number: int) -> np.ndarray:
        """How often each riff of a row counts in each draw. float64 [R, n]; riffs without songs are drawn one by one."""
        if row.song is not None:
            return np.stack([self._counts[str(name)] for name in row.song], axis=1).astype(float)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, 2, number]))
        return rng.multinomial(len(row.tokens), np.full(len(row.tokens), 1 / len(row.tokens)), size=RESAMPLES).astype(float)


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


def moment_consistency(moments: np.ndarray) -> np.ndarray:
    """Framewise consistency from moments [..., 4]."""
    return metrics.closeness(moments[..., 0], moments[..., 2])


def moment_variance(moments: np.ndarray) -> np.ndarray:
    """Framewise variance from moments [..., 4]."""
    ours, theirs = (np.maximum(moments[..., i + 1] - moments[..., i] ** 2, 0) for i in (0, 2))
    return metrics.closeness(ours, theirs)


def framewise(overlaps: np.ndarray, real: np.ndarray, weights: np.ndarray, real_weights: np.ndarray) -> tuple[Measured, Measured]:
    """Consistency and variance of a row, with their draws. overlaps: [n], real: [m], NaN where unknown; weights: [R, n], [R, m]"""
    columns = []
    for values, drawn in ((overlaps, weights), (real, real_weights)):
        counted = np.concatenate([np.ones((1, len(values))), drawn])
        columns += [weighted_means(values, counted), weighted_means(values**2, counted)]
    moments = np.stack(columns, axis=1)
    consistency, variance = moment_consistency(moments), moment_variance(moments)
    return (
        Measured(float(consistency[0]), consistency[1:], moments, moment_consistency),
        Measured(float(variance[0]), variance[1:], moments, moment_variance),
    )


def cloud_distances(
    points: np.ndarray, real: np.ndarray, row: Row, held: Row, weights: np.ndarray, real_weights: np.ndarray, seed: int
) -> dict[str, Measured]:
    """MMD, Frechet distance, precision, recall, density and coverage of two clouds of points, [n, D] and [m, D]; of MOST points each."""
    bandwidth = median_bandwidth(real)
    value = mmd(points, real, bandwidth, row.song, held.song)
    results = {"mmd": Measured(float(value[0]), mmd(points, real, bandwidth, row.song, held.song, weights, real_weights))}
    size, rng = min(len(points), len(real)), np.random.default_rng(seed)
    if size <= NEIGHBOURS:
        return results
    found: dict[str, list[float]] = {"frechet": []}
    for _ in range(SUBSETS):
        some, others = (x[rng.choice(len(x), size, replace=False)] for x in (points, real))
        found["frechet"].append(frechet_distance(some, others))
        for name, share in precision_recall_density_coverage(some, others, NEIGHBOURS).items():
            found.setdefault(name, []).append(share)
    return results | {name: Measured(float(np.mean(values)), np.array(values)) for name, values in found.items()}


def measure(study: Study, songs: Songs) -> dict[str, dict[str, Measured]]:
    """Every metric of every row, the held-out riffs first; metric -> row -> value and draws.

    A distance needs two sets: the line of the held-out riffs tells how far the training riffs are from them, the floor that real
    riffs have among themselves.
    """
    tokenizer, held, train = study.tokenizer, study.held, study.train
    half_bar = tokenizer.steps_per_bar // 2
    real_overlaps = metrics.framewise_overlap(held.tokens, tokenizer, half_bar, half_bar)
    real_weights = songs.weights(held, 0)
    spaces: dict[str, tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]] = {
        "": (lambda tokens: riff_features(tokens, tokenizer), riff_features(train.tokens, tokenizer))
    }
    if study.encode is not None:
        spaces["_latent"] = (study.encode, study.encode(train.tokens))
    results: dict[str, dict[str, Measured]] = {key: {} for key in METRICS}

    for number, (name, row) in enumerate({HELD: held, **study.rows}.items()):
        weights = songs.weights(row, number + 1)
        for key, values in per_riff_values(row, tokenizer).items():
            results[key][name] = Measured(
                float(np.nanmean(values)) if not np.isnan(values).all() else np.nan, weighted_means(values, weights)
            )

        nearest = study.known.nearest(row.tokens)
        results["nearest_distance"][name] = Measured(float(np.median(nearest.distance)), weighted_medians(nearest.distance, weights))
        results["shared_run"][name] = Measured(float(nearest.shared_run.mean()), weighted_means(nearest.shared_run.astype(float), weights))
        results["copies"][name] = Measured(1000 * float(nearest.copy.mean()), 1000 * weighted_means(nearest.copy.astype(float), weights))
        repeated = 1000 * (1 - metrics.distinct_share(row.tokens))
        results["repeated"][name] = Measured(repeated, np.full(RESAMPLES, repeated))

        other = first_riffs(train if name == HELD else row, MOST)  # real against real
        other_weights = songs.weights(other, number + 1)
        for part, overlaps, real in zip(
            ("pitch", "duration"), metrics.framewise_overlap(other.tokens, tokenizer, half_bar, half_bar), real_overlaps, strict=True
        ):
            pair = framewise(overlaps, real, other_weights, real_weights)
            results[f"{part}_consistency"][name], results[f"{part}_variance"][name] = pair
        for suffix, (embed, reference) in spaces.items():
            points, real = (standardize(embed(x.tokens), reference) for x in (other, held))
            seed = int(np.random.SeedSequence([songs.seed, 3, number]).generate_state(1)[0])
            for key, measured in cloud_distances(points, real, other, held, other_weights, real_weights, seed).items():
                if key + suffix in METRICS:
                    results[key + suffix][name] = measured
    return {key: rows for key, rows in results.items() if rows}


# ---------------------------------------------------------------- several studies, and what they say


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of some draws; NaN draws are left out."""
    known = draws[~np.isnan(draws)]
    return (float("nan"), float("nan")) if not len(known) else tuple(float(x) for x in np.percentile(known, [2.5, 97.5]))  # type: ignore[return-value]


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
    if np.isnan(value) or (metric.rule != "none" and np.isnan(band).any()):
        return "cannot be told"
    ok = passes(metric.rule, value, band)
    if metric.rule == "none":
        return "none" if ok else "some"
    if ok:
        return {"inside": "inside the human band", "at most": "as close as real riffs", "at least": "as good as real riffs"}[metric.rule]
    words = {"at most": "further than real riffs", "at least": "short of real riffs"}.get(
        metric.rule, f"{'below' if value < band[0] else 'above'} the human band"
    )
    reaches = passes(metric.rule, float(np.clip(band[0] if value < band[0] else band[1], *chance)), band)
    return words + " (may be chance)" * reaches


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
    songs = Songs(studies, seed)
    measured = [measure(study, songs) for study in studies]
    results: dict[str, Any] = {}
    for key, metric in METRICS.items():
        if not all(HELD in one.get(key, {}) for one in measured):
            continue  # too few riffs, or no latents
        rows: dict[str, Any] = {}
        for name in [name for name in measured[0][key] if all(name in one[key] for one in measured)]:
            each = [one[key][name] for one in measured]
            value, draws = together(each)
            rows[name] = {"value": value, "interval": interval(draws), "each": [m.value for m in each]}
        band = rows[HELD]["interval"]
        for name, row in rows.items():
            known = not np.isnan(row["value"]) and (metric.rule == "none" or not np.isnan(band).any())
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
