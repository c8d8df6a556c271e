"""generate.py and what its riffs copy: it says so, draws again, and gives up in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Here, SmallRun, assert_one_line, bytes_below

import sampling
from checkpoints import VAE_KIND, known_riffs, load_vae, read_checkpoint, save_checkpoint
from config import DIFFUSION_FILE, LONG_FILE, VAE_FILE, DataConfig, TokenizerConfig
from dataset import load_riffs
from measures.novelty import TrainingRiffs
from presets import Generate

torch.set_num_threads(1)

SEEDS = "0-23"


def flags(run: SmallRun | Path, out: Path, *more: str) -> list[str]:
    folder = run if isinstance(run, Path) else run.folder
    return [
        "--run-dir",
        str(folder),
        "--sampling-steps",
        "5",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--form",
        "free",
        "--output-dir",
        str(out),
        *more,
    ]


def records(out: Path) -> dict[int, dict[str, Any]]:
    """The JSON of each riff, by seed."""
    found = [json.loads(path.read_text()) for path in sorted((out / "riffs").glob("*.json"))]
    return {record["seed"]: record for record in found}


@pytest.fixture
def free(small_run: SmallRun, tmp_path: Path, here: Here) -> dict[int, dict[str, Any]]:
    """Riffs of which anything may be copied."""
    result = here("generate", *flags(small_run, tmp_path / "free", "--seeds", SEEDS, "--max-copy", "1"))
    assert (result.code, result.err) == (0, "") and "drawn again" not in result.out
    return records(tmp_path / "free")


def middle(free: dict[int, dict[str, Any]]) -> float:
    """A limit that about half of the riffs exceed."""
    return float(np.median([record["nearest"]["copied"] for record in free.values()]))


def test_each_json_names_the_nearest_training_riff(free: dict[int, dict[str, Any]], small_run: SmallRun) -> None:
    """The numbers are those of the riffs in the folder, the held-out ones left out."""
    vae, content = load_vae(small_run.folder / VAE_FILE)
    riff_data = load_riffs(DataConfig(data=str(small_run.songs), holdout=content["data"]["holdout"]), vae.tokenizer)
    known = TrainingRiffs(riff_data.train_tokens, riff_data.train_names, vae.tokenizer)
    tokens = np.array([record["riff"]["tokens"] for record in free.values()])
    nearest = known.nearest(tokens)
    assert [record["nearest"] for record in free.values()] == [known.describe(nearest, i) for i in range(len(tokens))]
    assert {record["attempt"] for record in free.values()} == {0}
    for record in free.values():
        file = re.fullmatch(r"(song\d_\w\.mid) bar 1", record["nearest"]["riff"])
        assert file and (small_run.songs / file[1]).exists()
        assert record["settings"]["max_copy"] == 1
    assert len({record["nearest"]["copied"] for record in free.values()}) > 3


def test_the_base_models_riffs_stand_apart_from_the_runs_own(
    free: dict[int, dict[str, Any]], small_run: SmallRun, tmp_path: Path, here: Here
) -> None:
    """Guards against a nearest riff that the user cannot find in the folder, and against copies of the base model's that go unseen."""
    assert {record["nearest_in_base_model"] for record in free.values()} == {None}
    content = read_checkpoint(small_run.folder / VAE_FILE, VAE_KIND)
    own = content["known"]
    heard = [seed for seed in free if seed % 2]  # of these seeds' riffs we say that the base model was trained on them
    theirs = known_riffs(np.array([free[seed]["riff"]["tokens"] for seed in heard]), [f"theirs {seed}" for seed in heard])
    save_checkpoint(tmp_path / "tuned" / VAE_FILE, {**content, "known": known_riffs(own["tokens"].numpy(), own["names"], theirs)})
    shutil.copy(small_run.folder / DIFFUSION_FILE, tmp_path / "tuned" / DIFFUSION_FILE)

    result = here("generate", *flags(tmp_path / "tuned", tmp_path / "all", "--seeds", SEEDS, "--max-copy", "1"))
    assert (result.code, result.err) == (0, "")
    head, *lines = result.out.splitlines()
    for (seed, record), line in zip(records(tmp_path / "all").items(), lines[:20], strict=False):
        assert record["riff"] == free[seed]["riff"] and record["nearest"] == free[seed]["nearest"]
        base = record["nearest_in_base_model"]
        assert base["riff"].startswith("theirs ") and (base["copied"] == 1 and base["copy"]) == (seed in heard)
        closer = record["nearest"] if record["nearest"]["copied"] >= base["copied"] else {**base, "riff": "(the base model's)"}
        assert line[head.index("nearest riff") :] == closer["riff"]
        assert line.split()[0] == str(seed) and line.split()[5] == f"{closer['copied']:.0%}"
    assert "(the base model's)" in result.out and ".mid bar 1" in result.out

    result = here("generate", *flags(tmp_path / "tuned", tmp_path / "new", "--seeds", SEEDS, "--max-copy", "0.999"))
    assert result.code == 0
    again = [seed for seed, record in records(tmp_path / "new").items() if record["attempt"]]
    made = records(tmp_path / "all").items()
    assert again == [seed for seed, record in made if record["nearest_in_base_model"]["copied"] == 1] and set(heard) <= set(again) < set(
        free
    )


