"""The comparison that all numbers come from: cheaters lose, real riffs pass, and what is printed says what was measured."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_is_a_picture

import evaluate
from config import HOLD, REST, TokenizerConfig
from measures import evaluation, metrics, reports
from measures.baselines import TOKEN_BASELINES
from measures.evaluation import HELD, METRICS, MODEL, TRAIN, Row, Study, compare, losses, passes, weighted_means, weighted_medians
from measures.novelty import TrainingRiffs
from midi_utils import is_legal

TOKENIZER = TokenizerConfig()
MAJOR = np.array([0, 2, 4, 5, 7, 9, 11])
NEIGHBOURS = {key for key in METRICS if key.startswith(("frechet", "precision", "recall", "density", "coverage"))}


# ---------------------------------------------------------------- songs with a plan


def song(seed: int, number: int, riffs: int) -> np.ndarray:
    """Riffs of one song: one scale, one rhythm, a tune of a few steps, and a second bar that repeats the first but for its end."""
    rng = np.random.default_rng([seed, number])
    root = rng.integers(40, 50)
    beat = rng.choice([2, 3, 4], p=[0.5, 0.2, 0.3])
    starts = np.flatnonzero((np.arange(16) % beat == 0) | (rng.random(16) < 0.15))
    rings = rng.random(len(starts)) < 0.6  # which notes last to the next one
    found = []
    for _ in range(riffs):
        degrees = np.cumsum(rng.choice([-2, -1, 0, 1, 2], p=[0.1, 0.25, 0.25, 0.25, 0.15], size=len(starts)))
        degrees += 4 - degrees[0]
        second = degrees.copy()
        second[-2:] += rng.integers(-1, 2, size=2)
        second[-1] = degrees[0] if rng.random() < 0.5 else second[-1]
        tokens = np.full(32, REST)
        for bar, line in enumerate((degrees, second)):
            for i, start in enumerate(starts):
                if bar and rng.random() < 0.1:
                    continue  # the repeat leaves out a note now and then
                stop = starts[i + 1] if i + 1 < len(starts) else 16
                tokens[16 * bar + start : 16 * bar + (stop if rings[i] else start + 1)] = HOLD
                tokens[16 * bar + start] = root + 12 * (line[i] // 7) + MAJOR[line[i] % 7]
        found.append(tokens)
    return np.unique(np.stack(found), axis=0)


def songs(seed: int, numbers: range, riffs: int = 4) -> Row:
    parts = [song(seed, number, riffs) for number in numbers]
    tokens = np.concatenate(parts)
    assert is_legal(tokens, TOKENIZER)
    names = np.concatenate([[f"song {number}"] * len(part) for number, part in zip(numbers, parts, strict=True)])
    return Row(tokens, np.full(len(tokens), 100.0), names)


def drawn(tokens: np.ndarray, bpm: float = 100.0) -> Row:
    return Row(tokens, np.full(len(tokens), bpm))


def jittered(tokens: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Training riffs with two notes a semitone or a tone off."""
    riffs = tokens[rng.integers(len(tokens), size=count)].copy()
    for riff in riffs:
        some = rng.choice(np.flatnonzero((riff != REST) & (riff != HOLD)), size=2)
        riff[some] += rng.choice([-2, -1, 1, 2], size=2)
    return riffs


def make_study(seed: int, train: range = range(60), held: range = range(60, 84), count: int = 120, **more: Row) -> Study:
    """`more` are rows besides those of all cheaters; the model's riffs are of other songs of the same kind, one of each."""
    learnt, rng = songs(seed, train), np.random.default_rng(seed)
    rows = {MODEL: drawn(np.concatenate([song(seed, 1000 + i, 1) for i in range(count)]))}
    rows |= {name: drawn(make(learnt.tokens, TOKENIZER, count, rng)) for name, make in TOKEN_BASELINES.items()}
    rows["token jitter"] = drawn(jittered(learnt.tokens, count, rng))
    known = TrainingRiffs(learnt.tokens, [""] * len(learnt.tokens), TOKENIZER)
    return Study(f"study {seed}", TOKENIZER, learnt, songs(seed, held), known, rows | more)


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(1)


@pytest.fixture(scope="module")
def results(study: Study) -> dict[str, Any]:
    return compare([study])


