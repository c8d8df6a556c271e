"""A run taken up again where it stopped, or from the weights of another: the same to the last bit, or refused in one line."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    BOTH,
    DIFFUSION,
    SIZES,
    TINY,
    VAE,
    Script,
    bytes_below,
    log_lines,
    one_line,
    same,
    scored,
    small_songs,
    stop_after,
    trained,
    without_options,
)
from torch.testing import assert_close

import resuming
import train_vae
import training
from checkpoints import VAE_KIND, load_vae, read_checkpoint, weights_hash
from config import BASE_MODEL, DIFFUSION_FILE, VAE_FILE, TokenizerConfig, UserError, VAETrainConfig
from dataset import load_riffs
from presets import TrainVAE, parse_options
from resuming import RunFiles

torch.set_num_threads(1)


# ---------------------------------------------------------------- resume


@BOTH
@pytest.mark.parametrize("cut", [1, 4])
def test_cut_and_resumed_equals_never_cut(
    script: Script,
    cut: int,
    finished: Path,
    songs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Guards against a resume that is off by one, loses the optimizer, or only fits at the end of an epoch (9 riffs, 4 a step)."""
    script.prepare(tmp_path, finished / VAE_FILE)
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(cut))
        assert script.run(tmp_path, songs) == 130
    assert f"stopped at step {cut} of 10; run the same command again" in capsys.readouterr().out
    assert script.state(tmp_path)["step"] == cut
    assert script.run(tmp_path, songs) == 0
    assert f"resuming at step {cut}\n" in capsys.readouterr().out
    assert same(without_options(script.state(tmp_path)), without_options(script.state(finished)))
    one, other = (read_checkpoint(folder / script.best, script.kind) for folder in (tmp_path, finished))
    assert same(without_options(one), without_options(other))
    assert log_lines(tmp_path / script.log) == log_lines(finished / script.log)


@BOTH
def test_killed_without_warning_resumes_from_the_last_save(
    script: Script, finished: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against log lines written twice: the steps after the last save are done again."""
    script.prepare(tmp_path, finished / VAE_FILE)
    calls = iter(range(100))

    def power_cut(*args: Any) -> None:
        if next(calls) == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "require_finite", power_cut)
        with pytest.raises(KeyboardInterrupt):
            script.run(tmp_path, songs, "--save-interval", "4")
    assert script.state(tmp_path)["step"] >= 4  # a new best is saved too
    assert log_lines(tmp_path / script.log)[-1]["step"] == 6
    assert script.run(tmp_path, songs, "--save-interval", "4") == 0
    lines = log_lines(tmp_path / script.log)
    keys = [(line["step"], line["split"]) for line in lines]
    assert len(set(keys)) == len(keys)
    assert lines == log_lines(finished / script.log)
    assert same(trained(script.state(tmp_path)), trained(script.state(finished)))


@BOTH
def test_a_log_line_cut_in_half_does_not_stop_a_resume(
    script: Script, finished: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a JSON error after a crash in the middle of a line."""
    script.prepare(tmp_path, finished / VAE_FILE)
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(4))
        script.run(tmp_path, songs)
    with (tmp_path / script.log).open("a") as file:
        file.write('{"step": 6, "spl')
    assert script.run(tmp_path, songs) == 0
    assert log_lines(tmp_path / script.log) == log_lines(finished / script.log)


@BOTH
def test_a_finished_run_run_again_changes_nothing(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a model that is trained on, or replaced, by looking at its summary again."""
    shutil.copytree(finished, tmp_path / "run")
    before = bytes_below(tmp_path / "run")
    assert script.run(tmp_path / "run", songs) == 0
    after = bytes_below(tmp_path / "run")
    assert after.keys() == before.keys()
    for name in (script.best, script.last):
        one, other = (read_checkpoint(folder / name, script.kind) for folder in (finished, tmp_path / "run"))
        assert same(without_options(one), without_options(other)), name
    assert log_lines(tmp_path / "run" / script.log) == log_lines(finished / script.log)


@BOTH
def test_a_run_stopped_before_its_first_look_has_kept_no_step(
    script: Script, finished: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against "nothing yet" that reads as step 0: fine-tuning keeps that one, and would miss its file."""
    script.prepare(tmp_path, finished / VAE_FILE)
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(2))
        assert script.run(tmp_path, songs) == 130
    assert script.state(tmp_path)["best"]["step"] is None
    assert not (tmp_path / script.best).exists()
    assert script.run(tmp_path, songs) == 0
    assert script.state(tmp_path)["best"]["step"] == script.state(finished)["best"]["step"] > 0