def test_riffs_of_earlier_calls_are_mentioned(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    """Guards against a folder of several sets that is judged, or sent to a friend, as one."""
    for seeds, more, others in (("1-3", [], ""), ("1-3", [], ""), ("3-4", [], "2 riffs"), ("1-4", ["--bpm", "99"], "4 riffs")):
        result = here("generate", *flags(small_run, tmp_path, "--seeds", seeds, "--max-copy", "1", *more))
        assert result.code == 0
        said = f"{tmp_path / 'riffs'}: {others} of earlier calls lie there too; --output-dir keeps sets apart"
        assert (said in result.out) == ("earlier calls" in result.out) == bool(others)


def test_a_refusal_says_how_little_could_be_had(
    free: dict[int, dict[str, Any]], small_run: SmallRun, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against guessing at --max-copy: the least that any seed reached is named."""
    monkeypatch.setattr(sampling, "MAX_ATTEMPTS", 1)
    copied = {seed: record["nearest"]["copied"] for seed, record in free.items() if record["nearest"]["copied"] > 0}
    seeds = ",".join(map(str, copied))
    result = here("generate", *flags(small_run, tmp_path / "out", "--seeds", seeds, "--max-copy", "0"))
    said = "--max-copy 0: no seed gave a riff that copies so little, in "
    assert_one_line(result, "generate", said, f"({min(copied.values()):.0%} at least in the last)")
    assert not (tmp_path / "out").exists()


def test_what_copies_too_much_is_drawn_again(free: dict[int, dict[str, Any]], small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    """Guards against a limit that is written down and not kept, and against new riffs where the old ones would do."""
    limit = middle(free)
    result = here("generate", *flags(small_run, tmp_path / "new", "--seeds", SEEDS, "--max-copy", repr(limit)))
    assert (result.code, result.err) == (0, "")
    made = records(tmp_path / "new")
    again = [seed for seed, record in made.items() if record["attempt"] > 0]
    assert again == [seed for seed, record in free.items() if record["nearest"]["copied"] > limit + 1e-6] and 4 <= len(again) <= 20
    assert f"(--max-copy {limit:g}): {len(again)} of 24" in result.out
    for seed, record in made.items():
        assert record["nearest"]["copied"] <= limit + 1e-4 and record["attempt"] < sampling.MAX_ATTEMPTS
        assert (record["riff"] == free[seed]["riff"]) == (seed not in again)
        assert record["settings"]["max_copy"] == limit


def test_a_seed_that_is_drawn_again_gives_the_same_bytes_in_any_company(
    free: dict[int, dict[str, Any]], small_run: SmallRun, tmp_path: Path, here: Here
) -> None:
    """Guards against attempts that depend on who else had to be drawn again."""
    limit = ["--max-copy", repr(middle(free))]
    assert here("generate", *flags(small_run, tmp_path / "all", "--seeds", SEEDS, *limit)).code == 0
    seed = max(records(tmp_path / "all").items(), key=lambda item: item[1]["attempt"])[0]
    assert records(tmp_path / "all")[seed]["attempt"] > 0
    for name, others in (("alone", ""), ("crowd", ",100-110,7000")):
        assert here("generate", *flags(small_run, tmp_path / name, "--seeds", f"{seed}{others}", *limit)).code == 0
        ours = {path: data for path, data in bytes_below(tmp_path / name / "riffs").items() if f"seed{seed:06d}" in path}
        assert len(ours) == 4 and ours.items() <= bytes_below(tmp_path / "all" / "riffs").items()


def test_seeds_without_an_original_riff_are_named_and_left_out(
    free: dict[int, dict[str, Any]], small_run: SmallRun, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1: something asked for was refused. The others are there, in the long file too."""
    limit = middle(free)
    monkeypatch.setattr(sampling, "MAX_ATTEMPTS", 1)
    result = here("generate", *flags(small_run, tmp_path / "out", "--seeds", SEEDS, "--max-copy", repr(limit)))
    refused = [seed for seed, record in free.items() if record["nearest"]["copied"] > limit + 1e-6]
    assert result.code == 1 and result.err.count("\n") == 1
    assert result.err.startswith("generate.py: no riff for seed " + ", ".join(map(str, refused[:8])))
    kept = [seed for seed in free if seed not in refused]
    made = records(tmp_path / "out")
    assert list(made) == kept and all(made[seed]["riff"] == free[seed]["riff"] for seed in kept)
    long = json.loads((tmp_path / "out" / LONG_FILE).with_suffix(".json").read_text())
    assert [part["seed"] for part in long["riffs"]] == kept
    assert len(bytes_below(tmp_path / "out")) == 4 * len(kept) + 4


# ---------------------------------------------------------------- a model that knows one riff by heart


@pytest.fixture(params=[0, 3], ids=["exact", "transposed"])
def parrot(request: pytest.FixtureRequest, small_run: SmallRun, tmp_path: Path) -> Path:
    """A run whose decoder says the same note on every step, whatever z is; its training riff is the same, or a third away."""
    content = read_checkpoint(small_run.folder / VAE_FILE, VAE_KIND)
    for name, value in content["weights"].items():
        if name.startswith("decoder.output"):
            value.zero_()
    content["weights"]["decoder.output_bias"][50] = 100.0
    content["known"] = known_riffs(np.full((1, TokenizerConfig().steps), 50 + request.param), ["by heart bar 1"])
    save_checkpoint(tmp_path / "parrot" / VAE_FILE, content)
    return tmp_path / "parrot"


def test_a_model_that_repeats_its_riff_is_refused_unless_copies_are_allowed(parrot: Path, tmp_path: Path, here: Here) -> None:
    """Guards against a copy in another key that is handed out as new."""
    ask = flags(parrot, tmp_path / "out", "--prior", "normal", "--num-outputs", "3")
    assert Generate().max_copy < 1
    assert_one_line(here("generate", *ask), "generate", f"--max-copy {Generate().max_copy:g}", f"{sampling.MAX_ATTEMPTS} attempts")
    assert not (tmp_path / "out").exists()
    result = here("generate", *ask, "--max-copy", "1")
    assert (result.code, result.err) == (0, "") and "3 exact or transposed copies" in result.out
    for record in records(tmp_path / "out").values():
        assert record["attempt"] == 0
        assert record["nearest"] == {"riff": "by heart bar 1", "distance": 0.0, "copied": 1.0, "shared_run": 32, "copy": True}
        assert record["nearest_in_base_model"] is None


def test_a_model_that_only_copies_is_found_out(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    """Guards against a judge who sees only what generate.py lets through."""
    from checkpoints import DIFFUSION_KIND, weights_hash

    vae, prior = (read_checkpoint(small_run.folder / name, kind) for name, kind in ((VAE_FILE, VAE_KIND), (DIFFUSION_FILE, DIFFUSION_KIND)))
    for name, value in vae["weights"].items():
        if name.startswith("decoder.output"):
            value.zero_()
    vae["weights"]["decoder.output_bias"][50] = 100.0
    vae["known"] = known_riffs(np.full((1, TokenizerConfig().steps), 50), ["by heart bar 1"])
    save_checkpoint(tmp_path / "run" / VAE_FILE, vae)
    save_checkpoint(tmp_path / "run" / DIFFUSION_FILE, {**prior, "vae_hash": weights_hash(vae["weights"])})
    result = here("evaluate", str(tmp_path / "run"), "--threads", "1", "--device", "cpu", "--num-outputs", "10", "--no-pictures")
    assert result.code == 0 and "copies that generate.py would draw again: 10 of 10" in result.out
    copies = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())["metrics"]["copies"]["rows"]["model"]
    assert (copies["value"], copies["passes"]) == (1000, False)


def test_a_record_that_somebody_edited_is_not_overwritten(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    """Guards against a guitarist's remark that is lost when the riff is made again."""
    made = flags(small_run, tmp_path, "--seeds", "1-2", "--max-copy", "1")
    assert here("generate", *made).code == 0 and here("generate", *made).code == 0
    record = next((tmp_path / "riffs").glob("*.json"))
    record.write_text(record.read_text().replace('"seed": 1', '"comment": "my favourite", "seed": 1'))
    before = bytes_below(tmp_path)
    assert_one_line(here("generate", *made), "generate", record.name, "edited")
    assert bytes_below(tmp_path) == before
