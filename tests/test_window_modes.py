"""The MusicVAE family from a folder of songs to music: both train scripts and the modes of generate.py, for every representation."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import torch
from conftest import Here, Result, assert_is_a_picture, assert_one_line, bytes_below, log_lines, midi_bytes, midi_track, stop_after

import models
import train_diffusion
import train_vae
import training
from checkpoints import VAE_KIND, load_vae, read_checkpoint
from config import DIFFUSION_FILE, TOKEN_FILE, VAE_FILE, DataConfig, SongConfig, TokenizerConfig
from family.drums import patterns_to_midi, read_patterns, tapped
from family.resident import ResidentWindows
from family.windows import read_windows, windows_to_midi
from latents import as_steps
from midi_utils import read_midi
from presets import TrainVAE, parse_options
from sampling import reconstruct

PRESETS = {
    "mono": "melody_2bar_small",
    "drums": "drums_2bar_small",
    "humanize": "groove_2bar_humanize_small",
    "tap": "groove_2bar_tap_small",
    "trio": "trio_16bar_small",
}
TINY = ["--encoder-size", "12", "--decoder-size", "16", "--z-size", "6", "--threads", "1", "--device", "cpu"]
PACE = ["--batch-size", "8", "--steps", "12", "--lr", "0.01", "--log-interval", "4", "--eval-interval", "6", "--workers", "1"]
FLAGS = {
    "mono": ["--programs", "24-31"],
    "drums": ["--kit", "general"],
    "humanize": ["--kit", "general"],
    "tap": ["--kit", "general"],
    "trio": ["--bars", "2", "--level-lengths", "4,8", "--conductor-size", "8"],
}


def song(seed: int, bars: int = 8) -> bytes:
    """A lead, a bass, and drums that are played early, late, loud and soft."""
    rng = np.random.default_rng(seed)
    lead = [(float(i) / 2, 0.5, int(p)) for i, p in enumerate(rng.integers(60, 72, size=8 * bars))]
    bass = [(float(i), 1.0, int(p)) for i, p in enumerate(rng.integers(36, 44, size=4 * bars))]
    hits = [(float(i), 36 if i % 2 == 0 else 38) for i in range(4 * bars)] + [(i / 2, 42) for i in range(8 * bars)]
    kit, now = mido.MidiTrack([mido.MetaMessage("track_name", name="Kit")]), 0
    events = []
    for at, pitch in hits:
        on = max(0, round(480 * at + rng.normal(0, 15)))
        events += [(on, mido.Message("note_on", note=pitch, velocity=int(rng.integers(30, 120)), channel=9))]
        events += [(on + 60, mido.Message("note_off", note=pitch, channel=9))]
    for tick, message in sorted(events, key=lambda event: event[0]):
        kit.append(message.copy(time=tick - now))
        now = tick
    kit.append(mido.MetaMessage("end_of_track", time=max(0, bars * 4 * 480 - now)))
    lines = [midi_track(lead, program=27, name="Lead"), midi_track(bass, program=33, name="Bass", channel=1)]
    return midi_bytes(*lines, kit, tempos=((0, 90 + seed),))


@pytest.fixture(scope="session")
def band(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five songs. Not to be written to."""
    folder = tmp_path_factory.mktemp("band")
    for i in range(5):
        (folder / f"song{i}.mid").write_bytes(song(i))
    return folder


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory, band: Path) -> Callable[[str], Path]:
    """The run folder of a kind, trained when it is first asked for. Not to be written to."""
    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            flags = ["--preset", PRESETS[kind], "--run-dir", str(folder), *TINY, *PACE, *FLAGS[kind]]
            assert train_vae.main(["--data", str(band), *flags]) == 0
            if kind == "mono":
                sizes = ["--hidden-size", "16", "--blocks", "1", "--num-timesteps", "60", "--batch-size", "8", "--latents", "32"]
                pace = ["--run-dir", str(folder), "--steps", "12", "--threads", "1"]
                assert train_diffusion.main(["--preset", PRESETS[kind], *pace, *sizes]) == 0
            made[kind] = folder
        return made[kind]

    return run


@pytest.fixture
def generate(here: Here, run_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., Result]:
    """generate("drums", "reconstruct", file, ...) writes to tmp_path / "out"."""

    def call(kind: str, *words: str) -> Result:
        flags = ["--preset", PRESETS[kind], "--run-dir", str(run_of(kind)), "--output-dir", str(tmp_path / "out"), "--threads", "1"]
        return here("generate", *words, *flags)

    return call


