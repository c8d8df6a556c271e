"""generate.py's modes from the command line: files, records, the same bytes, and mistakes that cost one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Here, SmallRun, assert_one_line, bytes_below

from checkpoints import DIFFUSION_KIND, load_vae, read_checkpoint, save_checkpoint
from config import DIFFUSION_FILE, LONG_FILE, VAE_FILE, DataConfig, TokenizerConfig
from dataset import read_file_riffs
from measures.metrics import onset_mask
from midi_utils import pitch_name, riffs_to_midi
from models import MusicVAE
from sampling import reconstruct
from steering.arranging import FREE_FORM
from steering.keys import parse_key

torch.set_num_threads(1)
T = TokenizerConfig()
QUICK = ["--sampling-steps", "5", "--threads", "1", "--device", "cpu"]


@pytest.fixture
def song(small_run: SmallRun) -> Path:
    return sorted(small_run.songs.glob("*.mid"))[0]


def ask(run: SmallRun, out: Path, *words: str) -> list[str]:
    return ["generate", *words, "--run-dir", str(run.folder), "--output-dir", str(out), *QUICK]


def tokens_of(path: Path) -> np.ndarray:
    """The riffs that a MIDI file holds. int64 [riffs, T]"""
    return np.stack([riff.tokens for riff in read_file_riffs(path, DataConfig(max_bars=0, low=1, high=127, max_off_grid=1), T)[0]])


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json")) if not path.stem.endswith("_long")]


# ---------------------------------------------------------------- each mode


def test_vary_writes_variations_with_their_records(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    result = here(*ask(small_run, tmp_path, "vary", str(song), "--strength", "0.5", "--seeds", "3,9", "--rest-penalty", "50"))
    assert (result.code, result.err) == (0, "") and "changed" in result.out
    given = tokens_of(song)[0]
    made = records(tmp_path)
    assert [record["seed"] for record in made] == [3, 9]
    for record in made:
        assert record["mode"] == "vary" and record["steering"]["strength"] == record["options"]["strength"] == 0.5
        assert record["given"][0]["file"] == song.name and record["given"][0]["tokens"] == given.tolist()
        assert record["bpm"] == pytest.approx(90) and record["program"] == 27  # the given riff's
        assert record["file"].startswith(f"{song.stem}_vary_seed") and {"nearest", "vae", "diffusion", "riff"} <= set(record)
        assert tokens_of(tmp_path / record["file"])[0].tolist() == record["riff"]["tokens"]
    long = tokens_of(tmp_path / f"{song.stem}_vary_long.mid")
    assert np.array_equal(long[0], given) and long[1:].tolist() == [record["riff"]["tokens"] for record in made]
    assert (tmp_path / made[0]["file"]).with_suffix(".gp5").exists()


def test_vary_keeps_a_rhythm_or_pitches(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    given = tokens_of(song)[0]
    assert here(*ask(small_run, tmp_path / "r", "vary", str(song), "--keep-rhythm", "--strength", "0.8", "--key", "A minor")).code == 0
    for record in records(tmp_path / "r"):
        riff = np.array(record["riff"]["tokens"])
        assert np.array_equal(onset_mask(riff[None], T), onset_mask(given[None], T)) and record["steering"]["key"] == "A minor"
        assert {int(pitch) % 12 for pitch in riff[(riff > 0) & (riff < 128)]} <= parse_key("A minor").classes
    assert here(*ask(small_run, tmp_path / "p", "vary", str(song), "--keep-pitches", "--strength", "0.8")).code == 0
    for record in records(tmp_path / "p"):
        riff = np.array(record["riff"]["tokens"])
        assert riff[(riff > 0) & (riff < 128)].tolist() == given[(given > 0) & (given < 128)].tolist()


def test_reconstruct_is_what_the_model_hears(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    assert here(*ask(small_run, tmp_path, "reconstruct", str(song))).code == 0
    vae, _ = load_vae(small_run.folder / VAE_FILE)
    assert isinstance(vae, MusicVAE)
    (record,) = records(tmp_path)
    given = torch.from_numpy(tokens_of(song)[:1])
    assert record["riff"]["tokens"] == reconstruct(vae, given)[0].tolist()
    assert_one_line(here(*ask(small_run, tmp_path, "reconstruct", str(song), "-n", "2")), "generate", "the same for every seed")
    assert_one_line(here(*ask(small_run, tmp_path, "reconstruct", str(song), "--density", "9")), "generate", "--density: has no effect")


def test_infill_keeps_steps_and_bars(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    given = tokens_of(song)[0]
    for name, flags, kept in (("s", ["--keep", "1-8,17-32"], [*range(8), *range(16, 32)]), ("b", ["--keep-bars", "2"], [*range(16, 32)])):
        assert here(*ask(small_run, tmp_path / name, "infill", str(song), *flags, "-n", "20")).code == 0
        riffs = np.array([record["riff"]["tokens"] for record in records(tmp_path / name)])
        assert len(riffs) == 20 and (riffs[:, kept] == given[kept]).all() and len(np.unique(riffs, axis=0)) > 1
    for flags, text in (([], "--keep 1-8"), (["--keep", "1-32"], "nothing is left"), (["--keep-bars", "3"], "places from 1 to 2")):
        assert_one_line(here(*ask(small_run, tmp_path, "infill", str(song), *flags)), "generate", text)


def test_continue_and_answer_come_after_the_riff(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    given = tokens_of(song)[0]
    for mode in ("continue", "answer"):
        assert here(*ask(small_run, tmp_path / mode, mode, str(song), "-n", "3")).code == 0
        new = [record["riff"]["tokens"] for record in records(tmp_path / mode)]
        long = tokens_of(tmp_path / mode / f"{song.stem}_{mode}_long.mid").tolist()
        assert long == [riff for one in new for riff in (given.tolist(), one)]


def test_interpolate_writes_the_way(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    other = sorted(small_run.songs.glob("*.mid"))[7]
    for through in ("diffusion", "direct"):
        out = tmp_path / through
        assert here(*ask(small_run, out, "interpolate", str(song), str(other), "--steps", "5", "--through", through)).code == 0
        made = records(out)
        assert [record["step"] for record in made] == [1, 2, 3, 4, 5]
        assert [one["file"] for one in made[0]["given"]] == [
            song.name,
            other.name,
        ]
    assert_one_line(here(*ask(small_run, tmp_path, "interpolate", str(song))), "generate", "two MIDI files")
    flags = ["--through", "direct", "-n", "2"]
    assert_one_line(here(*ask(small_run, tmp_path, "interpolate", str(song), str(other), *flags)), "generate", "the same for every seed")


def test_arrange_writes_a_verse_of_a_riff_or_of_a_new_one(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    given = tokens_of(song)[0]
    flags = ["--form", "ABA", "--bars", "12", "-n", "2"]
    assert here(*ask(small_run, tmp_path / "given", "arrange", str(song), *flags)).code == 0
    for record in records(tmp_path / "given"):
        parts = [np.array(part["tokens"]) for part in record["parts"]]
        assert np.array_equal(parts[0], given) and "".join(part["section"] for part in record["parts"]) == "AABBAA"
        assert np.array_equal(tokens_of(tmp_path / "given" / record["file"]), np.stack(parts)) and max(record["joins"]) <= 12
    assert here(*ask(small_run, tmp_path / "new", "arrange", *flags, "--key", "E minor")).code == 0
    for record in records(tmp_path / "new"):
        for part in record["parts"]:
            riff = np.array(part["tokens"])
            assert {int(pitch) % 12 for pitch in riff[(riff > 0) & (riff < 128)]} <= parse_key("E minor").classes


def test_a_verse_in_another_key_begins_there(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    given = tokens_of(song)[0]
    result = here(*ask(small_run, tmp_path, "arrange", str(song), "--form", "AB", "--bars", "4", "--key", "F# major"))
    assert result.code == 0
    (record,) = records(tmp_path)
    first = np.array(record["parts"][0]["tokens"])
    sounds = (given > 0) & (given < 128)
    (shift,) = set((first - given)[sounds].tolist())
    assert np.array_equal(first[~sounds], given[~sounds])
    assert "is moved to F# major" in result.out and (shift == 0 or f"by {abs(shift)} semitone" in result.out)
    assert record["key"] == "F# major"


def test_kept_notes_outside_what_is_asked_are_named(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    given = tokens_of(song)[0]
    notes = given[:16][(given[:16] > 0) & (given[:16] < 128)]
    middle = pitch_name(int(notes.min()) + 1)
    result = here(*ask(small_run, tmp_path, "infill", str(song), "--keep-bars", "1", "--key", "any", "--low", middle))
    assert result.code == 0 and f"outside what is asked of new notes: {pitch_name(int(notes.min()))}" in result.out


def test_the_long_file_is_a_verse_or_the_riffs_in_a_row(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    flags = ["-n", "3", "--max-copy", "1"]
    assert here(*ask(small_run, tmp_path, *flags, "--form", "AB", "--bars", "8")).code == 0
    record = json.loads((tmp_path / LONG_FILE).with_suffix(".json").read_text())
    riffs = [json.loads(path.read_text())["riff"]["tokens"] for path in sorted((tmp_path / "riffs").glob("*.json"))]
    assert record["form"] == "AB" and record["parts"][0]["tokens"] == riffs[0] and len(record["parts"]) == 4
    assert here(*ask(small_run, tmp_path, *flags, "--form", FREE_FORM)).code == 0
    assert tokens_of(tmp_path / LONG_FILE).tolist() == riffs
    assert_one_line(here(*ask(small_run, tmp_path, *flags, "--bars", "10")), "generate", "--bars 10", "8, 16, 24")


def test_hard_demands_and_asked_attributes_are_recorded(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    flags = ["--key", "D", "--scale", "blues", "--start-note", "D", "--end-note", "A,D", "--low", "D2", "--high", "D4"]
    result = here(*ask(small_run, tmp_path, *flags, "--density", "8", "-n", "40", "--max-copy", "1"))
    assert result.code == 0
    for path in (tmp_path / "riffs").glob("*.json"):
        record = json.loads(path.read_text())
        notes = [token for token in record["riff"]["tokens"] if 0 < token < 128]
        assert notes[0] % 12 == 2 and notes[-1] % 12 in (2, 9) and min(notes) >= 38 and max(notes) <= 62
        assert {note % 12 for note in notes} <= parse_key("D", "blues").classes
        steering = record["steering"]
        assert steering["key"] == "D blues" and steering["asked"] == {"density": 8.0} and record["options"]["low"] == "D2"


def test_picking_keeps_some_of_many(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    result = here(*ask(small_run, tmp_path, "--n", "40", "--pick", "5", "--by", "density", "--max-copy", "1"))
    assert result.code == 0 and "picked 5 of 40 riffs by density" in result.out
    assert len(list((tmp_path / "riffs").glob("*.mid"))) == 5
    assert json.loads((tmp_path / LONG_FILE).with_suffix(".json").read_text())["picked"] == {"of": 40, "by": "density"}
    assert_one_line(here(*ask(small_run, tmp_path, "-n", "4", "--pick", "5")), "generate", "--pick 5")
    assert_one_line(here(*ask(small_run, tmp_path, "--seeds", "1-4", "--pick", "5")), "generate", "--pick 5")


# ---------------------------------------------------------------- the same command, the same bytes


@pytest.mark.parametrize(
    "words",
    [
        ["vary", "SONG", "--keep-rhythm"],
        ["infill", "SONG", "--keep-bars", "1"],
        ["continue", "SONG"],
        ["answer", "SONG"],
        ["arrange", "SONG", "--form", "AB", "--bars", "4"],
    ],
    ids=lambda words: words[0],
)
def test_a_seed_gives_the_same_bytes_in_any_company(words: list[str], small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    words = [str(song) if word == "SONG" else word for word in words]
    assert here(*ask(small_run, tmp_path / "a", *words, "--seeds", "0-3")).code == 0
    assert here(*ask(small_run, tmp_path / "b", *words, "--seeds", "2")).code == 0
    together, alone = bytes_below(tmp_path / "a"), bytes_below(tmp_path / "b")
    assert {name: data for name, data in alone.items() if "_long" not in name}.items() <= together.items()
    assert here(*ask(small_run, tmp_path / "a", *words, "--seeds", "0-3")).code == 0
    assert bytes_below(tmp_path / "a") == together


# ---------------------------------------------------------------- priors that cannot be told, presets without a latent


def test_a_prior_without_conditions_takes_the_best_of_many(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / VAE_FILE).write_bytes((small_run.folder / VAE_FILE).read_bytes())
    content = read_checkpoint(small_run.folder / DIFFUSION_FILE, DIFFUSION_KIND)
    content["model"].pop("conditions")  # as older checkpoints are
    content["weights"] = {
        name: value for name, value in content["weights"].items() if not name.startswith(("denoiser.condition.", "condition_"))
    }
    save_checkpoint(run / DIFFUSION_FILE, content)
    flags = ["--run-dir", str(run), "--output-dir", str(tmp_path / "out"), *QUICK, "-n", "12", "--max-copy", "1"]
    result = here("generate", *flags, "--rests", "0.3")
    assert result.code == 0 and "--rests: this prior cannot be told" in result.out
    rests = {}
    for value in ("0.05", "0.5"):
        assert here("generate", *flags, "--rests", value).code == 0
        rests[value] = np.mean([json.loads(path.read_text())["riff"]["rest_ratio"] for path in (tmp_path / "out" / "riffs").glob("*.json")])
    assert rests["0.05"] < rests["0.5"]


def test_a_language_model_has_no_riff_to_start_from(song: Path, here: Here) -> None:
    assert_one_line(here("generate", "vary", str(song), "--preset", "events_lstm"), "generate", "vary: needs a VAE")
    assert_one_line(here("generate", "--preset", "events_lstm", "--key", "E minor"), "generate", "--key: has no effect on events_lstm")
    for preset in ("events_lstm", "riff_2bar_lstm"):
        assert_one_line(here("generate", "--preset", preset, "--form", "AB"), "generate", f"--form: has no effect on {preset}")
    assert_one_line(here("generate", "--preset", "riff_2bar_lstm", "--form", "free"), "generate", "language_model.pth")


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["remix", "SONG"], "remix: is no mode; give sample, reconstruct, vary"),
        (["SONG"], "is no mode"),
        (["vary"], "vary: give one MIDI file; there are 0"),
        (["vary", "SONG", "SONG"], "vary: give one MIDI file; there are 2"),
        (["vary", "SONG", "--strength", "1.1"], "--strength 1.1"),
        (["vary", "SONG", "--strength", "nan"], "--strength nan"),
        (["vary", "SONG", "--from-bar", "7"], "--from-bar 7"),
        (["vary", "SONG", "--keep-pitches", "--high", "B2"], "without the kept pitches"),
        (["vary", "SONG", "--keep-rhythm", "--onsets", "x..............."], "--onsets: has no effect on vary --keep-rhythm"),
        (["vary", "SONG", "--keep-rhythm", "--density", "14"], "--density: has no effect on vary --keep-rhythm"),
        (["vary", "SONG", "--keep-rhythm", "--keep-pitches"], "they leave nothing to write"),
        (["vary", "FOLDER"], "is a folder"),
        (["vary", "no_such.mid"], "there is no such file"),
        (["answer", "SONG", "--onsets", "x..............."], "--onsets: has no effect on answer"),
        (["--threads", "1", "vary", "SONG"], "the mode comes first"),
        (["--by", "density"], "--by: has no effect on new riffs without --pick"),
        (["--key", "H"], "--key H"),
        (["vary", "SONG", "--key", "Q"], "--key Q"),
        (["answer", "SONG", "--density", "-1"], "--density -1"),
        (["--density", "17"], "--density 17: a bar has 16 steps"),
        (["continue", "SONG", "--guidance-scale", "99"], "--guidance-scale 99"),
        (["arrange", "SONG", "--form", "A-B"], "--form A-B"),
        (["arrange", "SONG", "--start-note", "E"], "--start-note: has no effect"),
        (["interpolate", "SONG", "SONG", "--steps", "1"], "--steps 1"),
        (["interpolate", "SONG", "SONG", "--density", "9"], "--density: has no effect"),
        (["--onsets", "xx"], "--onsets xx"),
        (["--key", "E minor", "--low", "C#3", "--high", "C#3"], "no pitch of the key"),
        (["--attribute", "loudness=1"], "--attribute loudness=1"),
        (["--candidates", "-1"], "--candidates -1"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], text: str, small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    words = [{"SONG": str(song), "FOLDER": str(song.parent)}.get(word, word) for word in words]
    assert_one_line(here(*ask(small_run, tmp_path / "out", *words)), "generate", text)
    assert not (tmp_path / "out").exists()


def test_a_file_of_several_riffs_says_which_is_taken(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    riffs = [read_file_riffs(path, DataConfig(), T)[0][0] for path in sorted(small_run.songs.glob("*.mid"))[:3]]
    long = tmp_path / "three.mid"
    long.write_bytes(riffs_to_midi(riffs, T))
    result = here(*ask(small_run, tmp_path / "a", "reconstruct", str(long)))
    assert result.code == 0 and "holds 3 riffs; the one from bar 1 is taken" in result.out
    assert here(*ask(small_run, tmp_path / "b", "reconstruct", str(long), "--from-bar", "5")).code == 0
    assert records(tmp_path / "b")[0]["given"][0]["tokens"] == riffs[2].tokens.tolist()


def test_a_given_file_is_never_overwritten(small_run: SmallRun, song: Path, tmp_path: Path, here: Here) -> None:
    assert here(*ask(small_run, tmp_path, "vary", str(song), "-n", "1")).code == 0
    (made,) = [path for path in tmp_path.glob("*.mid") if "_long" not in path.name]
    made.write_bytes(song.read_bytes())
    before = bytes_below(tmp_path)
    assert_one_line(here(*ask(small_run, tmp_path, "vary", str(song), "-n", "1")), "generate", made.name, "--output-dir")
    assert bytes_below(tmp_path) == before