def same(one: Any, other: Any) -> bool:
    return json.dumps(evaluate.plain(one)) == json.dumps(evaluate.plain(other))


def few(study: Study, **changes: Any) -> Study:
    """The study with the rows of the model and of one rival only, to be quick."""
    return dataclasses.replace(study, **{"rows": {name: study.rows[name] for name in (MODEL, "shuffled")}, **changes})


# ---------------------------------------------------------------- who passes


def test_every_cheater_loses_somewhere(results: dict[str, Any]) -> None:
    """Guards against a table that a cheater wins, and names where each is caught."""
    found = losses(results)
    assert set(found) == {MODEL, *TOKEN_BASELINES, "token jitter"}
    assert {"groove_consistency", "pitch_range", "mmd", "frechet", "precision"} <= set(found["unigram"])
    assert {"groove_consistency", "mmd", "frechet"} <= set(found["Markov"])
    assert {"groove_consistency", "mmd", "frechet"} <= set(found["shuffled"])
    assert {"nearest_distance", "shared_run", "copies", "repeated"} <= set(found[TRAIN])
    assert "nearest_distance" in found["token jitter"]


def test_each_cheater_passes_where_it_was_made_to(results: dict[str, Any]) -> None:
    """Guards against cheaters that are caught because they are badly made: what they copy is right."""
    found = losses(results)
    for name in ("unigram", "shuffled", TRAIN):
        assert "rest_ratio" not in found[name], name
    assert not {"scale_consistency", "groove_consistency", "mmd", "precision", "density"} & set(found[TRAIN])
    assert results["rest_ratio"]["blind_to"] and TRAIN in results["mmd"]["blind_to"]


def test_fresh_riffs_of_the_same_kind_pass_on_nearly_everything() -> None:
    """Guards against bands that real riffs of other songs do not reach. A band is an interval of the held-out songs alone, so that
    by chance about one metric in ten is missed; in most of these cases the verdict says so."""
    missed, told, chance = 0, 0, 0
    for seed in range(5):
        study = make_study(seed)
        found = compare([dataclasses.replace(study, rows={MODEL: study.rows[MODEL]})])
        verdicts = [metric["rows"][MODEL]["verdict"] for metric in found.values() if metric["rows"][MODEL]["passes"] is False]
        missed, told = missed + len(verdicts), told + len(found)
        chance += sum("may be chance" in words for words in verdicts)
        assert not {"copies", "repeated", "nearest_distance"} & set(losses(found)[MODEL])
    assert missed <= 0.15 * told and told == 5 * 24
    assert chance >= 0.5 * missed


def test_bands_verdicts_and_rivals_agree(results: dict[str, Any]) -> None:
    words = {
        "inside": ("inside the human band", ("below the human band", "above the human band")),
        "at most": ("as close as real riffs", ("further than real riffs",)),
        "at least": ("as good as real riffs", ("short of real riffs",)),
        "none": ("none", ("some",)),
    }
    seen = set()
    for key, metric in results.items():
        assert metric["band"] == metric["rows"][HELD]["interval"]
        good, bad = words[metric["rule"]] if key != "shared_run" else ("no more than real ones", ("more than real ones",))
        for name, row in metric["rows"].items():
            low, high = row["interval"]
            assert low <= high
            if name == HELD:
                assert row["passes"] and row["verdict"] == "the band itself"
                continue
            if not evaluation.can_fail(metric["rule"], metric["band"]):  # all real riffs are in one scale here
                assert (row["passes"], row["verdict"]) == (None, "cannot be told")
                continue
            assert row["passes"] == passes(metric["rule"], row["value"], metric["band"]), (key, name)
            assert row["verdict"] == good if row["passes"] else row["verdict"].removesuffix(" (may be chance)") in bad
            if row["verdict"].startswith(("below", "above")):
                assert (row["value"] < metric["band"][0]) == row["verdict"].startswith("below")
            seen.add(row["verdict"])
        assert metric["blind_to"] == [name for name, row in metric["rows"].items() if row["passes"] and name not in (HELD, MODEL)]
    assert len(seen) >= 8