EACH = pytest.mark.parametrize("kind", PRESETS)


# ---------------------------------------------------------------- training


@EACH
def test_a_run_holds_model_token_file_and_log(kind: str, run_of: Callable[[str], Path]) -> None:
    run = run_of(kind)
    assert {VAE_FILE, TOKEN_FILE, "tokens.json", "data_table.csv", "train_vae.jsonl"} <= {path.name for path in run.iterdir()}
    lines = [line for line in log_lines(run / "train_vae.jsonl") if line["split"] == ("train" if kind == "drums" else "held out")]
    assert [line["step"] for line in lines] == (
        [4, 8, 12] if kind == "drums" else [6, 12]
    )  # the songs' drums are all the same: none is held out
    assert all(np.isfinite(line["reconstruction"]) for line in lines)
    content = read_checkpoint(run / VAE_FILE, VAE_KIND)
    assert content["songs"]["songs"] and 90 <= content["data"]["bpm"] <= 94
    assert content["data"]["programs"] == {"mono": [27], "trio": [27, 33]}.get(kind, [])


@pytest.mark.parametrize("kind", ["mono", "trio"])
def test_windows_that_live_on_the_device_teach_the_same(
    kind: str, run_of: Callable[[str], Path], band: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.fits", lambda *_: True)
    taken, batch = [], ResidentWindows.batch
    monkeypatch.setattr(ResidentWindows, "batch", lambda self, *args: taken.append(1) or batch(self, *args))
    flags = ["--data", str(band), "--preset", PRESETS[kind], "--run-dir", str(tmp_path), *TINY, *PACE, *FLAGS[kind]]
    assert here("train_vae", *flags).code == 0 and len(taken) == 12
    ours, mapped = (read_checkpoint(folder / VAE_FILE, VAE_KIND)["weights"] for folder in (tmp_path, run_of(kind)))
    assert all(torch.equal(ours[name], weight) for name, weight in mapped.items())


@pytest.mark.parametrize("kind", ["mono", "humanize"])
def test_a_run_that_stopped_ends_where_one_that_did_not(
    kind: str, run_of: Callable[[str], Path], band: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through main, cut in mid-epoch: windows, transpositions and draws go on as they would have."""
    whole = run_of(kind)
    flags = ["--data", str(band), "--preset", PRESETS[kind], "--run-dir", str(tmp_path / "run"), *TINY, *PACE, *FLAGS[kind]]
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(5))
        assert train_vae.main(flags) == 130
    assert train_vae.main(flags) == 0
    one, other = (read_checkpoint(folder / VAE_FILE, VAE_KIND)["weights"] for folder in (whole, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_of_given_hits_only_how_they_are_played_is_measured(run_of: Callable[[str], Path], band: Path, tmp_path: Path, here: Here) -> None:
    """They come back whatever the model does: no accuracy may be made of that."""
    shutil.copytree(run_of("humanize"), tmp_path / "run")
    flags = ["--preset", PRESETS["humanize"], "--run-dir", str(tmp_path / "run"), *TINY, *PACE, *FLAGS["humanize"]]
    said = here("train_vae", "--data", str(band), *flags, "--steps", "14").out
    assert "free velocity error" in said and "offset error other z" in said
    assert "onset accuracy" not in said and "gives back" not in said


def test_a_token_file_that_is_made_anew_is_found(run_of: Callable[[str], Path], band: Path, tmp_path: Path, here: Here) -> None:
    """Trained on a token file of somewhere else, which then is lost: made anew from the songs it stands in the run folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (TOKEN_FILE, "tokens.json"):
        shutil.copy(run_of("drums") / name, elsewhere)
    flags = ["--preset", PRESETS["drums"], "--run-dir", str(tmp_path / "run"), "--threads", "1"]
    assert here("train_vae", "--data", str(elsewhere / TOKEN_FILE), *flags, *TINY, *PACE, *FLAGS["drums"]).code == 0
    shutil.rmtree(elsewhere)
    sizes = ["--hidden-size", "16", "--blocks", "1", "--num-timesteps", "60", "--batch-size", "8", "--latents", "32", "--steps", "4"]
    assert_one_line(here("train_diffusion", *flags, *sizes), "train_diffusion", "is gone", "--data FOLDER")
    assert here("train_diffusion", "--data", str(band), *flags, *sizes).code == 0
    result = here("generate", *flags, "--output-dir", str(tmp_path / "out"), "--seeds", "1")
    assert result.code == 0 and "cannot be said" not in result.out and "nearest" in result.out


def test_starting_from_trained_weights_keeps_a_presets_options() -> None:
    """What riffs are fine-tuned with is for riffs."""
    begun = parse_options(TrainVAE, ["--preset", PRESETS["mono"], "--init-from", "some.pth"])
    assert begun.train == dataclasses.replace(parse_options(TrainVAE, ["--preset", PRESETS["mono"]]).train, init_from="some.pth")


def test_what_a_token_file_was_made_with_is_said(run_of: Callable[[str], Path], tmp_path: Path, here: Here) -> None:
    flags = ["--preset", PRESETS["drums"], "--run-dir", str(tmp_path / "run"), *TINY, *PACE, *FLAGS["drums"], "--hop", "2"]
    said = here("train_vae", "--data", str(run_of("drums") / TOKEN_FILE), *flags).out
    assert "was made with --hop 1: that counts here" in said


def test_changed_songs_stop_a_resumed_run(band: Path, tmp_path: Path, here: Here) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    for path in band.iterdir():
        (songs / path.name).write_bytes(path.read_bytes())
    flags = ["--data", str(songs), "--preset", PRESETS["drums"], "--run-dir", str(tmp_path / "run"), *TINY, *PACE, *FLAGS["drums"]]
    assert here("train_vae", *flags).code == 0
    (songs / "song9.mid").write_bytes(song(9))
    assert_one_line(
        here("train_vae", *flags, "--steps", "14"), "train_vae", "this run began with other windows (the songs changed)", "--restart"
    )


# ---------------------------------------------------------------- new music


@EACH
def test_new_windows_are_music_of_their_kind(kind: str, generate: Callable[..., Result], tmp_path: Path) -> None:
    result = generate(kind, "--seeds", "3,5-6")
    assert result.code == 0, result.err
    out = tmp_path / "out"
    files = sorted(path.name for path in (out / "windows").glob("*.mid"))
    assert [name[:18] for name in files] == ["window_seed000003_", "window_seed000005_", "window_seed000006_"]
    record = json.loads((out / "windows" / files[0]).with_suffix(".json").read_text())
    assert record["seed"] == 3 and 0 <= record["nearest"]["copied"] <= 1 and "song" in record["nearest"]["window"]
    assert record["settings"]["prior"] == ("diffusion" if kind == "mono" else "normal")
    assert ("diffusion model" if kind == "mono" else "N(0, I)") in result.out
    for path in out.rglob("*.mid"):
        file = mido.MidiFile(path)
        bars = sum(message.time for message in file.tracks[0]) / file.ticks_per_beat / 4
        assert bars == (6 if path.name == "generated_long.mid" else 2)
        channels = {message.channel for track in file.tracks for message in track if message.type == "note_on"}
        assert channels <= {"mono": {0}, "trio": {0, 1, 9}}.get(kind, {9})


@pytest.mark.parametrize("kind", ["mono", "humanize", "trio"])
def test_a_seed_is_the_same_music_in_any_batch(kind: str, generate: Callable[..., Result], here: Here, run_of: Any, tmp_path: Path) -> None:
    assert generate(kind, "--seeds", "0-69").code == 0
    flags = ["--preset", PRESETS[kind], "--run-dir", str(run_of(kind)), "--output-dir", str(tmp_path / "alone")]
    assert here("generate", "--seeds", "66", *flags).code == 0
    alone = bytes_below(tmp_path / "alone" / "windows")
    assert len(alone) == 2 and alone.items() <= bytes_below(tmp_path / "out" / "windows").items()


def test_what_copies_too_much_is_drawn_again_or_refused(generate: Callable[..., Result]) -> None:
    result = generate("drums", "--seeds", "0-3", "--max-copy", "0")
    assert result.code == 2 and "copies so little" in result.err and result.err.count("\n") == 1


def test_a_seed_that_is_refused_is_named_and_tells(
    generate: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """What is kept is written, and the exit status says that something is missing."""
    monkeypatch.setattr("sampling.MAX_ATTEMPTS", 1)
    assert generate("mono", "--seeds", "0-7", "--max-copy", "1").code == 0
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "windows").glob("*.json"))]
    copied = {record["seed"]: record["nearest"]["copied"] for record in records}
    limit = sorted(copied.values())[3]
    over = [seed for seed, share in copied.items() if share > limit + 1e-4]
    assert 0 < len(over) < 8
    result = generate("mono", "--seeds", "0-7", "--max-copy", str(limit + 1e-4))
    assert result.code == 1 and f"no window for seed {', '.join(map(str, over))}:" in result.err
    assert len(json.loads((tmp_path / "out" / "generated_long.json").read_text())["windows"]) == 8 - len(over)


