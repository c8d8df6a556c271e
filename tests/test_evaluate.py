"""evaluate.py: a run or a folder judged, what is said about it, and nothing of anybody's overwritten."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Here, SmallRun, assert_is_a_picture, assert_one_line, bytes_below, riff_bytes, small_songs

import evaluate
from checkpoints import load_same_riffs, load_vae
from config import HOLD, VAE_FILE, TokenizerConfig
from experiments import sweeps
from files import write_files
from latents import latent_table
from measures import reports, studies
from measures.baselines import TOKEN_BASELINES, gaussian_mixtures
from measures.evaluation import HELD, METRICS, MODEL, TRAIN, Row, Study
from measures.novelty import TrainingRiffs

torch.set_num_threads(1)

CPU = torch.device("cpu")
FLAGS = ["--num-outputs", "12", "--sampling-steps", "5", "--threads", "1", "--device", "cpu"]


def read(folder: Path) -> dict[str, Any]:
    """metrics.json, which must not hold NaN: that is no JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def judged(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What evaluate.py wrote about a run, and said."""
    folder, said = tmp_path_factory.mktemp("judged"), io.StringIO()
    with contextlib.redirect_stdout(said):
        assert evaluate.main([str(small_run.folder), *FLAGS, "--output-dir", str(folder)]) == 0
    return folder, said.getvalue()


def test_a_run_is_judged_beside_all_its_rivals(judged: tuple[Path, str], small_run: SmallRun) -> None:
    folder, said = judged
    record = read(folder)
    assert record["runs"] == [str(small_run.folder)] and record["riffs"] == 12
    rows = {MODEL, "N(0, I) prior", "one Gaussian", "Gaussian mixture", "nearest-neighbour jitter", "held-out, autoencoded"}
    assert set(record["metrics"]) == set(METRICS)
    for metric in record["metrics"].values():
        assert set(metric["rows"]) == rows | {HELD} | set(TOKEN_BASELINES)
    assert record["metrics"]["copies"]["rows"][TRAIN]["value"] == 1000
    assert set(record["models"][0]["vae"]) == {"train", "held out"} and record["models"][0]["mixture_components"] >= 1
    assert "nan" not in said.lower() and all(metric.label[:28] in said for metric in METRICS.values())
    for words in ("The new riffs are like real ones in ", "The columns: ", "; rivals that pass too: ", " fails "):
        assert words in said
    assert {HELD, *rows, *TOKEN_BASELINES} <= set(reports.ABOUT)  # each column is explained
    names = set(bytes_below(folder))
    assert names == {"metrics.json", "metrics.md"} | {f"{key}.png" for key in METRICS}
    for key in METRICS:
        assert_is_a_picture(folder / f"{key}.png")
    table = [line for line in (folder / "metrics.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == len(METRICS) + 2 and len({line.count("|") for line in table}) == 1


def test_what_goes_on_is_said_before_it_takes_its_time(judged: tuple[Path, str], small_run: SmallRun) -> None:
    said = judged[1].splitlines()
    assert said[0] == f"{small_run.folder}: drawing 12 riffs a row" and "measuring" in said[:4]
    assert f"{small_run.folder}: 12 new riffs, judged by 8 real ones (held out)" in said


def test_the_sweeps_find_their_numbers(judged: tuple[Path, str]) -> None:
    """Guards against rows and metrics that are named anew here and looked up by their old names there."""
    found = sweeps.figures(read(judged[0]))
    assert len(found) == 15 and all(np.isfinite(value) for value in found.values())


def test_the_same_run_judged_again_gives_the_same_file(judged: tuple[Path, str], small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    """Guards against numbers from a clock or an unseeded generator; and nothing is written to the run itself."""
    before = set(bytes_below(small_run.folder))
    result = here("evaluate", str(small_run.folder), *FLAGS, "--output-dir", str(tmp_path), "--no-pictures")
    assert (result.code, result.err) == (0, "")
    assert set(bytes_below(tmp_path)) == {"metrics.json", "metrics.md"}
    assert (tmp_path / "metrics.json").read_bytes() == (judged[0] / "metrics.json").read_bytes()
    assert (tmp_path / "metrics.md").read_bytes() == (judged[0] / "metrics.md").read_bytes()
    assert set(bytes_below(small_run.folder)) == before


def test_two_folders_are_judged_without_a_model(small_run: SmallRun, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Riffs of generate.py by the training folder: each counted once, though they stand in the long file too."""
    from config import LONG_FILE

    made = tmp_path / "made"
    flags = ["--run-dir", str(small_run.folder), "--sampling-steps", "5", "--threads", "1", "--num-outputs", "9"]
    assert here("generate", *flags, "--output-dir", str(made)).code == 0
    assert (made / LONG_FILE).exists()
    folders = ["--generated", str(made), "--reference", str(small_run.songs), "--num-outputs", "20"]
    monkeypatch.chdir(tmp_path)
    before = bytes_below(made)
    result = here("evaluate", *folders, "--no-pictures")
    assert bytes_below(made) == before  # nothing is written among somebody's riffs
    assert (result.code, result.err) == (0, "")
    assert f"{made}: 9 riffs of 10 files, 1 of them refused" in result.out and "calls" not in result.out
    assert f"{small_run.songs}: 32 riffs of 32 files, 0 of them refused" in result.out
    assert "(half of the reference)" in result.out
    record = read(tmp_path / "runs" / "evaluation")
    assert record["riffs"] == 9 and record["models"] == [{"refused": {"long file": 1}}]
    assert set(record["metrics"]) == {key for key in METRICS if not key.endswith("_latent")}
    assert set(record["metrics"]["mmd"]["rows"]) == {HELD, MODEL, *TOKEN_BASELINES}
    assert set(bytes_below(tmp_path / "runs" / "evaluation")) == {"metrics.json", "metrics.md"}
    assert here("evaluate", *folders, "--output-dir", str(tmp_path / "again"), "--no-pictures").code == 0
    assert (tmp_path / "again" / "metrics.json").read_bytes() == (tmp_path / "runs" / "evaluation" / "metrics.json").read_bytes()


def test_three_riffs_can_be_judged(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    """Guards against a traceback over a folder that is smaller than its neighbours."""
    small_songs(tmp_path / "made", songs=1, phrases=3)
    result = here(
        "evaluate", "--generated", str(tmp_path / "made"), "--reference", str(small_run.songs), "--no-pictures", "--num-outputs", "20",
        "--output-dir", str(tmp_path / "out"),
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    record = read(tmp_path / "out")
    assert record["riffs"] == 3 and MODEL not in record["metrics"]["precision"]["rows"]


def test_of_many_riffs_a_choice_is_judged_at_its_own_tempos(tmp_path: Path, small_run: SmallRun) -> None:
    """Guards against riffs that are given the tempo of others."""
    made = tmp_path / "made"
    made.mkdir()
    for i in range(30):
        (made / f"a_{i:02d}.mid").write_bytes(riff_bytes([40 + i, *[HOLD] * 31], tempos=((0.0, 100.0 + i),)))
    row = studies.study_of_folders(str(made), str(small_run.songs), 10, 0).rows[MODEL]
    assert len(row.tokens) == len(row.bpm) == 10
    np.testing.assert_allclose(row.bpm, 60 + row.tokens[:, 0], rtol=1e-4)
    assert row.tokens[:, 0].max() > 50  # not the first ten


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--generated", "{songs}"], ["--generated and --reference go together"]),
        (["--reference", "{songs}"], ["--generated and --reference go together"]),
        (["{run}", "--generated", "{songs}", "--reference", "{songs}"], ["not both"]),
        (["{none}", "--threads", "1"], ["{none}", "train_vae.py"]),
        (["--run-dir", "{none}", "--threads", "1"], ["{none}", "train_vae.py"]),
        (["--preset", "nope"], ["--preset nope"]),
        (["{run}", "--num-outputs", "3"], ["--num-outputs 3"]),
        (["{run}", "--temperature", "-1"], ["--temperature -1"]),
        (["--generated", "{none}", "--reference", "{songs}"], ["{none}", "no such folder"]),
        (["--generated", "{songs}", "--reference", "{empty}"], ["{empty}", "no .mid"]),
        (["--generated", "{songs}", "--reference", "{one song}"], ["{one song}", "two songs"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_bad_option_of_evaluate_is_one_line(flags: list[str], words: list[str], small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    (tmp_path / "empty").mkdir()
    small_songs(tmp_path / "one", songs=1, phrases=4)
    names = {"songs": small_run.songs, "run": small_run.folder, "none": tmp_path / "none", "empty": tmp_path / "empty"}
    names["one song"] = tmp_path / "one"
    before = set(bytes_below(small_run.folder.parent)) | set(bytes_below(tmp_path))

    def filled(word: str) -> str:
        return word.format_map(names)

    assert_one_line(
        here("evaluate", *map(filled, flags), *([] if "--num-outputs" in flags else ["--num-outputs", "10"])),
        "evaluate",
        *map(filled, words),
    )
    assert set(bytes_below(small_run.folder.parent)) | set(bytes_below(tmp_path)) == before


def test_a_run_that_held_nothing_out_is_one_line(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    common = ["--preset", "riff_2bar_tiny", "--run-dir", str(tmp_path / "run"), "--threads", "1", "--steps", "1"]
    sizes = ["--encoder-size", "10", "--decoder-size", "14", "--z-size", "6"]
    assert here("train_vae", *common, *sizes, "--data", str(small_run.songs), "--holdout", "0").code == 0
    assert here("train_diffusion", *common, "--hidden-size", "16", "--blocks", "1", "--num-timesteps", "20").code == 0
    assert_one_line(here("evaluate", str(tmp_path / "run"), *FLAGS), "evaluate", str(tmp_path / "run"), "held out", "--holdout")
    assert bytes_below(tmp_path / "run" / "evaluation") == {}


def test_a_run_named_twice_is_one_line(small_run: SmallRun, here: Here) -> None:
    """Guards against a mean over runs that counts one of them double."""
    assert_one_line(here("evaluate", str(small_run.folder), str(small_run.folder), *FLAGS), "evaluate", "twice")


@pytest.mark.parametrize(("few", "said"), [(8, False), (9, True), (13, True)])
def test_that_few_riffs_say_little_is_said(few: int, said: bool, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a verdict that looks as firm as one on a thousand riffs; 12 new riffs here, and 8 real ones to judge them."""
    real, made = (Row(np.full((count, 32), 50), np.full(count, 100.0)) for count in (8, 12))
    known = TrainingRiffs(real.tokens, [""] * 8, TokenizerConfig())
    metric = {"label": "rest ratio", "meaning": "", "rule": "inside", "band": [0.1, 0.3], "blind_to": []}
    row = {"value": 0.2, "interval": [0.1, 0.3], "each": [0.2], "passes": True, "verdict": "inside the human band"}
    monkeypatch.setattr(evaluate, "FEW", few)
    monkeypatch.setattr(studies, "study_of_folders", lambda *args: Study("made", TokenizerConfig(), real, real, known, {MODEL: made}))
    monkeypatch.setattr(evaluate, "compare", lambda studies, seed: {"rest_ratio": {**metric, "rows": {HELD: row, MODEL: row}}})
    result = here("evaluate", "--generated", str(tmp_path), "--reference", str(tmp_path), "--no-pictures")
    assert (result.code, result.err) == (0, "")
    assert (f"So few riffs (12 new, 8 real) say little: with {few} or more of each" in result.out) == said
    assert ("So few" in result.out) == said


def test_the_rivals_of_the_diffusion_model_have_each_their_own_riffs_and_dice(small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against rivals that are fitted to other riffs than the diffusion model saw, or decoded with one another's numbers."""
    vae, content = load_vae(small_run.folder / VAE_FILE)
    riff_data = load_same_riffs(content, vae.tokenizer, "", "")
    one = riff_data.train_tokens[:1]
    mu, std = (values.numpy() for values in (latent_table(vae, one, CPU).mu, latent_table(vae, one, CPU).std))
    calls: list[tuple[np.ndarray, int]] = []
    fitted: list[np.ndarray] = []

    def fit(z: np.ndarray, count: int, seed: int) -> tuple[dict[str, np.ndarray], int]:
        fitted.append(z)
        return gaussian_mixtures(z, count, seed)

    def decoded(z: np.ndarray, number: int) -> np.ndarray:
        calls.append((z, number))
        return np.full((len(z), 32), number)

    monkeypatch.setattr(studies, "gaussian_mixtures", fit)

    def rivals(seed: int) -> list[np.ndarray]:
        calls.clear()
        rows, components = studies.latent_rivals(vae, riff_data, one.repeat(200, axis=0), 50, seed, decoded)
        assert list(rows) == ["one Gaussian", "Gaussian mixture", "nearest-neighbour jitter"] and components == 1
        assert [row[0, 0] for row in rows.values()] == [number for _, number in calls] == [0, 1, 2]
        return [z for z, _ in calls]

    gaussian, mixture, jitter = rivals(3)
    assert gaussian.shape == mixture.shape == jitter.shape == (50, 6)
    noise = (fitted[0] - mu) / std  # fitted to q(z|x) of the one riff they were given, 200 times
    assert noise.shape == (200, 6) and abs(noise.mean()) < 0.1 and noise.std(axis=0) == pytest.approx(np.ones(6), abs=0.2)
    own = latent_table(vae, riff_data.train_tokens, CPU).mu.numpy()
    assert (jitter.min(axis=0) >= own.min(axis=0)).all() and (jitter.max(axis=0) <= own.max(axis=0)).all()
    assert jitter.std(axis=0) == pytest.approx(own.std(axis=0), rel=0.5)  # of all the training riffs
    for again, z in zip(rivals(3), (gaussian, mixture, jitter), strict=True):
        assert (again == z).all()
    assert not (rivals(4)[0] == gaussian).all()


# ---------------------------------------------------------------- riffs of several calls


def record_of(**changes: Any) -> str:
    return json.dumps({"seed": 1, "vae": "v", "diffusion": "d", "settings": {"temperature": 1, "top_k": 0}, **changes})


def test_calls_with_different_models_or_settings_are_counted(tmp_path: Path) -> None:
    """Guards against seeds that count as calls, and against a traceback over somebody's own JSON."""
    assert studies.generate_calls(tmp_path) == 0
    write_files({
        tmp_path / name: text.encode() for name, text in {
            "riff_seed000001.json": record_of(),
            "riff_seed000002.json": record_of(seed=2, settings={"top_k": 0, "temperature": 1}),
            "deeper/riff_seed000003.json": record_of(vae="w"),
            "deeper/riff_seed000004.json": record_of(diffusion=None),
            "riff_seed000005.json": record_of(settings={"temperature": 2, "top_k": 0}),
            "riff_seed000006.json": "[1, 2",
            "riff_seed000007.json": "[1, 2]",
            "riff_seed000008.json": '{"vae": "x"}',
            "generated_riff_long.json": record_of(vae="y"),
        }.items()
    })  # fmt: skip
    (tmp_path / "riff_seed000009.json").write_bytes(b"\xff")
    assert studies.generate_calls(tmp_path) == 4


def test_riffs_of_several_calls_are_judged_as_one_and_it_is_said(
    small_run: SmallRun, tmp_path: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    flags = ["--run-dir", str(small_run.folder), "--sampling-steps", "5", "--threads", "1", "--output-dir", str(made)]
    for seeds, more, calls in (("1-2", [], 1), ("3-4", [], 1), ("5-6", ["--temperature", "0.9"], 2)):
        assert here("generate", *flags, "--seeds", seeds, *more).code == 0
        assert len(studies.study_of_folders(str(made), str(small_run.songs), 1000, 0).rows[MODEL].tokens) == int(seeds[-1])
        said = f"{made}: generate.py wrote these in {calls} calls with different models or settings; they are judged as one"
        assert (said in capsys.readouterr().out) == (calls > 1)


# ---------------------------------------------------------------- where it is written


def test_the_folder_for_the_results_is_there_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against an hour of drawing that ends with a folder which cannot be made."""
    monkeypatch.chdir(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    folders = evaluate.Evaluate(generated=str(two), reference=str(one))
    for options, runs, folder in (
        (evaluate.Evaluate(), [one], one / "evaluation"),
        (evaluate.Evaluate(), [one, two], Path("runs/evaluation")),
        (evaluate.Evaluate(output_dir="a/b"), [one, two], Path("a/b")),
        (dataclasses.replace(folders, output_dir="b"), [one], Path("b")),
        (dataclasses.replace(folders, output_dir="c"), [one], Path("c")),
    ):
        assert not folder.exists()
        assert evaluate.output_folder(options, runs) == folder and list(folder.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError):
        evaluate.output_folder(evaluate.Evaluate(output_dir="file/below"), [one])


FOREIGN = {
    "broken": {"metrics.json": b"[1, 2"},
    "of another script": {"metrics.json": b'{"loss": 1}', "metrics.md": b"# mine"},
    "a number": {"metrics.json": b"3"},
    "no text": {"metrics.json": b"\xff"},
    "notes": {"metrics.md": b"# mine"},
    "photo": {"rest_ratio.png": b"\x89PNG, a photo"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_what_evaluate_did_not_write_is_refused_before_the_work(
    files: dict[str, bytes], small_run: SmallRun, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against the loss of somebody's notes, and against minutes of work that end in a refusal."""
    for work in ("study_of_run", "study_of_folders"):
        monkeypatch.setattr(studies, work, lambda *args: pytest.fail("the work was begun"))
    write_files({tmp_path / name: data for name, data in files.items()})
    for asked in ([str(small_run.folder)], ["--generated", str(small_run.songs), "--reference", str(small_run.songs)]):
        result = here("evaluate", *asked, "--threads", "1", "--output-dir", str(tmp_path))
        assert_one_line(result, "evaluate", str(tmp_path), "--output-dir")
    assert bytes_below(tmp_path) == files


def test_what_evaluate_wrote_is_replaced(judged: tuple[Path, str], small_run: SmallRun, tmp_path: Path) -> None:
    """Guards against a refusal of our own; and without pictures nobody's photo is in the way."""
    again, photo = tmp_path / "again", tmp_path / "photo"
    shutil.copytree(judged[0], again)
    options = evaluate.Evaluate(output_dir=str(again))
    assert evaluate.output_folder(options, [small_run.folder]) == again
    write_files({photo / "rest_ratio.png": b"a photo"})
    options = evaluate.Evaluate(output_dir=str(photo), pictures=False)
    assert evaluate.output_folder(options, [small_run.folder]) == photo
    assert bytes_below(photo) == {"rest_ratio.png": b"a photo"}