def test_bands_that_tell_nothing_are_known() -> None:
    nan = float("nan")
    assert [evaluation.can_fail("inside", band) for band in ((1.0, 2.0), (1.0, 1.0), (nan, nan))] == [True, False, False]
    assert [evaluation.can_fail("at least", band) for band in ((0.5, 0.9), (0.0, 0.9), (nan, 1.0))] == [True, False, False]
    assert evaluation.can_fail("at most", (-0.1, 0.2)) and evaluation.can_fail("none", (0.0, 0.0))


def test_rules_by_hand() -> None:
    band = (1.0, 2.0)
    assert [passes("inside", x, band) for x in (0.999, 1.0, 2.0, 2.001)] == [False, True, True, False]
    assert [passes("at most", x, band) for x in (0.9, 2.0, 2.001)] == [True, True, False]
    assert [passes("at least", x, band) for x in (0.999, 1.0, 2.1)] == [False, True, True]
    assert [passes("none", x, band) for x in (0.0, 0.001)] == [True, False]


@pytest.mark.parametrize(
    ("rule", "value", "chance", "words"),
    [
        ("inside", 1.5, (0.0, 9.0), "inside the human band"),
        ("inside", 2.5, (2.1, 2.9), "above the human band"),
        ("inside", 2.5, (1.9, 3.1), "above the human band (may be chance)"),
        ("inside", 2.5, (0.5, 4.5), "above the human band (may be chance)"),  # wider than the band
        ("inside", 0.5, (0.2, 0.9), "below the human band"),
        ("at most", 2.5, (1.9, 3.1), "further than real riffs (may be chance)"),
        ("at most", 2.5, (2.1, 3.1), "further than real riffs"),
        ("at least", 0.5, (0.4, 1.0), "short of real riffs (may be chance)"),
        ("at least", 0.5, (0.4, 0.6), "short of real riffs"),
        ("none", 3.0, (0.0, 5.0), "some"),
        ("inside", float("nan"), (0.0, 1.0), "cannot be told"),
    ],
)
def test_verdicts_by_hand(rule: Any, value: float, chance: tuple[float, float], words: str) -> None:
    assert evaluation.verdict(evaluation.Metric("", rule, ""), value, (1.0, 2.0), chance) == words


# ---------------------------------------------------------------- what the numbers are


def test_values_are_means_over_riffs_and_bands_the_bootstrap_over_songs(study: Study, results: dict[str, Any]) -> None:
    """The weighted draws give what drawing the songs themselves gives."""
    fast = np.where(study.held.song == "song 60", 200.0, 100.0)
    again = compare([few(study, held=dataclasses.replace(study.held, bpm=fast))])
    measures = {
        "rest_ratio": metrics.rest_ratio(study.held.tokens),
        "restrike_share": metrics.restrike_share(study.held.tokens, TOKENIZER),
        "groove_consistency": metrics.groove_consistency(study.held.tokens, TOKENIZER),
        "note_density": metrics.note_density(study.held.tokens, TOKENIZER, fast),
    }
    group = np.unique(study.held.song, return_inverse=True)[1]
    for key, values in measures.items():
        by_song = [values[group == number] for number in range(group.max() + 1)]
        draws = np.random.default_rng(0).integers(len(by_song), size=(4000, len(by_song)))
        low, high = np.percentile([np.concatenate([by_song[i] for i in draw]).mean() for draw in draws], [2.5, 97.5])
        assert again[key]["rows"][HELD]["value"] == pytest.approx(values.mean())
        assert again[key]["band"] == pytest.approx((low, high), abs=0.2 * (high - low)), key
    jitter = study.rows["token jitter"].tokens
    nearest = study.known.nearest(jitter)
    for key, value in {
        "pitch_range": metrics.pitch_range(jitter, TOKENIZER).mean(),
        "ngram_repetition": metrics.ngram_repetition(jitter, TOKENIZER).mean(),
        "nearest_distance": np.median(nearest.distance),
        "shared_run": nearest.shared_run.mean(),
        "copies": 1000 * nearest.copy.mean(),
        "repeated": 1000 * (1 - metrics.distinct_share(jitter)),
    }.items():
        assert results[key]["rows"]["token jitter"]["value"] == pytest.approx(value), key
    assert results["copies"]["rows"][TRAIN]["value"] == 1000