def test_somebodys_file_is_not_overwritten(generate: Callable[..., Result], tmp_path: Path) -> None:
    assert generate("drums", "--seeds", "0").code == 0
    (edited,) = (tmp_path / "out" / "windows").glob("*.mid")
    edited.write_bytes(edited.read_bytes() + b"mine")
    assert_one_line(generate("drums", "--seeds", "0"), "generate", "no longer, as generate.py wrote it")


# ---------------------------------------------------------------- from files


@pytest.mark.parametrize("kind", ["mono", "drums", "trio"])
def test_reconstruction_is_the_models(kind: str, generate: Callable[..., Result], band: Path, run_of: Any, tmp_path: Path) -> None:
    """Every window of the file, one after the other, as sampling.reconstruct says."""
    result = generate(kind, "reconstruct", str(band / "song1.mid"))
    assert result.code == 0 and "given back: accuracy" in result.out
    (path,) = (tmp_path / "out").glob("*.mid")
    assert path.name == "song1_reconstruct_91bpm.mid"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["given"]["bars"] == [1, 3, 5, 7]
    vae, content = load_vae(run_of(kind) / VAE_FILE)
    songs = SongConfig(**{**content["songs"], "kit": "general", "min_notes_per_bar": 0.0})
    windows, _ = read_windows(band / "song1.mid", songs, DataConfig(low=21, high=108), vae.tokenizer, one_line=True)
    steps = as_steps(np.stack([window.steps for window in windows if window.first_bar % 2 == 1]))
    assert record["steps"] == reconstruct(vae, steps).tolist()


