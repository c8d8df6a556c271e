"""What evaluation.compare found, as text, as Markdown and as pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from files import new_picture
from measures.evaluation import CHANCE, HELD, MODEL, TRAIN, losses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT = {
    HELD: "held-out", MODEL: "model", "N(0, I) prior": "N(0,I)", "one Gaussian": "Gaussian", "Gaussian mixture": "mixture",
    "nearest-neighbour jitter": "jitter", "held-out, autoencoded": "autoenc.", "training riffs copied": "copied",
}  # fmt: skip
ABOUT = {
    HELD: "music that was held out", MODEL: "the new music", "N(0, I) prior": "the decoder fed with plain noise",
    "one Gaussian": "a single Gaussian in place of the diffusion model", "Gaussian mixture": "the best mixture in its place",
    "nearest-neighbour jitter": "training riffs, half-way to a neighbour", "unigram": "notes drawn by frequency",
    "Markov": "notes drawn by what follows what", "shuffled": "training riffs, notes in disorder", TRAIN: "training music as it is",
    "held-out, autoencoded": "held-out riffs through the VAE", "LSTM": "a language model of the same riffs",
    "5-gram": "tokens drawn by what followed the last four",
}  # fmt: skip
BAND, POINT, OURS, FAILED = "#d9e4ee", "#1f3b57", "#d1603d", "#9a9a9a"


def number(value: float) -> str:
    """Three digits that count, no exponent."""
    if np.isnan(value):
        return "-"
    if abs(value) >= 100 or value == round(value):
        return f"{value + 0.0:.0f}"  # + 0.0: zero has no sign
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def band_words(metric: Mapping[str, Any]) -> str:
    """What a value has to be."""
    low, high = metric["band"]
    return {
        "inside": f"{number(low)} to {number(high)}", "at most": f"up to {number(high)}",
        "at least": f"from {number(low)}", "none": "0",
    }[metric["rule"]]  # fmt: skip


def text_table(results: Mapping[str, Any], noun: str = "riffs") -> str:
    """Metrics down, rows across; a value that real riffs would not have is marked with !"""
    names = list(next(iter(results.values()))["rows"])
    heads = [SHORT.get(name, name)[:9] for name in names]
    lines = [f"{'':31s}{f'real {noun}':>16s}" + "".join(f"{head:>10s}" for head in heads)]
    for metric in results.values():
        cells = []
        for name in names:
            row = metric["rows"].get(name)
            cells.append("-" if row is None else number(row["value"]) + "!" * (row["passes"] is False))
        lines.append(f"{metric['label'][:30]:31s}{band_words(metric):>16s}" + "".join(f"{cell:>10s}" for cell in cells))
    return "\n".join(lines)


def legend(results: Mapping[str, Any], noun: str = "riffs") -> str:
    """What the columns of the text table are."""
    names = list(next(iter(results.values()))["rows"])
    shown = [f"{SHORT.get(name, name)}: {ABOUT[name]}" for name in names if name in ABOUT]
    head = f"real {noun}: the values that real {noun} have, 95 times in 100. ! is not such a value. The columns: "
    return textwrap.fill(head + "; ".join(shown) + ".", 160)


def plain_words(results: Mapping[str, Any], name: str = MODEL, noun: str = "riffs") -> str:
    """What a row is like, in sentences: where it is like real riffs, where not, and how much is copied."""
    rows = {key: metric["rows"][name] for key, metric in results.items() if name in metric["rows"]}
    told = {key: row for key, row in rows.items() if row["passes"] is not None}
    failed = [key for key, row in told.items() if not row["passes"]]
    clear = [key for key in failed if CHANCE not in told[key]["verdict"]]
    untold = f" ({len(rows) - len(told)} more cannot be told)" if len(told) < len(rows) else ""
    lines = [f"The new {noun} are like real ones in {len(told) - len(failed)} of {len(told)} measures{untold}."]
    if clear:
        parts = [f"{results[key]['label']} ({number(rows[key]['value'])}, real {noun} {band_words(results[key])})" for key in clear]
        lines.append(f"They differ in: {'; '.join(parts)}.")
    rest = [results[key]["label"] for key in failed if key not in clear]
    if rest:
        lines.append(f"They miss, but maybe by chance: {'; '.join(rest)}.")
    if "copies" in rows and "nearest_distance" in rows:
        people = results["nearest_distance"]["rows"][HELD]["value"]
        lines.append(
            f"Copied: {number(rows['copies']['value'])} in 1000 are a known riff, transposed or not. Half of the new riffs share "
            f"{1 - rows['nearest_distance']['value']:.0%} or more with the nearest known riff; half of people's own, {1 - people:.0%}."
        )
    return "\n".join(textwrap.fill(line, 160, subsequent_indent="  ") for line in lines)


def verdict_lines(results: Mapping[str, Any], name: str = MODEL, noun: str = "riffs") -> str:
    """One line a metric: the verdict on a row, its interval, and the rivals that do as well."""
    lines = []
    for metric in results.values():
        row = metric["rows"].get(name)
        if row is None:
            continue
        low, high = row["interval"]
        also = ", ".join(SHORT.get(rival, rival) for rival in metric["blind_to"]) or "none"
        lines.append(
            f"{metric['label'] + ':':31s}{row['verdict']:40s} {number(row['value']):>6s} [{number(low)}, {number(high)}], "
            f"real {noun} {band_words(metric)}; rivals that pass too: {also}"
        )
    return "\n".join(lines)


def losers(results: Mapping[str, Any]) -> str:
    """Where each row fails."""
    found = losses(results)
    lines = []
    for name, keys in found.items():
        chance = sum(CHANCE in results[key]["rows"][name]["verdict"] for key in keys)
        labels = "; ".join(results[key]["label"] for key in keys) or "nowhere"
        perhaps = f" ({chance} may be chance)" if chance else ""
        told = sum(name in metric["rows"] and metric["rows"][name]["passes"] is not None for metric in results.values())
        lines.append(f"{SHORT.get(name, name):10s} fails {len(keys):2d} of {told:2d}{perhaps}: {labels}")
    return "\n".join(textwrap.fill(line, 160, subsequent_indent=" " * 12) for line in lines)


def markdown_table(results: Mapping[str, Any], noun: str = "riffs") -> str:
    """The text table for a README; the model with its 95 % interval. Bold: not a value that real riffs have."""
    names = [name for name in next(iter(results.values()))["rows"] if name != HELD]
    lines = [f"| metric | real {noun} | " + " | ".join(SHORT.get(name, name) for name in names) + " |", "|---" * (len(names) + 2) + "|"]
    for metric in results.values():
        cells = []
        for name in names:
            row = metric["rows"].get(name)
            if row is None:
                cells.append("")
                continue
            shown = f"**{number(row['value'])}**" if row["passes"] is False else number(row["value"])
            low, high = row["interval"]
            cells.append(shown + (f" ({number(low)} to {number(high)})" if name == MODEL else ""))
        lines.append(f"| {metric['label']} | {band_words(metric)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(metric: Mapping[str, Any], noun: str = "riffs") -> Figure:
    """One metric: every row's value and 95 % interval, one dot for each run, the band of real riffs shaded."""
    rows = metric["rows"]
    figure = new_picture(7, 0.34 * len(rows) + 1.3)
    axes = figure.subplots()
    low, high = metric["band"]
    known = [x for row in rows.values() for x in (*row["interval"], *row["each"]) if not np.isnan(x)]
    if metric["rule"] == "none":
        low, high = 0.0, 0.0
    ends = {"at most": (min([*known, low]), high), "at least": (low, max([*known, high]))}.get(metric["rule"], (low, high))
    if not np.isnan(ends).any():
        axes.axvspan(*ends, color=BAND, lw=0 if ends[0] < ends[1] else 2)
    for y, (name, row) in enumerate(rows.items()):
        color = OURS if name == MODEL else FAILED if row["passes"] is False else POINT
        axes.plot(row["interval"], [y, y], color=color, lw=2, solid_capstyle="butt")
        axes.plot(row["each"], [y] * len(row["each"]), "|", color=color, ms=9)
        axes.plot([row["value"]], [y], "o", color=color, ms=6)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"{metric['label']}\n{metric['meaning']}", fontsize=9)
    axes.set_xlabel(f"shaded: real {noun}; grey: not a value that real {noun} have", fontsize=8)
    return figure