def test_the_interval_covers_a_known_mean_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(0)
    row, hits = Row(np.zeros((40, 1), dtype=np.int64), np.zeros(40)), 0
    for trial in range(300):
        values = rng.normal(3.0, 2.0, size=40)
        low, high = evaluation.interval(evaluation.weighted_means(values, evaluation.Songs(trial).weights(row, 0)))
        hits += low <= 3.0 <= high
    assert 0.90 <= hits / 300 <= 0.98  # 40 values and the percentile method: slightly under 95 %


def test_songs_widen_the_interval_and_keep_its_cover() -> None:
    rng = np.random.default_rng(1)
    song = np.repeat(np.array([f"song {number}" for number in range(12)]), 8)
    hits, widths = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    for trial in range(300):
        values = np.repeat(rng.normal(size=12), 8) + 0.1 * rng.normal(size=96)  # riffs of one song resemble each other
        for grouped in (True, False):
            row = Row(np.zeros((96, 1), dtype=np.int64), np.zeros(96), song if grouped else None)
            low, high = evaluation.interval(evaluation.weighted_means(values, evaluation.Songs(trial).weights(row, 0)))
            hits[grouped] += low <= 0 <= high
            widths[grouped] += high - low
    assert widths[True] > 2 * widths[False]
    assert 0.86 <= hits[True] / 300 <= 0.96  # 12 songs and the percentile method: about 90 %
    assert hits[False] < 0.6 * 300