def test_from_bar(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    assert generate("mono", "reconstruct", str(band / "song1.mid"), "--from-bar", "4").code == 0
    (path,) = (tmp_path / "out").glob("*.json")
    assert json.loads(path.read_text())["given"]["bars"] == [4, 6]
    assert_one_line(
        generate("mono", "reconstruct", str(band / "song1.mid"), "--from-bar", "8"), "generate", "--from-bar 8", "at bar 1 to 7"
    )


def test_humanize_plays_what_is_written(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    """The hits stay; how loud and how late they are comes from the model alone."""
    result = generate("humanize", "reconstruct", str(band / "song2.mid"))
    assert result.code == 0 and "played  offset std" in result.out
    (path,) = (tmp_path / "out").glob("*_humanize_*.mid")
    given, played = ([pattern.hits for pattern in read_patterns(read_midi(file), TokenizerConfig())] for file in (band / "song2.mid", path))
    assert np.array_equal(given, played)
    (tmp_path / "score.mid").write_bytes(path.read_bytes())  # the same score, played otherwise
    assert generate("humanize", "reconstruct", str(tmp_path / "score.mid")).code == 0
    record = json.loads(next((tmp_path / "out").glob("score_humanize*.json")).read_text())
    assert record["steps"] == json.loads(path.with_suffix(".json").read_text())["steps"]


def test_its_own_drums_are_read_as_it_writes_them(
    generate: Callable[..., Result], band: Path, tmp_path: Path, run_of: Any, here: Here
) -> None:
    """Guards against toms that climb, or go, each time a file goes through: what is written is General MIDI, Groove is read as Roland."""
    steps = np.zeros((32, 27), dtype=np.float32)
    steps[np.arange(9) * 3, np.arange(9)] = 1
    steps[:, 9:18] = 0.5 * steps[:, :9]
    ours, theirs = tmp_path / "ours.mid", tmp_path / "theirs.mid"
    ours.write_bytes(windows_to_midi([steps], TokenizerConfig(representation="groove"), 100.0))
    midi = mido.MidiFile(ours)
    midi.tracks[1][0] = mido.MetaMessage("track_name", name="Drums")
    for message in midi.tracks[1]:
        if message.type in ("note_on", "note_off") and message.note == 36:
            message.note = 56  # a cowbell
    midi.save(theirs)
    run = tmp_path / "run"
    shutil.copytree(run_of("humanize"), run)
    content = torch.load(run / VAE_FILE, weights_only=True)
    content["songs"]["kit"] = "roland"
    torch.save(content, run / VAE_FILE)

    def toms_of(file: Path, *flags: str) -> tuple[str, np.ndarray]:
        words = ["reconstruct", str(file), "--preset", PRESETS["humanize"], "--run-dir", str(run), "--output-dir", str(tmp_path / "out")]
        result = here("generate", *words, *flags)
        assert result.code == 0, result.err
        (path,) = (tmp_path / "out").glob(f"{file.stem}_*.json")
        return result.out, np.array(json.loads(path.read_text())["steps"])[0, :, 4:7].sum(axis=0)

    said, toms = toms_of(ours)
    assert toms.tolist() == [1, 1, 1] and "read as the general kit" in said
    said, toms = toms_of(theirs)
    assert toms.tolist() == [0, 1, 2] and "read as the roland kit" in said  # 45 is a mid tom there, 48 a high one
    assert "1 note left out: no drum of the roland kit" in said
    said, toms = toms_of(theirs, "--kit", "general")
    assert toms.tolist() == [1, 1, 1]


def test_lines_stay_in_their_range_and_silence_is_said(generate: Callable[..., Result], tmp_path: Path) -> None:
    """Models of twelve steps write anything that they may."""
    for kind, lowest in (("mono", 21), ("trio", 21)):
        assert generate(kind, "--seeds", "0-19", "--temperature", "3").code == 0
        steps = np.array([json.loads(path.read_text())["steps"] for path in (tmp_path / "out" / "windows").glob("*.json")])[:, 0]
        melody = steps[..., 0] if kind == "trio" else steps
        pitches = melody[(melody > 0) & (melody < 128)]
        assert lowest <= pitches.min() < pitches.max() <= 108
        if kind == "trio":
            bass = steps[..., 1]
            assert bass[(bass > 0) & (bass < 128)].max() <= 108 and bass[bass > 0].min() < 21
        shutil.rmtree(tmp_path / "out")
    result = generate("mono", "--seeds", "0-3", "--temperature", "0")
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "windows").glob("*.json")]
    silent = sum(not any(0 < token < 128 for token in record["steps"][0]) for record in records)
    assert (f"silent, without a note or hit: {silent} of 4" in result.out) == bool(silent)


