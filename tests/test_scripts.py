"""The scripts as a user runs them: the whole chain, what it leaves behind, and one line for every mistake."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np
import pytest
import torch
from conftest import Here, Result, assert_is_a_picture, assert_one_line, bytes_below, small_songs

import check_midi
import evaluate
import generate
import presets
import train_diffusion
import train_vae
import visualize_tokens
from config import DIFFUSION_FILE, LONG_FILE, VAE_FILE, SampleConfig, TokenizerConfig
from midi_utils import TICKS_PER_BEAT, tokens_to_notes
from presets import Generate

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {module.__name__: module for module in (train_vae, train_diffusion, generate, evaluate, check_midi, visualize_tokens)}
COMMON = ["--preset", "riff_2bar_tiny", "--threads", "1", "--device", "cpu"]
SIZES = ["--embed-size", "12", "--encoder-size", "10", "--decoder-size", "14", "--z-size", "6", "--batch-size", "8", "--steps", "25"]
DENOISER = ["--hidden-size", "16", "--blocks", "1", "--num-timesteps", "20", "--batch-size", "16", "--steps", "25"]
FEW = ["--sampling-steps", "5"]
WARMER = ["--temperature", str(SampleConfig().temperature + 0.5)]  # other music than by default
RIFF_TICKS = 2 * 4 * TICKS_PER_BEAT
PICTURES = ("data", "samples", "latent", "curves")


def in_a_process(script: str, *flags: str) -> Result:
    """Run a script in a process of its own."""
    done = subprocess.run([sys.executable, f"{script}.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=100)
    return Result(done.returncode, done.stdout, done.stderr)


class Chain(NamedTuple):
    songs: Path
    run: Path
    results: dict[str, Result]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The scripts of the chain in order on 12 small riffs, each in its own process."""
    folder = tmp_path_factory.mktemp("chain")
    songs, run = small_songs(folder / "songs"), folder / "run"
    where = ["--run-dir", str(run)]
    commands = {
        "train_vae": [*COMMON, *where, *SIZES, "--data", str(songs)],
        "train_diffusion": [*COMMON, *where, *DENOISER],
        "generate": [*COMMON, *where, *FEW, "--num-outputs", "4"],
        "check_midi": ["--preset", "riff_2bar_tiny", *where],
        "visualize_tokens": ["--preset", "riff_2bar_tiny", *where, *FEW, "--num-outputs", "3"],
    }
    return Chain(songs, run, {script: in_a_process(script, *flags) for script, flags in commands.items()})