def test_every_process_goes_on_from_what_the_main_one_found(finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against processes that begin at different steps, and against files looked for, or kept aside, by each of them."""
    sent: list[Any] = []

    class Group(training.Processes):
        def from_main(self, value: Any) -> Any:
            if self.is_main:
                sent.append(value)
            return sent[-1]

    options = parse_options(TrainVAE, [*TINY, "--data", str(songs), *SIZES, "--run-dir", str(finished)])
    files, none = (RunFiles(folder / VAE.last, folder / VAE.best, folder / VAE.log) for folder in (finished, tmp_path))
    refused = dataclasses.replace(files, last=tmp_path / VAE.last)  # a model without its state
    found = resuming.find_state(files, VAE.kind, options, {}, Group(0, 2))
    assert found is not None and found["step"] == 10
    assert resuming.find_state(refused, VAE.kind, options, {}, Group(1, 2)) is found
    assert resuming.find_state(none, VAE.kind, options, {}, Group(0, 2)) is None
    assert resuming.find_state(files, VAE.kind, options, {}, Group(1, 2)) is None
    assert len(sent) == 2


# ---------------------------------------------------------------- a run that is not the same run


def test_changed_options_names_what_changed_and_nothing_else() -> None:
    old = {"steps": 5, "train": {"lr": 1.0, "beta": 2.0}, "run": {"seed": 0}, "preset": "a"}
    new = {"steps": 9, "train": {"lr": 3.0, "beta": 2.0, "new": 1}, "run": {"seed": 4}, "preset": "b"}
    assert resuming.changed_options(old, new) == "lr 1.0 -> 3.0, seed 0 -> 4"


@BOTH
def test_a_changed_model_is_refused_and_listed(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against weights loaded into another model, and against a run that silently starts over."""
    shutil.copytree(finished, tmp_path / "run")
    before = bytes_below(tmp_path / "run")
    flag, text = ("--z-size", "z_size 6 -> 7") if script is VAE else ("--blocks", "blocks 1 -> 7")
    with pytest.raises(UserError) as error:
        script.run(tmp_path / "run", songs, flag, "7")
    assert text in one_line(error)
    assert "--restart" in str(error.value)
    assert bytes_below(tmp_path / "run") == before


@BOTH
def test_changed_riffs_are_refused(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a resume on other data, whose order of examples is another."""
    shutil.copytree(finished, tmp_path / "run")
    more = small_songs(tmp_path / "songs", songs=5)
    before = bytes_below(tmp_path / "run")
    with pytest.raises(UserError) as error:
        script.run(tmp_path / "run", more, *([] if script is VAE else ["--data", str(more)]))
    assert "riffs" in one_line(error)
    assert bytes_below(tmp_path / "run") == before


def test_a_change_of_the_riffs_is_named_where_an_option_made_it(finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a refusal that sends people to look for a change in their folder, where --most-riffs chose other riffs."""
    shutil.copytree(finished, tmp_path / "run")
    before = bytes_below(tmp_path / "run")
    said = {}
    for name, flags in {"fewer": ["--most-riffs", "6"], "other": ["--data", str(small_songs(tmp_path / "songs", songs=5))]}.items():
        with pytest.raises(UserError) as error:
            VAE.run(tmp_path / "run", songs, *flags)
        said[name] = one_line(error)
    assert (
        f"the riffs in {songs} changed since this run began, or which are used (most_riffs 0 -> 6); give another --run-dir" in said["fewer"]
    )
    assert f"the riffs in {tmp_path / 'songs'} changed since this run began; give another --run-dir" in said["other"]
    assert bytes_below(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["data_table.csv", "train_vae.jsonl"])
def test_somebodys_files_in_a_new_run_folder_are_not_overwritten(name: str, songs: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("my own")
    with pytest.raises(UserError) as error:
        VAE.run(tmp_path, songs)
    assert name in one_line(error)
    assert bytes_below(tmp_path) == {name: b"my own"}


@BOTH
def test_a_model_that_is_gone_is_missed(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a run that goes on towards a best model which no longer exists."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / script.best).unlink()
    before = bytes_below(tmp_path / "run")
    with pytest.raises(UserError) as error:
        script.run(tmp_path / "run", songs)
    assert f"{script.best}: is gone" in one_line(error) and "--restart" in str(error.value)
    assert bytes_below(tmp_path / "run") == before


@BOTH
def test_a_model_without_its_state_is_not_overwritten(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a run that starts over and puts its first bad model in the place of a good one."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / script.last).unlink()
    before = bytes_below(tmp_path / "run")
    with pytest.raises(UserError) as error:
        script.run(tmp_path / "run", songs)
    assert script.best in one_line(error) and "--restart" in str(error.value)
    assert bytes_below(tmp_path / "run") == before


@BOTH
def test_weight_decay_asked_for_on_resume_holds(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against an optimizer that goes on with its old options while the script says they changed."""
    shutil.copytree(finished, tmp_path / "run")
    assert script.run(tmp_path / "run", songs, "--steps", "12", "--weight-decay", "0.25") == 0
    assert [group["weight_decay"] for group in script.state(tmp_path / "run")["optimizer"]["param_groups"]] == [0.25]


def test_a_fine_tuned_run_resumes_without_the_file_it_started_from(finished: Path, songs: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.pth"
    shutil.copy(finished / VAE_FILE, base)
    assert VAE.run(tmp_path / "run", songs, "--init-from", str(base)) == 0
    base.unlink()
    assert VAE.run(tmp_path / "run", songs, "--init-from", str(base), "--steps", "12") == 0


def test_a_fine_tuned_model_knows_the_riffs_of_both(finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a copy of what the base model learnt that counts as new; a resume keeps the list."""
    base = read_checkpoint(finished / VAE_FILE, VAE_KIND)["known"]
    assert base["names"] == load_riffs(dataclasses.replace(TrainVAE().dataset, data=str(songs)), TokenizerConfig()).train_names
    other = small_songs(tmp_path / "songs", songs=6, phrases=2)
    run, flags = tmp_path / "run", ["--init-from", str(finished / VAE_FILE), "--holdout", "0.3"]
    assert VAE.run(run, other, *flags) == 0
    known = read_checkpoint(run / VAE_FILE, VAE_KIND)["known"]
    own = read_checkpoint(run / VAE_FILE, VAE_KIND)["data"]["riffs"]
    assert known["names"][own:] == [f"base model: {name}" for name in base["names"]] and 0 < own < 12
    assert torch.equal(known["tokens"][own:], base["tokens"])
    assert VAE.run(run, other, *flags, "--steps", "12") == 0
    for file in (VAE.best, VAE.last):
        assert same(read_checkpoint(run / file, VAE_KIND)["known"], known)


def test_other_latents_on_resume_are_refused(finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a normalisation that belongs to other latents."""
    shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(UserError) as error:
        DIFFUSION.run(tmp_path / "run", songs, "--prior-transpose", "3")
    assert "--prior-transpose" in one_line(error)


def test_a_new_vae_under_an_old_diffusion_run_is_refused(finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a denoiser that goes on with the latents of another VAE."""
    shutil.copytree(finished, tmp_path / "run")
    assert VAE.run(tmp_path / "run", songs, "--restart", "--seed", "1", "--steps", "2") == 0
    with pytest.raises(UserError) as error:
        DIFFUSION.run(tmp_path / "run", songs)
    assert "VAE" in one_line(error)


def test_other_tokens_are_refused_on_resume(finished: Path, songs: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(UserError) as error:
        VAE.run(tmp_path / "run", songs, "--no-hold-token")
    one_line(error)


@BOTH
def test_a_model_in_place_of_a_state_is_refused(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a KeyError when somebody copies riff_vae.pth to riff_vae_last.pth to go on from it."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copy(tmp_path / "run" / script.best, tmp_path / "run" / script.last)
    with pytest.raises(UserError) as error:
        script.run(tmp_path / "run", songs)
    assert script.last in one_line(error)


@BOTH
def test_restart_keeps_the_old_files_and_starts_over(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a restart that deletes a good model, or goes on from it."""
    shutil.copytree(finished, tmp_path / "run")
    before = bytes_below(tmp_path / "run")
    for number in (1, 2):
        assert script.run(tmp_path / "run", songs, "--restart") == 0
        after = bytes_below(tmp_path / "run")
        for name in (script.best, script.last, script.log):
            if number == 1:
                assert after[f"{name}.old-1"] == before[name]
            assert f"{name}.old-{number}" in after
    assert same(without_options(script.state(tmp_path / "run")), without_options(script.state(finished)))


@BOTH
def test_a_restart_that_cannot_begin_moves_nothing(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a run without a model because of a slip in the name of another; and its own may be what it begins with."""
    shutil.copytree(finished, tmp_path / "run")
    before = bytes_below(tmp_path / "run")
    with pytest.raises(UserError):
        script.run(tmp_path / "run", songs, "--restart", "--init-from", str(tmp_path / "none.pth"))
    assert bytes_below(tmp_path / "run") == before
    assert script.run(tmp_path / "run", songs, "--restart", "--init-from", str(tmp_path / "run" / script.best)) == 0
    assert bytes_below(tmp_path / "run")[f"{script.best}.old-1"] == before[script.best]


def test_other_training_options_are_remarked_on(finished: Path, songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More steps go on from where the run was; a changed learning rate is allowed, and said."""
    shutil.copytree(finished, tmp_path / "run")
    assert VAE.run(tmp_path / "run", songs, "--steps", "12", "--lr", "0.0005") == 0
    assert "resuming at step 10; changed: lr 0.002 -> 0.0005" in capsys.readouterr().out
    assert VAE.state(tmp_path / "run")["step"] == 12


# ---------------------------------------------------------------- other weights to start from


@BOTH
def test_init_from_starts_from_the_given_weights(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against --init-from that is read and not used; the diffusion keeps the normalisation of its own latents."""
    script.prepare(tmp_path, finished / VAE_FILE)
    if script is DIFFUSION:  # of another VAE, whose latents are not those of the first
        VAE.run(tmp_path / "vae", songs, "--seed", "5", "--steps", "3")
        shutil.copy(tmp_path / "vae" / VAE_FILE, tmp_path / VAE_FILE)
    still = ["--steps", "1", "--lr", "1e-12"]
    assert script.run(tmp_path, songs, *still, "--seed", "3", "--init-from", str(finished / script.best)) == 0
    source = read_checkpoint(finished / script.best, script.kind)["weights"]
    state = script.state(tmp_path)
    found = state.get("raw_weights", state["weights"])
    for name, value in source.items():
        if name.startswith("condition_"):
            continue  # of this run's riffs, which happen to be the same
        if name.startswith("latent_"):
            assert not torch.allclose(found[name], value, atol=1e-4), name
        else:
            assert_close(found[name], value, atol=1e-9, rtol=1e-6)


def test_init_from_refuses_other_tokens_kinds_and_shapes(finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against tokens that mean something else to the new model; nothing is made before the refusal."""
    cases = [
        (VAE, [str(finished / VAE_FILE), "--no-hold-token"], "hold_token True -> False"),
        (VAE, [str(finished / VAE_FILE), "--decoder-size", "15"], "do not fit"),
        (VAE, [str(finished / DIFFUSION_FILE)], "latent_diffusion"),
        (VAE, [str(tmp_path / "none.pth")], "no such checkpoint"),
        (VAE, [""], "--init-from is empty; name a riff_vae checkpoint, or none"),
        (DIFFUSION, [" "], "--init-from is empty; name a latent_diffusion checkpoint, or none"),
        (DIFFUSION, [str(finished / VAE_FILE)], "riff_vae"),
        (DIFFUSION, [str(finished / DIFFUSION_FILE), "--hidden-size", "18"], "do not fit"),
    ]
    for number, (script, flags, text) in enumerate(cases):
        folder = script.prepare(tmp_path / str(number), finished / VAE_FILE)
        before = bytes_below(folder)
        with pytest.raises(UserError) as error:
            script.run(folder, songs, "--init-from", *flags)
        assert text in one_line(error)
        assert bytes_below(folder) == before


def test_init_from_on_a_run_under_way_is_refused(finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against an option that is silently ignored."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copy(finished / VAE_FILE, tmp_path / "base.pth")
    with pytest.raises(UserError) as error:
        VAE.run(tmp_path / "run", songs, "--init-from", str(tmp_path / "base.pth"))
    assert "--init-from" in one_line(error) and "--restart" in str(error.value) and "began with --init-from none" in str(error.value)


# ---------------------------------------------------------------- fine-tuning: the weights it starts from


@pytest.fixture
def base(finished: Path) -> list[str]:
    return ["--init-from", str(finished / VAE_FILE)]


def looks(folder: Path) -> list[dict[str, Any]]:
    return [line for line in log_lines(folder / VAE.log) if line["split"] == "held out"]


def test_fine_tuning_begins_by_judging_what_it_starts_from(base: list[str], finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against a gain, or a loss, that nobody can see; what starts from nothing has nothing to judge."""
    assert VAE.run(tmp_path, songs, *base, "--beta", "0.3") == 0
    vae, _ = load_vae(finished / VAE_FILE)
    held = load_riffs(dataclasses.replace(TrainVAE().dataset, data=str(songs)), vae.tokenizer).held_out_tokens
    numbers = train_vae.evaluate(vae, held, VAETrainConfig(beta=0.3), torch.device("cpu"))
    first, *others = looks(tmp_path)
    assert first == {"step": 0, "split": "held out", **{key: pytest.approx(value, rel=1e-4) for key, value in numbers.items()}}
    assert [line["step"] for line in others] == [line["step"] for line in looks(finished)] == [3, 6, 9, 10]


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_fine_tuning_cut_and_resumed_equals_never_cut(
    stop: int, base: list[str], songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a start that is judged twice, or forgotten; stopped at 0: killed after the first look."""
    assert VAE.run(tmp_path / "whole", songs, *base) == 0
    with monkeypatch.context() as patch:
        if stop:
            patch.setattr(training, "StopRequest", stop_after(stop))
            assert VAE.run(tmp_path / "cut", songs, *base) == 130
        else:
            patch.setattr(train_vae, "make_draws", raise_interrupt)
            with pytest.raises(KeyboardInterrupt):
                VAE.run(tmp_path / "cut", songs, *base)
    assert VAE.state(tmp_path / "cut")["step"] == stop
    assert VAE.run(tmp_path / "cut", songs, *base) == 0
    for name in (VAE.best, VAE.last):
        one, other = (without_options(read_checkpoint(tmp_path / folder / name, VAE.kind)) for folder in ("whole", "cut"))
        assert same(one, other), name
    assert log_lines(tmp_path / "cut" / VAE.log) == log_lines(tmp_path / "whole" / VAE.log)


def raise_interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_the_weights_it_starts_from_are_kept_where_none_are_better(
    base: list[str], finished: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against fine-tuning that hands out a worse model than it was given; also across a resume."""
    hashes = scored(monkeypatch, 3.0, 4.0, 3.0)
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(4))
        assert VAE.run(tmp_path, songs, *base) == 130
    assert VAE.run(tmp_path, songs, *base) == 0
    out = capsys.readouterr().out
    assert "fine-tuning brought nothing" in out and f"{VAE.best}: the model of step 0, best on the held-out songs of 10" in out
    best = read_checkpoint(tmp_path / VAE.best, VAE.kind)
    assert (best["step"], best["best"]["step"], best["best"]["objective"]) == (0, 0, 3.0)
    start = read_checkpoint(finished / VAE.best, VAE.kind)["weights"]
    assert weights_hash(best["weights"]) == hashes[0] == weights_hash(start) and len(set(hashes)) == 5
    (tmp_path / VAE.best).unlink()
    with pytest.raises(UserError, match="is gone"):
        VAE.run(tmp_path, songs, *base)


def test_patience_counts_from_the_weights_it_starts_from(
    base: list[str], songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a run that can only give up once it has got better."""
    scored(monkeypatch, 3.0)
    assert VAE.run(tmp_path, songs, *base, "--eval-interval", "1", "--patience", "3", "--beta-anneal", "0") == 0
    assert (VAE.state(tmp_path)["step"], VAE.state(tmp_path)["best"]["step"]) == (3, 0)


def test_with_nothing_held_out_there_is_nothing_to_judge(
    base: list[str], songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest is kept then, and the weights it starts from are no training."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(1))
        assert VAE.run(tmp_path, songs, *base, "--holdout", "0") == 130
    assert VAE.state(tmp_path)["best"]["step"] is None
    assert VAE.run(tmp_path, songs, *base, "--holdout", "0") == 0
    assert looks(tmp_path) == []
    assert VAE.state(tmp_path)["best"]["step"] == 10
    out = capsys.readouterr().out
    assert "fine-tuning" not in out and "the model of step 10 (the last; nothing was held out)" in out


def test_what_fine_tuning_did_is_said_in_a_sentence(
    base: list[str], songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert VAE.run(tmp_path, songs, *base) == 0
    first, best = looks(tmp_path)[0], VAE.state(tmp_path)["best"]
    before, after = (f"{found['reconstruction']:.1f} + {found['kl']:.1f}" for found in (first, best))
    assert best["step"] > 0 and f"from {before} nats (reconstruction + KL) to {after}" in capsys.readouterr().out
    assert VAE.run(tmp_path / "scratch", songs) == 0
    assert "fine-tuning" not in capsys.readouterr().out


def test_the_remark_on_fine_tuning_by_hand() -> None:
    """Guards against praise for songs that come back worse, and for a run that was not fine-tuned or has no numbers."""
    log = [
        {"step": 0, "split": "held out", "reconstruction": 30.0, "kl": 50.0},
        {"step": 2, "split": "train", "reconstruction": 1.0, "kl": 1.0},
        {"step": 2, "split": "held out", "reconstruction": 20.0, "kl": 44.0},
    ]
    better = {"step": 2, "reconstruction": 20.04, "kl": 44.0}
    gain = "fine-tuning took the held-out songs from 30.0 + 50.0 nats (reconstruction + KL) to 20.0 + 44.0"
    assert train_vae.fine_tuning_remark(log, better) == gain
    worse = train_vae.fine_tuning_remark(log, {**better, "reconstruction": 31.0})
    assert worse.startswith(gain.replace("20.0", "31.0") + "; they come back less exactly than before")
    assert train_vae.fine_tuning_remark(log, {**better, "step": 0}).startswith("fine-tuning brought nothing")
    assert train_vae.fine_tuning_remark(log[1:], better) == ""
    assert train_vae.fine_tuning_remark([{**log[0], "split": "train"}], better) == ""
    assert train_vae.fine_tuning_remark(log, {"step": 2, "objective": 1.0}) == ""


@pytest.mark.parametrize(
    ("riffs", "init_from", "text", "size", "more"),
    [
        (1, "none", "from scratch: 1 riff is too few to learn a style; ", 8, True),
        (7, BASE_MODEL, "from the base model: 7 riffs are too few to learn a style; ", 8, True),
        (8, "none", "from scratch: ", 8, True),
        (64, BASE_MODEL, "from the base model: ", 64, True),
        (64, "mine.pth", "from the base model (mine.pth may do better or worse): ", 64, True),
        (128, "none", "from scratch: ", 128, False),
        (5000, "none", "from scratch: ", 128, False),
    ],
)
def test_what_to_expect_of_so_many_riffs(riffs: int, init_from: str, text: str, size: int, more: bool) -> None:
    """Guards against a promise read off the other curve, or beyond its ends."""
    curve = train_vae.LEARNING_CURVE["from scratch" if init_from == "none" else "from the base model"]
    text += f"{size} of our riffs gave back {curve[size]:.0%} of the notes of songs never heard"
    assert train_vae.expectation(riffs, init_from) == f"what to expect, {text}" + f", 128 gave {curve[128]:.0%}" * more


def test_what_to_expect_is_said_once_and_of_the_weights_it_starts_from(
    base: list[str], songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, flags in {"tuned": base, "scratch": []}.items():
        assert VAE.run(tmp_path / name, songs, *flags, "--steps", "1") == 0
        assert train_vae.expectation(9, flags[-1] if flags else "none") in capsys.readouterr().out
        assert VAE.run(tmp_path / name, songs, *flags, "--steps", "2") == 0
        assert "what to expect" not in capsys.readouterr().out