def test_files_of_an_earlier_way_are_mentioned(generate: Callable[..., Result], band: Path) -> None:
    files = [str(band / "song0.mid"), str(band / "song1.mid")]
    assert "earlier calls" not in generate("drums", "interpolate", *files, "--steps", "4").out
    assert "1 step of earlier calls" in generate("drums", "interpolate", *files, "--steps", "3").out


def test_each_seed_plays_the_score_its_own_way(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    def played(*flags: str) -> np.ndarray:
        assert generate("humanize", "reconstruct", str(band / "song2.mid"), *flags).code == 0
        seed = int(flags[1])
        (path,) = (tmp_path / "out").glob(f"song2_humanize_seed{seed:06d}_*.json")
        return np.array(json.loads(path.read_text())["steps"])

    first, second = played("--seed", "1"), played("--seed", "2")
    assert np.array_equal(first[..., :9], second[..., :9]) and not np.array_equal(first, second)
    both = generate("humanize", "reconstruct", str(band / "song2.mid"), "--seeds", "2,3")
    assert both.code == 0 and len(list((tmp_path / "out").glob("song2_humanize_seed*.mid"))) == 3
    (path,) = (tmp_path / "out").glob("song2_humanize_seed000002_*.json")
    assert np.array_equal(json.loads(path.read_text())["steps"], second)
    still, again = (played("--seed", seed, "--temperature", "0") for seed in "12")
    assert np.array_equal(still, again) and still[..., 18:].std() < first[..., 18:].std()


def test_taps_become_drums(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    """The rhythm alone decides: the same taps on other drums, with softer ones beside them, become the same."""
    file, record = band / "song2.mid", {}
    patterns = read_patterns(read_midi(file), TokenizerConfig())
    hats = [tapped(pattern) for pattern in patterns]
    (tmp_path / "hats.mid").write_bytes(patterns_to_midi(hats, TokenizerConfig()))
    for path in (file, tmp_path / "hats.mid"):
        assert generate("tap", "reconstruct", str(path), "--temperature", "0", "--bpm", "90").code == 0
        (made,) = (tmp_path / "out").glob(f"{path.stem}_tap_to_drums_*.json")
        record[path.stem] = json.loads(made.read_text())
    assert record["hats"]["steps"] == record["song2"]["steps"] and record["hats"]["given"]["sha256"] != record["song2"]["given"]["sha256"]


def test_settings_are_those_that_were_used(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    for kind, temperature in (("drums", 0.0), ("humanize", 1.0)):
        assert generate(kind, "reconstruct", str(band / "song1.mid")).code == 0
        (path,) = (tmp_path / "out").glob(f"song1_{'reconstruct' if kind == 'drums' else kind}_*.json")
        assert json.loads(path.read_text())["settings"]["temperature"] == temperature


def test_bars_that_do_not_fill_a_window_are_named(generate: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "odd.mid").write_bytes(song(0, bars=5))
    result = generate("drums", "reconstruct", str(tmp_path / "odd.mid"))
    assert result.code == 0 and "bar 5 is left out: this model reads 2 bars at a time" in result.out


@pytest.mark.parametrize("kind", ["mono", "drums", "trio"])
def test_interpolation_begins_and_ends_with_the_reconstructions(
    kind: str, generate: Callable[..., Result], band: Path, tmp_path: Path
) -> None:
    files = [str(band / f"song{i}.mid") for i in (0, 3)]
    assert generate(kind, "interpolate", *files, "--steps", "5", "--through", "direct").code == 0
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*step*.json"))]
    assert [record["share"] for record in records] == [0, 0.25, 0.5, 0.75, 1]
    long = json.loads(next((tmp_path / "out").glob("*_long.json")).read_text())
    assert long["steps"] == [record["steps"][0] for record in records]
    for file, record in zip(files, (records[0], records[-1]), strict=True):
        assert generate(kind, "reconstruct", file).code == 0
        whole = json.loads(next((tmp_path / "out").glob(f"{Path(file).stem}_reconstruct*.json")).read_text())
        assert record["steps"][0] == whole["steps"][0]


def test_each_file_of_a_way_may_have_its_own_line(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    """What is asked for is looked for in its own file, and named where it is not there."""
    files = [str(band / "song0.mid"), str(band / "song3.mid")]
    assert generate("mono", "interpolate", *files, "--steps", "2", "--track", "Lead, 1", "--through", "direct").code == 0
    record = json.loads(next((tmp_path / "out").glob("*_long.json")).read_text())
    assert [given["part"] for given in record["given"]] == ["Lead", "Lead"]
    result = generate("mono", "interpolate", *files, "--track", "Lead,Bass", "--through", "direct")
    assert result.code == 0, "the bass can be read as a line"
    assert_one_line(generate("mono", "interpolate", *files, "--track", "Lead,Nobody"), "generate", "song3.mid", "--track Nobody")


def test_a_prior_of_another_vae_is_in_nobodys_way_but_its_own(here: Here, run_of: Any, band: Path, tmp_path: Path) -> None:
    """As after training the VAE on: what needs no prior goes on, what does says how to do without."""
    run = tmp_path / "run"
    shutil.copytree(run_of("mono"), run)
    content = torch.load(run / DIFFUSION_FILE, weights_only=True)
    torch.save(content | {"vae_hash": "0" * 16}, run / DIFFUSION_FILE)
    flags = ["--preset", PRESETS["mono"], "--run-dir", str(run), "--output-dir", str(tmp_path / "out")]
    assert here("generate", "reconstruct", str(band / "song0.mid"), *flags).code == 0
    assert_one_line(here("generate", *flags), "generate", "of another VAE", "--prior normal")


def test_without_a_prior_there_is_one_way(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    files = [str(band / f"song{i}.mid") for i in (0, 1)]
    assert_one_line(generate("drums", "interpolate", *files, "-n", "3"), "generate", "the same for every seed")
    assert generate("drums", "interpolate", *files, "--steps", "3").code == 0
    assert json.loads(next((tmp_path / "out").glob("*_long.json")).read_text())["through"] == "direct"


def test_silent_bars_are_passed_over_and_named(generate: Callable[..., Result], tmp_path: Path) -> None:
    notes = [(float(i), 1.0, 60 + i % 5) for i in range(48) if not 16 <= i < 24]
    (tmp_path / "gap.mid").write_bytes(midi_bytes(midi_track(notes, program=27)))
    result = generate("mono", "reconstruct", str(tmp_path / "gap.mid"))
    assert result.code == 0 and "bars 5-6 left out" in result.out
    assert json.loads(next((tmp_path / "out").glob("*.json")).read_text())["given"]["bars"] == [1, 3, 7, 9, 11]


@pytest.mark.parametrize("through", ["direct", "diffusion"])
def test_a_way_from_a_file_to_itself_stays_there(through: str, generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    """Equal ends, on which the arc is not defined."""
    file = str(band / "song0.mid")
    assert generate("mono", "interpolate", file, file, "--steps", "4", "--through", through).code == 0
    steps = [json.loads(path.read_text())["steps"][0] for path in sorted((tmp_path / "out").glob("*step*.json"))]
    assert len(steps) == 4 and steps[0] == steps[3]
    assert through == "diffusion" or all(one == steps[0] for one in steps)


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vary", "FILE"], "vary: needs a VAE of riffs; melody_2bar_small has sample, reconstruct and interpolate"),
        (["interpolate", "FILE"], "two MIDI files"),
        (["reconstruct"], "one MIDI file"),
        (["reconstruct", "nothing.mid"], "there is no such file"),
        (["reconstruct", "FILE", "--track", "Kit"], "no usable line: none of --track Kit; there: 1 Lead"),
        (["--tuning", "drop-d"], "--tuning: has no effect on melody_2bar_small, a model of windows"),
        (["--key", "E minor"], "--key: has no effect"),
        (["--wav"], "--wav: has no effect"),
    ],
)
def test_refusals_say_what_to_do(words: list[str], said: str, generate: Callable[..., Result], band: Path) -> None:
    words = [str(band / "song0.mid") if word == "FILE" else word for word in words]
    assert_one_line(generate("mono", *words), "generate", said)


@pytest.mark.parametrize(
    ("kind", "flags", "said"),
    [
        ("drums", ["--program", "29"], "--program"),
        ("drums", ["reconstruct", "FILE", "--track", "1"], "--track"),
        ("mono", ["reconstruct", "FILE", "--kit", "roland"], "--kit"),
        ("humanize", ["--top-k", "3"], "--top-k"),
    ],
)
def test_options_without_effect_are_refused(kind: str, flags: list[str], said: str, generate: Callable[..., Result], band: Path) -> None:
    flags = [str(band / "song0.mid") if word == "FILE" else word for word in flags]
    assert_one_line(generate(kind, *flags), "generate", f"{said}: has no effect")


@pytest.mark.parametrize(
    ("preset", "flags", "said"),
    [
        ("riff_2bar", ["--songs"], "--songs: riff_2bar is there to train on riffs"),
        ("melody_2bar_small", ["--no-songs"], "--no-songs: melody_2bar_small is there to train on whole songs"),
        ("riff_2bar", ["--hop", "1"], "--hop: has no effect on riffs"),
        ("riff_2bar", ["--representation", "drums"], "--representation drums"),
        ("melody_2bar_small", ["--mix", "0.1"], "--mix: has no effect on whole songs"),
        ("drums_2bar_small", ["--programs", "3"], "--programs: has no effect on drums"),
        ("melody_2bar_small", ["--kit", "roland"], "--kit: has no effect on lines"),
        ("groove_2bar_small", ["--embed-size", "8"], "--embed-size: has no effect on groove vectors"),
        ("drums_2bar_small", ["--no-hold-token"], "--hold-token: has no effect on drums"),
        ("drums_2bar_small", ["--sampling-rate", "9"], "--sampling-rate: has no effect on a decoder that is always shown the truth"),
        ("trio_16bar_small", ["--policy", "lowest"], "--policy: has no effect on trios"),
        ("drums_2bar_small", ["--groove-spread"], "--groove-spread: has no effect on what is not played"),
        ("melody_2bar_small", ["--segment-feedback"], "--segment-feedback: has no effect on a flat decoder"),
        ("melody_2bar_small", ["--level-lengths", "8,8"], "make 64 steps, here there are 32"),
    ],
)
def test_train_options_that_do_not_go_together(preset: str, flags: list[str], said: str, here: Here) -> None:
    assert_one_line(here("train_vae", "--preset", preset, *flags, "--dry-run"), "train_vae", said)


def test_a_prior_of_windows_has_no_conditions(run_of: Any, here: Here) -> None:
    for flag in (["--conditions", "range"], ["--prior-transpose", "3"]):
        result = here("train_diffusion", "--preset", PRESETS["mono"], "--run-dir", str(run_of("mono")), *flag, "--threads", "1")
        assert_one_line(result, "train_diffusion", flag[0])


def test_riff_and_window_models_are_told_apart(
    generate: Callable[..., Result], here: Here, run_of: Any, small_run: Any, tmp_path: Path
) -> None:
    result = here("generate", "--preset", "melody_2bar_small", "--run-dir", str(small_run.folder), "--output-dir", str(tmp_path / "out"))
    assert_one_line(result, "generate", "is a VAE of riffs; give --preset riff_2bar")
    result = here("generate", "--run-dir", str(run_of("mono")), "--output-dir", str(tmp_path / "out"))
    assert_one_line(result, "generate", "of windows of songs", "--preset")


def test_a_preset_of_other_music_is_refused(generate: Callable[..., Result], here: Here, run_of: Any) -> None:
    for preset, kind in (("drums_2bar_small", "mono"), ("groove_2bar_small", "tap")):
        for script in ("generate", "train_diffusion"):
            result = here(script, "--preset", preset, "--run-dir", str(run_of(kind)), "--threads", "1")
            assert_one_line(result, script, f"is not of the music of --preset {preset}; give --preset {PRESETS[kind]}")
    assert_one_line(here("train_diffusion", "--run-dir", str(run_of("mono"))), "train_diffusion", f"give --preset {PRESETS['mono']}")


def test_a_preset_with_flags_on_top_is_its_own(here: Here, band: Path, tmp_path: Path) -> None:
    """Guards against a run that no preset fits: humanizing by --given, on top of the preset that hears everything."""
    flags = ["--preset", "groove_2bar_small", "--run-dir", str(tmp_path / "run")]
    made = [*flags, "--given", "hits", "--data", str(band), "--kit", "general", *TINY, *PACE]
    assert train_vae.main(made) == 0
    assert here("generate", *flags, "--seeds", "1", "--output-dir", str(tmp_path / "out"), "--threads", "1").code == 0


def test_precision_is_what_the_record_says(generate: Callable[..., Result], band: Path, tmp_path: Path) -> None:
    seen = []
    begin = models.Decoder.begin

    def watched(self: Any, z: torch.Tensor, precision: torch.dtype = torch.float32) -> Any:
        seen.append(precision)
        return begin(self, z, precision)

    assert generate("drums", "--seeds", "1").code == 0  # trained before it is watched
    shutil.rmtree(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.Decoder, "begin", watched)
        for words in ([], ["reconstruct", str(band / "song0.mid")]):
            seen.clear()
            assert generate("drums", *words, "--precision", "bfloat16").code == 0
            assert set(seen) == {torch.bfloat16}
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("*.json")]
    assert {record["settings"]["precision"] for record in records} == {"bfloat16"}


def test_seeds_and_how_many_do_not_go_together(generate: Callable[..., Result]) -> None:
    assert_one_line(generate("mono", "--seeds", "3,5", "--num-outputs", "3"), "generate", "--num-outputs 3: has no effect beside --seeds")


def test_evaluate_is_about_riffs(here: Here, run_of: Any) -> None:
    result = here("evaluate", "--preset", PRESETS["mono"], "--run-dir", str(run_of("mono")))
    assert_one_line(result, "evaluate", "evaluate.py judges riffs and pieces")
    assert not (run_of("mono") / "evaluation").exists()
    assert_one_line(here("evaluate", "--run-dir", str(run_of("mono"))), "evaluate", "windows of songs")


@pytest.mark.parametrize("kind", ["mono", "drums", "trio"])
def test_pictures_of_files_of_songs(kind: str, here: Here, tmp_path: Path) -> None:
    """Drawn as a preset reads them, without a run."""
    (tmp_path / "song0.mid").write_bytes(song(0, 16))
    flags = ["--preset", PRESETS[kind], "--run-dir", str(tmp_path / "none"), "--output-dir", str(tmp_path)]
    result = here("visualize_tokens", str(tmp_path / "song0.mid"), *flags)
    assert result.code == 0, result.err
    assert_is_a_picture(tmp_path / "file_song0.png")


@pytest.mark.parametrize("kind", ["mono", "humanize", "trio"])
def test_pictures_of_windows(kind: str, here: Here, run_of: Any, tmp_path: Path) -> None:
    flags = ["--run-dir", str(run_of(kind)), "--output-dir", str(tmp_path), "--num-outputs", "2"]
    assert here("visualize_tokens", *flags).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.png", "samples.png", "curves.png"}
    for path in tmp_path.iterdir():
        assert_is_a_picture(path)


def test_without_its_token_file_it_says_that_copies_are_not_told(
    generate: Callable[..., Result], run_of: Any, tmp_path: Path, here: Here
) -> None:
    run = tmp_path / "moved"
    shutil.copytree(run_of("drums"), run)
    (run / TOKEN_FILE).unlink()
    (run / "tokens.json").unlink()
    content = torch.load(run / VAE_FILE, weights_only=True)
    content["data"]["data"] = "nowhere"
    torch.save(content, run / VAE_FILE)
    result = here("generate", "--preset", PRESETS["drums"], "--run-dir", str(run), "--output-dir", str(tmp_path / "out"), "--seeds", "1")
    assert result.code == 0 and "how much is copied cannot be said" in result.out