@pytest.fixture
def run(chain: Chain, tmp_path: Path) -> Path:
    """A copy of the models of the chain, to spoil."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (VAE_FILE, DIFFUSION_FILE):
        shutil.copy(chain.run / name, folder / name)
    return folder


def make(run: Path, *flags: str) -> list[str]:
    return [*COMMON, "--run-dir", str(run), *FEW, "--form", "free", *flags]


# ---------------------------------------------------------------- the chain


def test_every_script_of_the_chain_ends_well(chain: Chain) -> None:
    """check_midi may say (1) that riffs of a model of 25 steps are not fit for training; the others have to end with 0."""
    for script, result in chain.results.items():
        assert result.code in ((0, 1) if script == "check_midi" else (0,)), result
        assert "Traceback" not in result.err and "Warning" not in result.err, result.err
        assert script == "check_midi" or result.err == ""
        assert result.out


def test_the_chain_leaves_the_files_it_promises(chain: Chain) -> None:
    names = set(bytes_below(chain.run))
    expected = {VAE_FILE, train_vae.LAST_FILE, train_vae.LOG_FILE, "data_table.csv"}
    expected |= {DIFFUSION_FILE, train_diffusion.LAST_FILE, train_diffusion.LOG_FILE}
    expected |= {str(Path(LONG_FILE).with_suffix(ending)) for ending in (".mid", ".json", ".txt", ".gp5")} | {
        f"pictures/{name}.png" for name in PICTURES
    }
    parts = {name for name in names if name.startswith("riffs/")}
    assert names - parts == expected
    assert sorted(Path(name).suffix for name in parts) == [".gp5"] * 4 + [".json"] * 4 + [".mid"] * 4 + [".txt"] * 4


def test_the_data_table_has_a_line_for_each_file(chain: Chain) -> None:
    with (chain.run / "data_table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == sorted(path.name for path in chain.songs.iterdir())
    assert [row["status"] for row in table].count("held out") == 3


def test_check_midi_measures_the_long_file(chain: Chain, here: Here) -> None:
    """check_midi agrees with generate about what was made; and the riffs of the training folder are all accepted."""
    result = here("check_midi", str(chain.run / LONG_FILE), "--json")
    (facts,) = json.loads(result.out)["files"]
    parts = json.loads((chain.run / LONG_FILE).with_suffix(".json").read_text())["parts"]
    assert facts["bars"] == 16 and "".join(part["section"] for part in parts) == "AAAABBAA"
    assert facts["notes"] == sum(len(tokens_to_notes(np.array(part["tokens"]), TokenizerConfig())[2]) for part in parts)
    assert here("check_midi", str(chain.songs)).code == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers(script: str, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = here(script, "--help")
    assert result.code == 0
    assert "--run-dir" in result.out and (SCRIPTS[script].__doc__ or "") != ""


@pytest.mark.parametrize("script", ["train_vae", "train_diffusion", "generate", "evaluate"])
def test_dry_run_prints_the_options_and_writes_nothing(script: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = here(script, "--preset", "riff_2bar_tiny", "--seed", "17", "--dry-run")
    assert result.code == 0
    assert "seed: 17" in result.out and "preset: riff_2bar_tiny" in result.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("library", ["presets", "models", "language_model"])
def test_libraries_show_themselves(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / f"{library}.py"), run_name="__main__")
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    shows = {"presets": True, "models": False, "language_model": True}[library]
    assert shown == [preset for preset in presets.PRESETS if library == "presets" or presets.is_language_model(preset) == shows]


# ---------------------------------------------------------------- what generate.py makes


def notes_of(path: Path) -> list[tuple[int, int]]:
    """(tick, pitch) of every note that starts."""
    found = []
    for track in mido.MidiFile(path).tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                found.append((now, message.note))
    return sorted(found)


def markers_of(path: Path) -> list[tuple[int, str]]:
    found = []
    for track in mido.MidiFile(path).tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "marker":
                found.append((now, message.text))
    return found


def ticks_of(path: Path) -> set[int]:
    return {sum(message.time for message in track) for track in mido.MidiFile(path).tracks}


def test_the_same_seed_gives_the_same_bytes_in_any_company(run: Path, tmp_path: Path, here: Here) -> None:
    """Guards against a riff that depends on how many are made, on their order, or on what lies in the folder."""
    made = {}
    for name, flags in {
        "sixteen": ["--num-outputs", "16"],
        "order": ["--seeds", "7,3,70-80,5"],
        "alone": ["--num-outputs", "1", "--seed", "5"],
        "again": ["--seeds", "5"],
    }.items():
        assert here("generate", *make(run, "--output-dir", str(tmp_path / name), *flags)).code == 0
        made[name] = bytes_below(tmp_path / name / "riffs")
    assert len(made["sixteen"]) == 64 and len(made["order"]) == 56 and len(made["alone"]) == 4
    for suffix in (".mid", ".json", ".txt", ".gp5"):
        (name,) = [name for name in made["alone"] if name.endswith(suffix)]
        assert "seed000005" in name
        assert made["alone"][name] == made["again"][name] == made["sixteen"][name] == made["order"][name]
    common = set(made["order"]) & set(made["sixteen"])
    assert len(common) == 12
    assert all(made["order"][name] == made["sixteen"][name] for name in common)
    assert bytes_below(tmp_path / "alone") == bytes_below(tmp_path / "again")
    midi = [data for name, data in made["sixteen"].items() if name.endswith(".mid")]
    assert len(set(midi)) == 16


def test_the_long_file_is_its_parts_in_a_row(run: Path, tmp_path: Path, here: Here) -> None:
    """Guards against a long file that is short by a last rest, markers that drift, and riffs in another order than asked for."""
    seeds = [9, 2, 30]
    flags = ["--output-dir", str(tmp_path / "out"), "--form", "free", "--seeds", "9,2,30", "--bpm", "123"]
    assert here("generate", *make(run, *flags)).code == 0
    path = tmp_path / "out" / LONG_FILE
    assert ticks_of(path) == {3 * RIFF_TICKS}
    assert markers_of(path) == [(i * RIFF_TICKS, f"seed {seed}") for i, seed in enumerate(seeds)]
    expected = []
    for i, part in enumerate(json.loads(path.with_suffix(".json").read_text())["riffs"]):
        assert part["seed"] == seeds[i]
        file = tmp_path / "out" / part["file"]
        assert "123bpm" in file.name
        assert ticks_of(file) == {RIFF_TICKS}
        assert markers_of(file) == [(0, f"seed {seeds[i]}")]
        expected += [(tick + i * RIFF_TICKS, pitch) for tick, pitch in notes_of(file)]
    assert notes_of(path) == sorted(expected)
    assert len(expected) > 0
    tempos = [message.tempo for track in mido.MidiFile(path).tracks for message in track if message.type == "set_tempo"]
    assert tempos == [round(60e6 / 123)]


def test_the_json_says_how_a_file_was_made(run: Path, tmp_path: Path, here: Here) -> None:
    """Guards against a record that is not of this file, or not enough to make it again."""
    out = tmp_path / "out"
    flags = ["--seeds", "4-5", "--temperature", "0.9", "--top-k", "20", "--rest-penalty", "0.5", "--program", "29"]
    assert here("generate", *make(run, "--output-dir", str(out), *flags)).code == 0
    settings = dataclasses.asdict(SampleConfig(sampling_steps=5, temperature=0.9, top_k=20, rest_penalty=0.5))
    for path in [out / LONG_FILE, *(out / "riffs").glob("*.mid")]:
        record = json.loads(path.with_suffix(".json").read_text())
        assert record["file"] == path.name
        assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert record["settings"] == {**settings, "max_copy": Generate().max_copy}
        assert record["program"] == 29 and 90 <= record["bpm"] <= 93  # the training riffs' median tempo
        assert record["tokenizer"] == dataclasses.asdict(TokenizerConfig())
        assert len(record["vae"]) == len(record["diffusion"]) == 16
    for seed in (4, 5):
        (path,) = (out / "riffs").glob(f"*seed{seed:06d}*.json")
        record = json.loads(path.read_text())
        assert record["seed"] == seed
        start, _, pitch = tokens_to_notes(np.array(record["riff"]["tokens"]), TokenizerConfig())
        step = TICKS_PER_BEAT // 4
        assert notes_of(path.with_suffix(".mid")) == [(s * step, p) for s, p in zip(start.tolist(), pitch.tolist(), strict=True)]
        assert record["riff"]["notes"] == len(pitch) and record["riff"]["notes_per_bar"] == len(pitch) / 2
        assert record["riff"]["rest_ratio"] == np.mean(np.array(record["riff"]["tokens"]) == 0)


def test_settings_reach_the_music(run: Path, tmp_path: Path, here: Here) -> None:
    """Guards against options that are recorded and not used."""
    rests = {}
    for penalty in ("-8", "0", "50"):
        out = tmp_path / penalty
        assert (
            here("generate", *make(run, "--output-dir", str(out), "--num-outputs", "8", "--form", "free", f"--rest-penalty={penalty}")).code
            == 0
        )
        rests[penalty] = np.mean([json.loads(path.read_text())["riff"]["rest_ratio"] for path in (out / "riffs").glob("*.json")])
    assert rests["50"] == 0 < rests["0"] < rests["-8"]


def test_the_normal_prior_needs_no_diffusion_model(run: Path, tmp_path: Path, here: Here) -> None:
    (run / DIFFUSION_FILE).unlink()
    assert_one_line(here("generate", *make(run)), "generate", DIFFUSION_FILE, "train_diffusion.py")
    assert set(bytes_below(run)) == {VAE_FILE}
    assert here("generate", *make(run, "--prior", "normal", "--num-outputs", "2")).code == 0
    record = json.loads((run / LONG_FILE).with_suffix(".json").read_text())
    assert record["diffusion"] is None and record["settings"]["prior"] == "normal"


@pytest.mark.parametrize("which", ["long", "part"])
def test_a_file_that_a_user_edited_is_not_overwritten(which: str, run: Path, tmp_path: Path, here: Here) -> None:
    """Guards against the loss of an evening's work in a DAW; our own untouched files may be replaced."""
    out = tmp_path / "out"
    command = make(run, "--output-dir", str(out), "--num-outputs", "3")
    assert here("generate", *command).code == 0
    first = bytes_below(out)
    assert here("generate", *command).code == 0
    assert bytes_below(out) == first
    edited = out / LONG_FILE if which == "long" else sorted((out / "riffs").glob("*.mid"))[1]
    edited.write_bytes(edited.read_bytes() + b"\0")
    before = bytes_below(out)
    assert_one_line(here("generate", *command, *WARMER), "generate", str(edited), "--output-dir")
    assert bytes_below(out) == before
    edited.write_bytes(first[edited.relative_to(out).as_posix()])
    assert here("generate", *command, *WARMER).code == 0
    assert bytes_below(out) != first