def test_weighted_means_and_medians_by_repeating() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=9), rng.integers(0, 4, size=(50, 9)).astype(float)
    values[4] = np.nan
    for found, row in zip(weighted_means(values, weights), weights, strict=True):
        assert found == pytest.approx(np.nanmean(np.repeat(values, row.astype(int))))
    values[4] = 0.1
    for found, row in zip(weighted_medians(values, weights), weights, strict=True):
        some = np.sort(np.repeat(values, row.astype(int)))
        assert found == some[(len(some) - 1) // 2]
    assert np.isnan(weighted_means(values, np.zeros((1, 9)))[0]) and np.isnan(weighted_medians(values, np.zeros((1, 9)))[0])
    assert np.isnan(weighted_means(np.full(2, np.nan), np.ones((1, 2)))[0])


def test_distances_of_the_held_out_line_are_those_of_the_training_riffs(study: Study, results: dict[str, Any]) -> None:
    """The floor of a distance is what real riffs have: the same as for a row that is the training riffs, songs and all."""
    again = compare([few(study, rows={MODEL: study.train})])
    for key in ("mmd", "pitch_consistency", "pitch_variance", "duration_consistency", "duration_variance"):
        rows = again[key]["rows"]
        assert rows[HELD]["value"] == results[key]["rows"][HELD]["value"]
        assert rows[MODEL]["value"] == pytest.approx(rows[HELD]["value"], abs=1e-9)
    assert again["frechet"]["rows"][MODEL]["value"] == pytest.approx(again["frechet"]["rows"][HELD]["value"], rel=0.1)  # random subsets


def test_the_band_of_distances_is_that_of_other_divisions_of_the_songs(study: Study) -> None:
    """Guards against bands that a plain bootstrap makes too wide: of real riffs divided anew, about 95 % lie inside."""
    songs_, held = evaluation.Songs(0), study.held
    partings = songs_.partings(study.train, held)
    every = np.concatenate([study.train.song, held.song])
    assert len(partings) == evaluation.PARTINGS
    for out in partings:
        assert len(set(every[out])) == len(set(held.song)) and not set(every[out]) & set(every[~out])
    assert len({out.tobytes() for out in partings}) > 90
    band = compare([few(study)])["mmd"]["band"]
    assert band[0] < 0 < band[1] < 0.05


def test_latents_are_a_second_pair_of_eyes(study: Study) -> None:
    """With a way to encode, each distance is measured in that space too: here one that sees nothing but the first token."""

    def encode(tokens: np.ndarray) -> np.ndarray:
        return tokens[:, :1] + 0.01 * tokens[:, 1:2].astype(float)

    found = compare([few(study, encode=encode)])
    assert set(found) == set(METRICS)
    shuffled = {name: found[key]["rows"]["shuffled"]["value"] for name, key in (("own", "mmd"), ("latent", "mmd_latent"))}
    assert shuffled["own"] != shuffled["latent"]
    assert {"mmd_latent", "frechet_latent"} == set(found) - set(compare([few(study)]))


# ---------------------------------------------------------------- several studies


def test_several_studies_are_means_and_draw_shared_songs_together(study: Study) -> None:
    """Guards against a band that becomes narrow because the same songs were counted twice."""
    short = few(study)
    once, twice = compare([short]), compare([short, short])
    for key, metric in twice.items():
        for name, row in metric["rows"].items():
            assert row["value"] == once[key]["rows"][name]["value"] and len(row["each"]) == 2
            assert row["interval"] == pytest.approx(once[key]["rows"][name]["interval"], nan_ok=True), (key, name)
        assert metric["blind_to"] == once[key]["blind_to"]
    renamed = {
        part: dataclasses.replace(row, song=np.char.add(row.song, "'")) for part, row in (("train", study.train), ("held", study.held))
    }
    other = dataclasses.replace(short, rows={**short.rows, MODEL: short.rows["shuffled"]}, **renamed)
    apart = compare([short, other])

    def width(found: dict[str, Any], key: str) -> float:
        return found[key]["band"][1] - found[key]["band"][0]

    for key in ("rest_ratio", "notes_per_bar", "pitch_class_entropy", "groove_consistency"):
        assert width(apart, key) < 0.85 * width(once, key)  # twice as many songs: narrower by a root of two
        rows = apart[key]["rows"]
        assert rows[MODEL]["each"] == [once[key]["rows"][MODEL]["value"], once[key]["rows"]["shuffled"]["value"]]
        assert rows[MODEL]["value"] == pytest.approx(np.mean(rows[MODEL]["each"]))


def test_studies_of_other_rows_cannot_be_put_together(study: Study) -> None:
    with pytest.raises(ValueError, match="different rows"):
        compare([study, few(study)])


def test_the_same_seed_gives_the_same_numbers(study: Study) -> None:
    short = few(study)
    first, again, other = compare([short]), compare([copy.deepcopy(short)]), compare([short], seed=1)
    assert same(first, again) and not same(first, other)
    for key, metric in first.items():
        if key not in NEIGHBOURS:  # those are means over random subsets
            assert metric["rows"][MODEL]["value"] == pytest.approx(other[key]["rows"][MODEL]["value"]), key


# ---------------------------------------------------------------- little to go by


def test_silence_is_measured_where_it_can_be_and_passes_nowhere_else(study: Study) -> None:
    """Guards against warnings, crashes and verdicts out of nothing: riffs without notes, and riffs of a single one."""
    single = np.full((12, 32), REST)
    single[:, 0] = np.arange(40, 52)
    rows = {MODEL: drawn(np.zeros((12, 32), dtype=np.int64)), "single notes": drawn(single)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare([few(study, rows=rows)])
        reports.text_table(found), reports.markdown_table(found), reports.verdict_lines(found), reports.losers(found)
        reports.picture(found["pitch_range"]).savefig(io.BytesIO())
    for key in ("pitch_range", "pitch_class_entropy", "restrike_share", "ngram_repetition", "scale_consistency", "ends_at_home"):
        row = found[key]["rows"][MODEL]
        assert np.isnan(row["value"]) and np.isnan(row["interval"]).all()
        assert (row["passes"], row["verdict"]) == (None, "cannot be told")
    assert found["rest_ratio"]["rows"][MODEL]["value"] == 1.0
    assert found["pitch_range"]["rows"]["single notes"]["value"] == 0.0
    assert found["rest_ratio"]["rows"]["single notes"]["value"] == 31 / 32
    json.dumps(evaluate.plain(found), allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_silent_held_out_riffs_leave_the_others_to_compare_with(study: Study) -> None:
    tokens = study.held.tokens.copy()
    tokens[::3] = REST
    found = compare([few(study, held=dataclasses.replace(study.held, tokens=tokens))])
    known = metrics.pitch_range(tokens, TOKENIZER)
    assert found["pitch_range"]["rows"][HELD]["value"] == pytest.approx(np.nanmean(known))
    assert found["pitch_range"]["rows"][MODEL]["verdict"] != "cannot be told"


def some_of(row: Row, count: int) -> Row:
    return Row(row.tokens[:count], row.bpm[:count], None if row.song is None else row.song[:count])


def test_sets_too_small_for_neighbours_leave_those_metrics_out(study: Study) -> None:
    """Guards against a traceback over few held-out riffs: of a row, of one study among several, of the training riffs."""
    size = evaluation.NEIGHBOURS
    for changes in ({"held": some_of(study.held, size)}, {"train": some_of(study.train, size)}):
        small = few(study, **changes)
        found = compare([small])
        assert not NEIGHBOURS & set(found) and {"rest_ratio", "mmd", "nearest_distance"} <= set(found)
    for together in ([small, few(study)], [few(study), small]):
        assert not NEIGHBOURS & set(compare(together))
    found = compare([few(study, rows={MODEL: some_of(study.rows[MODEL], size), "shuffled": study.rows["shuffled"]})])
    assert MODEL not in found["precision"]["rows"] and {HELD, "shuffled"} <= set(found["precision"]["rows"])
    assert set(losses(found)) == {MODEL, "shuffled"} and "precision" not in losses(found)[MODEL]
    assert reports.verdict_lines(found) and reports.losers(found)
    lines = reports.markdown_table(found).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert reports.text_table(found)


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "-"), (0.0, "0"), (-0.0, "0"), (1.0, "1"), (0.1234, "0.123"), (9.8765, "9.877"),
        (12.345, "12.35"), (-12.5, "-12.50"), (99.999, "100.00"), (123.4, "123"), (1000.0, "1000"), (1234567.8, "1234568"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert reports.number(value) in (text, "12.35", "12.34") if value == 12.345 else reports.number(value) == text


def test_the_text_table_marks_what_fails_and_nothing_else(results: dict[str, Any]) -> None:
    head, *lines = reports.text_table(results).splitlines()
    assert len(lines) == len(results) and len({len(line) for line in (head, *lines)}) == 1  # in columns
    for line, metric in zip(lines, results.values(), strict=True):
        assert line.startswith(metric["label"])
        assert line.count("!") == sum(row["passes"] is False for row in metric["rows"].values())
        cells = line.split()[-len(metric["rows"]) :]
        assert [cell.endswith("!") for cell in cells] == [row["passes"] is False for row in metric["rows"].values()]
        assert [cell.rstrip("!") for cell in cells] == [reports.number(row["value"]) for row in metric["rows"].values()]


def test_the_markdown_is_a_table_and_bold_where_it_fails(results: dict[str, Any]) -> None:
    head, rule, *lines = reports.markdown_table(results).splitlines()
    names = [name for name in next(iter(results.values()))["rows"] if name != HELD]
    assert set(rule) == {"|", "-"}
    assert {line.count("|") for line in (head, rule, *lines)} == {len(names) + 3}
    for line, metric in zip(lines, results.values(), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == metric["label"] and cells[1] == reports.band_words(metric)
        for cell, name in zip(cells[2:], names, strict=True):
            assert cell.startswith("**") == (metric["rows"][name]["passes"] is False)
            assert (" to " in cell) == (name == MODEL)


def test_the_verdict_lines_name_the_rivals_that_pass_as_well(results: dict[str, Any]) -> None:
    for line, metric in zip(reports.verdict_lines(results).splitlines(), results.values(), strict=True):
        assert line.startswith(metric["label"] + ":") and metric["rows"][MODEL]["verdict"] in line
        also = line.split("rivals that pass too: ")[1].split(", ")
        assert also == ([reports.SHORT.get(name, name) for name in metric["blind_to"]] or ["none"])
    assert {bool(metric["blind_to"]) for metric in results.values()} == {True, False}


def test_the_losers_are_named_with_all_they_fail_and_what_may_be_chance(results: dict[str, Any]) -> None:
    """Guards against a loser who is called one for bad luck, and labels with commas that run into one another."""
    lines = re.split(r"\n(?! )", reports.losers(results))  # a long line goes on with spaces
    assert max(len(part) for line in lines for part in line.splitlines()) <= 160
    for line, (name, keys) in zip(lines, losses(results).items(), strict=True):
        head, found = line.split(": ", 1)
        chance = sum(results[key]["rows"][name]["verdict"].endswith("(may be chance)") for key in keys)
        perhaps = f" ({chance} may be chance)" if chance else ""
        told = sum(metric["rows"][name]["passes"] is not None for metric in results.values())
        assert head == f"{reports.SHORT.get(name, name):10s} fails {len(keys):2d} of {told:2d}{perhaps}"
        assert bare(found).split(";") == [bare(results[key]["label"]) for key in keys]
    assert {"may be chance" in line for line in lines} == {True, False}


def bare(text: str) -> str:
    """A text without white space, wherever its lines were broken."""
    return "".join(text.split())


def measured(
    label: str, rule: str, band: tuple[float, float], held: float, value: float, passed: bool | None, verdict: str
) -> dict[str, Any]:
    """A metric of compare, with the two rows that the sentences speak of."""
    rows = {HELD: {"value": held, "passes": True, "verdict": "the band itself"}}
    rows[MODEL] = {"value": value, "passes": passed, "verdict": verdict}
    return {"label": label, "meaning": "", "rule": rule, "band": band, "rows": rows, "blind_to": []}


def test_the_verdict_in_plain_words_by_hand() -> None:
    """Guards against sentences that count what cannot be told, call bad luck a difference, or turn distances upside down."""
    found = {
        "rest_ratio": measured("rest ratio", "inside", (0.1, 0.3), 0.2, 0.25, True, "inside the human band"),
        "pitch_range": measured("pitch range", "inside", (10.0, 15.0), 12.0, 20.0, False, "above the human band"),
        "scale_consistency": measured("one scale", "inside", (1.0, 1.0), 1.0, 0.9, None, "cannot be told"),
        "mmd": measured("MMD^2", "at most", (-0.1, 0.02), 0.0, 0.03, False, "further than real riffs (may be chance)"),
        "nearest_distance": measured("distance", "at least", (0.55, 0.6), 0.58, 0.42, False, "short of real riffs"),
        "copies": measured("copies", "none", (0.0, 0.0), 0.0, 12.0, False, "some"),
    }
    text = reports.plain_words(found)
    assert max(map(len, text.splitlines())) <= 160
    assert text.replace("\n  ", " ").splitlines() == [
        "The new riffs are like real ones in 1 of 5 measures (1 more cannot be told).",
        "They differ in: pitch range (20, real riffs 10 to 15); distance (0.420, real riffs from 0.550); copies (12, real riffs 0).",
        "They miss, but maybe by chance: MMD^2.",
        "Copied: 12 in 1000 are a known riff, transposed or not. Half of the new riffs share 58% or more with the nearest known riff; "
        "half of people's own, 42%.",
    ]
    assert reports.plain_words({"rest_ratio": found["rest_ratio"]}) == "The new riffs are like real ones in 1 of 1 measures."


def test_the_plain_words_are_the_verdicts(results: dict[str, Any]) -> None:
    text = reports.plain_words(results)
    failed, rows = losses(results)[MODEL], {key: metric["rows"][MODEL] for key, metric in results.items()}
    told = sum(row["passes"] is not None for row in rows.values())
    untold = f" ({len(rows) - told} more cannot be told)"
    assert text.startswith(f"The new riffs are like real ones in {told - len(failed)} of {told} measures{untold}.") and told < len(rows)
    clear = [key for key in failed if "chance" not in rows[key]["verdict"]]
    assert ("They differ" in text, "by chance" in text) == (bool(clear), len(clear) < len(failed))
    for name, shown in (("unigram", "They differ in: "), (TRAIN, "Copied: 1000 in 1000 are a known riff")):
        assert shown in reports.plain_words(results, name)


def test_the_legend_says_what_each_column_is(results: dict[str, Any]) -> None:
    text = reports.legend(results)
    assert max(map(len, text.splitlines())) <= 160
    columns = bare(text).removesuffix(".").split("Thecolumns:")[1].split(";")
    names = [name for name in results["rest_ratio"]["rows"] if name != "token jitter"]  # no rival of evaluate.py
    assert columns == [bare(f"{reports.SHORT.get(name, name)}: {reports.ABOUT[name]}") for name in names]


@pytest.mark.parametrize("key", ["rest_ratio", "mmd", "precision", "copies"])
def test_a_picture_of_each_rule_shows_something(key: str, results: dict[str, Any], tmp_path: Path) -> None:
    reports.picture(results[key]).savefig(tmp_path / "a.png")
    assert_is_a_picture(tmp_path / "a.png")