def test_a_file_that_was_there_before_is_not_overwritten(run: Path, here: Here) -> None:
    (run / LONG_FILE).write_bytes(b"mine")
    before = bytes_below(run)
    assert_one_line(here("generate", *make(run)), "generate", LONG_FILE)
    record = (run / LONG_FILE).with_suffix(".json")
    record.write_text("[1, 2")
    assert_one_line(here("generate", *make(run)), "generate", record.name)
    assert (run / LONG_FILE).read_bytes() == before[LONG_FILE]
    (run / LONG_FILE).unlink()  # a JSON of somebody's own, with no MIDI file beside it
    assert_one_line(here("generate", *make(run)), "generate", record.name)
    assert record.read_text() == "[1, 2"
    assert not (run / "riffs").exists()


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_disk_that_fills_up_leaves_pairs(nth: int, run: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a JSON that describes music which was never written, and locks its owner out."""
    assert here("generate", *make(run, "--num-outputs", "2")).code == 0
    write, calls = Path.write_bytes, iter(range(1, 100))

    def full_disk(path: Path, data: bytes) -> int:
        if next(calls) == nth:
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        assert_one_line(here("generate", *make(run, "--num-outputs", "2", *WARMER)), "generate", "No space")
    assert not list(run.rglob("*.tmp"))
    assert here("generate", *make(run, "--num-outputs", "2", *WARMER)).code == 0


def test_a_full_disk_costs_one_line_and_no_file(run: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here("generate", *make(run, "--num-outputs", "2")).code == 0
    before = bytes_below(run)

    def full_disk(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        assert_one_line(here("generate", *make(run, "--num-outputs", "2", *WARMER)), "generate", "No space left")
    assert bytes_below(run) == before


# ---------------------------------------------------------------- mistakes

GENERATE_MISTAKES: list[tuple[Sequence[str], str]] = [
    (["--temperature", "-1"], "--temperature -1"),
    (["--temperature", "nan"], "--temperature"),
    (["--seeds", "5-2"], "--seeds 5-2"),
    (["--seeds", "1,1"], "--seeds 1,1"),
    (["--sampling-steps", "21"], "--sampling-steps 21: this model has 20 timesteps"),
    (["--top-p", "0"], "--top-p"),
    (["--num-outputs", "0"], "--num-outputs 0"),
    (["--bpm", "5"], "--bpm 5"),
    (["--preset", "nope"], "--preset nope"),
    (["--device", "cuda"] if not torch.cuda.is_available() else ["--device", "abacus"], "--device"),
]


@pytest.mark.parametrize(("flags", "text"), GENERATE_MISTAKES, ids=[" ".join(flags) for flags, _ in GENERATE_MISTAKES])
def test_a_bad_option_of_generate_is_one_line(flags: Sequence[str], text: str, run: Path, here: Here) -> None:
    before = bytes_below(run)
    assert_one_line(here("generate", *make(run, *flags)), "generate", text)
    assert bytes_below(run) == before


@pytest.mark.parametrize("script", ["train_diffusion", "generate", "evaluate", "visualize_tokens", "check_midi"])
def test_a_missing_run_is_one_line_that_says_what_to_run_first(script: str, tmp_path: Path, here: Here) -> None:
    flags = ["--preset", "riff_2bar_tiny", "--run-dir", str(tmp_path / "none")]
    flags += {"visualize_tokens": ["samples"], "check_midi": []}.get(script, ["--threads", "1"])
    assert_one_line(here(script, *flags), script, str(tmp_path / "none"), "generate.py" if script == "check_midi" else "train_vae.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["train_diffusion", "generate", "evaluate", "visualize_tokens"])
@pytest.mark.parametrize("damage", ["kind", "truncated", "empty", "bare"])
def test_a_bad_checkpoint_is_one_line(script: str, damage: str, run: Path, here: Here) -> None:
    """Guards against a traceback out of torch.load, and a run that starts over what it could not read."""
    path = run / VAE_FILE
    data = path.read_bytes()
    if damage == "kind":
        shutil.copy(run / DIFFUSION_FILE, path)
    elif damage == "bare":
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(data[: len(data) // 2 if damage == "truncated" else 0])
    before = bytes_below(run)
    threads = [] if script == "visualize_tokens" else ["--threads", "1"]
    result = here(script, "--preset", "riff_2bar_tiny", "--run-dir", str(run), *threads)
    assert_one_line(result, script, VAE_FILE)
    assert bytes_below(run) == before


def test_a_truncated_checkpoint_in_a_real_process(run: Path) -> None:
    """The same once from the shell: exit 2 and one line, nothing from Python itself."""
    path = run / DIFFUSION_FILE
    path.write_bytes(path.read_bytes()[:5000])
    before = bytes_below(run)
    assert_one_line(in_a_process("generate", *make(run)), "generate", DIFFUSION_FILE)
    assert bytes_below(run) == before


def test_a_diffusion_model_of_another_vae_is_one_line(chain: Chain, run: Path, tmp_path: Path, here: Here) -> None:
    other = [*COMMON, "--run-dir", str(tmp_path / "other"), *SIZES, "--data", str(chain.songs), "--seed", "9", "--steps", "1"]
    assert here("train_vae", *other).code == 0
    shutil.copy(tmp_path / "other" / VAE_FILE, run / VAE_FILE)
    before = bytes_below(run)
    assert_one_line(here("generate", *make(run)), "generate", "another VAE", "train_diffusion.py")
    assert bytes_below(run) == before


@pytest.mark.parametrize("what", ["missing", "empty", "unusable", "a file"])
def test_a_data_folder_that_gives_nothing_is_one_line(what: str, tmp_path: Path, here: Here) -> None:
    """Guards against an empty run folder, or worse a model of nothing."""
    data = tmp_path / "riffs"
    if what == "a file":
        data.write_bytes(b"MThd")
    elif what != "missing":
        data.mkdir()
        if what == "unusable":
            (data / "noise.mid").write_bytes(b"no MIDI at all")
    result = here("train_vae", *COMMON, "--data", str(data), "--run-dir", str(tmp_path / "run"))
    assert_one_line(result, "train_vae", str(data))
    assert not (tmp_path / "run").exists()


def test_riffs_that_changed_after_training_are_one_line(chain: Chain, run: Path, tmp_path: Path, here: Here) -> None:
    """The diffusion is trained on what the VAE was trained on, or not at all."""
    fewer = small_songs(tmp_path / "songs", songs=3)
    before = bytes_below(run)
    result = here("train_diffusion", *COMMON, *DENOISER, "--run-dir", str(run), "--data", str(fewer))
    assert_one_line(result, "train_diffusion", str(fewer), "train_vae.py")
    shutil.rmtree(fewer)
    assert_one_line(here("train_diffusion", *COMMON, "--run-dir", str(run), "--data", str(fewer)), "train_diffusion", str(fewer))
    assert bytes_below(run) == before


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_not_blank(name: str, chain: Chain) -> None:
    assert_is_a_picture(chain.run / "pictures" / f"{name}.png")


def test_any_midi_file_can_be_drawn_also_without_a_run(chain: Chain, tmp_path: Path, here: Here) -> None:
    files = [str(chain.songs / "song0_a.mid"), str(chain.songs / "song1_b.mid")]
    flags = ["--preset", "riff_2bar_tiny", "--run-dir", str(tmp_path / "none"), "--output-dir", str(tmp_path / "out")]
    assert here("visualize_tokens", *flags, *files).code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file_song0_a.png"]
    assert_is_a_picture(tmp_path / "out" / "file_song0_a.png")
    assert not (tmp_path / "none").exists()
    long = tmp_path / "long"
    assert here("visualize_tokens", *flags[:-1], str(long), str(chain.run / LONG_FILE)).code == 0
    assert here("visualize_tokens", *flags[:-1], str(tmp_path / "tab"), *files, "--tab", "--tuning", "DADGBE").code == 0
    assert_is_a_picture(tmp_path / "tab" / "file_song0_a.png")
    assert (tmp_path / "tab" / "file_song0_a.png").read_bytes() != (tmp_path / "out" / "file_song0_a.png").read_bytes()
    assert_is_a_picture(long / f"file_{Path(LONG_FILE).stem}.png")


def test_a_picture_of_the_same_is_the_same(chain: Chain, tmp_path: Path, here: Here) -> None:
    """Guards against a clock or a version in the file, which would change it in every commit."""
    flags = ["--preset", "riff_2bar_tiny", "--run-dir", str(chain.run), *FEW, "--num-outputs", "3"]
    assert here("visualize_tokens", *flags, "--output-dir", str(tmp_path), "samples").code == 0
    assert (tmp_path / "samples.png").read_bytes() == (chain.run / "pictures" / "samples.png").read_bytes()


def test_a_picture_that_was_there_before_is_not_overwritten(chain: Chain, tmp_path: Path, here: Here) -> None:
    """Guards against the loss of somebody's picture of the same name; our own may be drawn again."""
    flags = ["--preset", "riff_2bar_tiny", "--run-dir", str(chain.run), "--output-dir", str(tmp_path), "curves"]
    (tmp_path / "curves.png").write_bytes(b"\x89PNG, a photo")
    assert_one_line(here("visualize_tokens", *flags), "visualize_tokens", str(tmp_path / "curves.png"), "--output-dir")
    assert bytes_below(tmp_path) == {"curves.png": b"\x89PNG, a photo"}
    (tmp_path / "curves.png").unlink()
    for _ in range(2):
        result = here("visualize_tokens", *flags)
        assert (result.code, result.out, result.err) == (0, f"{tmp_path / 'curves.png'}\n", "")
    assert_is_a_picture(tmp_path / "curves.png")


def test_pictures_of_a_run_without_diffusion_or_held_out_riffs(tmp_path: Path, here: Here) -> None:
    """Guards against pictures that need everything at once: one song, nothing held out, no diffusion yet."""
    songs = small_songs(tmp_path / "songs", songs=1, phrases=5)
    run = tmp_path / "run"
    assert here("train_vae", *COMMON, *SIZES, "--data", str(songs), "--run-dir", str(run), "--steps", "2").code == 0
    result = here("visualize_tokens", "--preset", "riff_2bar_tiny", "--run-dir", str(run), "--num-outputs", "2")
    assert result.code == 0, result
    for name in PICTURES:
        assert_is_a_picture(run / "pictures" / f"{name}.png")


VISUALIZE_MISTAKES = [
    (["no_such.mid"], "no_such.mid"),
    (["smaples"], "smaples"),
    (["data", "--num-outputs", "0"], "--num-outputs 0"),
    (["--preset", "nope"], "--preset nope"),
    (["samples", "--temperature", "-1"], "--temperature -1"),
]


@pytest.mark.parametrize(("flags", "text"), VISUALIZE_MISTAKES, ids=[" ".join(flags) for flags, _ in VISUALIZE_MISTAKES])
def test_a_bad_option_of_visualize_is_one_line(flags: list[str], text: str, run: Path, here: Here) -> None:
    before = bytes_below(run)
    assert_one_line(here("visualize_tokens", "--run-dir", str(run), *flags), "visualize_tokens", text)
    assert bytes_below(run) == before


def test_a_file_that_is_no_music_is_one_line(tmp_path: Path, run: Path, here: Here) -> None:
    (tmp_path / "noise.mid").write_bytes(b"no MIDI at all")
    before = bytes_below(run)
    result = here("visualize_tokens", "--run-dir", str(run), str(tmp_path / "noise.mid"))
    assert_one_line(result, "visualize_tokens", "noise.mid", "check_midi.py")
    assert bytes_below(run) == before


# ---------------------------------------------------------------- experiments


def test_the_experiments_run(chain: Chain) -> None:
    """Guards against tables in the README that nobody can make again."""
    flags = {
        "rest_penalty": ["--run-dir", str(chain.run), "--samples", "8", "--steps", "3"],
        "round_trip": [str(chain.songs)],
    }
    said = {"rest_penalty": "| one shot, argmax |", "round_trip": "12 windows identical"}
    for name, arguments in flags.items():
        command = [sys.executable, "-m", f"experiments.{name}", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert said[name] in done.stdout, done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == 0
