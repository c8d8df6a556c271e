"""Training through the scripts' own `main`: nothing but the steps changes the weights, the best are kept, and runs that go wrong."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    BOTH,
    DIFFUSION,
    PACE,
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
from torch import Tensor, nn
from torch.testing import assert_close

import train_diffusion
import train_vae
import training
from checkpoints import DIFFUSION_KIND, load_diffusion, load_vae, read_checkpoint, save_checkpoint, training_riffs, weights_hash
from config import DIFFUSION_FILE, VAE_FILE, SampleConfig, TokenizerConfig, UserError, VAETrainConfig
from dataset import load_riffs
from latents import latent_table, prior_tokens
from measures import model_figures
from measures.novelty import TrainingRiffs
from sampling import sample_riffs
from steering.rules import Demands, RiffRules

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def nan_from(module: Any, call: int) -> Callable[..., Any]:
    """A training_loss whose result is not a number from the given call on, counted from 0."""
    calls: Iterator[int] = iter(range(1_000_000))
    real = module.training_loss

    def training_loss(*args: Any) -> Any:
        result = real(*args)
        if next(calls) < call:
            return result
        if isinstance(result, tuple):
            return result[0] * math.nan, {**result[1], "loss": math.nan}
        return result * math.nan

    return training_loss


# ---------------------------------------------------------------- the same weights


@BOTH
def test_the_same_command_twice_gives_the_same_weights(script: Script, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against numbers from a clock, a set's order or the global generator; another seed gives other weights."""
    torch.manual_seed(999)
    np.random.seed(999)
    script.prepare(tmp_path / "again", finished / VAE_FILE)
    script.run(tmp_path / "again", songs)
    assert same(without_options(script.state(tmp_path / "again")), without_options(script.state(finished)))
    script.prepare(tmp_path / "other", finished / VAE_FILE)
    script.run(tmp_path / "other", songs, "--seed", "1")
    assert not same(script.state(tmp_path / "other")["weights"], script.state(finished)["weights"])


@BOTH
@pytest.mark.parametrize("flag", ["--log-interval", "--eval-interval", "--save-interval"])
def test_looking_does_not_change_the_training(script: Script, flag: str, finished: Path, songs: Path, tmp_path: Path) -> None:
    """Guards against evaluation, logs and saves that draw from the training's random numbers, or leave a mode behind."""
    script.prepare(tmp_path, finished / VAE_FILE)
    assert script.run(tmp_path, songs, flag, "1") == 0
    assert same(trained(script.state(tmp_path)), trained(script.state(finished)))


# ---------------------------------------------------------------- stopping


def test_ctrl_c_saves_and_the_same_command_resumes(songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real SIGINT in a real process: exit 130, a state to resume from, no traceback."""
    flags = [*TINY, "--run-dir", str(tmp_path), "--data", str(songs), *SIZES, "--batch-size", "4", "--log-interval", "1"]
    command = [sys.executable, "-u", "train_vae.py", *flags, "--steps", "1000000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "run the same command again (without --restart) to go on" in out
    assert "Traceback" not in err and "stopping after this step" in err
    step = VAE.state(tmp_path)["step"]
    assert f"stopped at step {step} of" in out
    assert train_vae.main([*flags, "--steps", str(step + 2)]) == 0
    assert f"resuming at step {step}" in capsys.readouterr().out
    assert VAE.state(tmp_path)["step"] == step + 2


def test_the_second_ctrl_c_stops_at_once_and_handlers_are_put_back() -> None:
    """Guards against a process that cannot be stopped, and a handler that outlives the loop."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), training.StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with training.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked


def test_torchrun_may_pass_ctrl_c_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against processes that take the signal torchrun passes on for a second wish, and leave without saving."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with training.StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
    monkeypatch.setattr(training.StopRequest, "GRACE", 0.0)
    with pytest.raises(KeyboardInterrupt), training.StopRequest():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@BOTH
def test_a_loss_that_is_not_a_number_stops_the_run(
    script: Script, finished: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against NaN weights that are saved over good ones, and NaN that is set to zero and hidden."""
    script.prepare(tmp_path, finished / VAE_FILE)
    module = train_vae if script is VAE else train_diffusion
    with monkeypatch.context() as patch:
        patch.setattr(module, "training_loss", nan_from(module, 5))
        with pytest.raises(UserError) as error:
            script.run(tmp_path, songs, "--save-interval", "2")
    text = one_line(error)
    assert text.startswith("step 5: loss nan")
    assert str(tmp_path / script.last) in text
    state = script.state(tmp_path)
    assert state["step"] == 4
    assert all(value.isfinite().all() for value in state["weights"].values())
    assert script.run(tmp_path, songs, "--save-interval", "2") == 0  # with the cause removed, the run goes on as if nothing had been
    assert same(trained(script.state(tmp_path)), trained(script.state(finished)))


def test_an_infinite_gradient_takes_no_step() -> None:
    """Guards against one bad batch that ruins the weights before anybody looks."""
    model = nn.Linear(3, 1)
    before = copy.deepcopy(model.state_dict())
    optimizer = training.make_optimizer(model)
    norm = training.clip_and_step(model, optimizer, model(torch.ones(1, 3)).sum() * math.inf, 1.0, 1.0)
    assert not math.isfinite(norm)
    assert same(dict(model.state_dict()), dict(before))
    with pytest.raises(UserError, match=r"step 3: .*nothing was saved yet"):
        training.require_finite(1.0, norm, 3, Path("nowhere"))
    training.require_finite(1.0, 2.0, 3, Path("nowhere"))


def test_a_huge_loss_leaves_a_bounded_update() -> None:
    """Guards against gradients that are clipped after the step, or not at all."""
    for factor in (1.0, 1e6):
        model = nn.Linear(3, 1)
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        optimizer = torch.optim.SGD(model.parameters(), lr=123.0)  # the learning rate given below is the one that counts
        norm = training.clip_and_step(model, optimizer, model(torch.full((1, 3), 2.0)).sum() * factor, lr=0.5, grad_clip=0.25)
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert_close(norm, factor * math.sqrt(13), rtol=1e-5, atol=0)  # the norm before clipping
        assert_close((after - before).norm().item(), 0.5 * 0.25, rtol=1e-4, atol=0)


def test_gradients_do_not_add_up_from_step_to_step() -> None:
    """Guards against a forgotten zero_grad."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(3):
        before = model.weight.item()
        training.clip_and_step(model, optimizer, model(torch.ones(1, 1)).sum(), lr=0.1, grad_clip=100.0)
        assert model.weight.item() == pytest.approx(before - 0.1, abs=1e-6)


# ---------------------------------------------------------------- the best model


def test_the_best_vae_is_replaced_only_by_a_better_one(songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against the last model in place of the best, also across a resume."""
    hashes = scored(monkeypatch, 5.0, 3.0, 4.0, 3.0)
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(7))
        assert VAE.run(tmp_path, songs, "--eval-interval", "2") == 130  # looks at 2, 4 and 6
    assert VAE.run(tmp_path, songs, "--eval-interval", "2") == 0
    best = read_checkpoint(tmp_path / VAE.best, VAE.kind)
    assert (best["step"], best["best"]["step"], best["best"]["objective"]) == (4, 4, 3.0)
    assert weights_hash(best["weights"]) == hashes[1]


@pytest.mark.parametrize(("patience", "ends"), [(3, 5), (4, 6), (0, 10), (100, 10)])
def test_training_stops_early_and_stays_stopped(
    patience: int, ends: int, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Best at step 2, looked at after every step; the state to resume from is that of the stop, and running again changes nothing."""
    scored(monkeypatch, 5.0, 3.0)
    flags = ["--eval-interval", "1", "--patience", str(patience), "--beta-anneal", "0"]
    assert VAE.run(tmp_path, songs, *flags) == 0
    assert (VAE.state(tmp_path)["step"], VAE.state(tmp_path)["best"]["step"]) == (ends, 2)
    assert "the model of step 2" in capsys.readouterr().out
    before = bytes_below(tmp_path)
    assert VAE.run(tmp_path, songs, *flags) == 0
    assert bytes_below(tmp_path) == before


@pytest.mark.parametrize(
    ("human", "distances", "copying", "kept"),
    [
        (0.3, [0.1, 0.5, 0.3, 0.29, 0.2], [], 6),  # the last that is not closer than people are, however far an earlier one is
        (0.3, [0.4, 0.1, 0.1, 0.1, 0.35], [], 10),  # also after some that were
        (0.3, [0.4, 0.5, 0.5, 0.5, 0.2], [6, 8], 4),  # one copy is enough to be passed over
        (0.3, [0.2, 0.1, 0.29, 0.1, 0.5], [10], 6),  # none will do: the newest of those without copies
        (0.3, [0.1, 0.2, 0.15, 0.1, 0.05], [2, 4, 6, 8, 10], 4),  # nor any without copies: the newest of all
        (math.nan, [0.4, 0.0, 0.0, 0.0, 0.0], [8, 10], 10),  # a single song: the last
    ],
)
def test_the_prior_that_is_kept_is_the_last_one_as_new_as_people(
    human: float,
    distances: list[float],
    copying: list[int],
    kept: int,
    finished: Path,
    songs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards against a prior that copies, in place of an earlier one that did not; also across a resume."""
    DIFFUSION.prepare(tmp_path, finished / VAE_FILE)
    scores, hashes = iter(zip((2, 4, 6, 8, 10), distances, strict=True)), []

    def sampled_novelty(vae: Any, model: nn.Module, *args: Any) -> dict[str, float]:
        hashes.append(weights_hash(model.state_dict()))
        step, distance = next(scores)
        return {"distance": distance, "copies": int(step in copying)}

    monkeypatch.setattr(train_diffusion, "sampled_novelty", sampled_novelty)
    monkeypatch.setattr(train_diffusion, "human_distance", lambda *args: human)
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(7))
        assert DIFFUSION.run(tmp_path, songs, "--eval-interval", "2") == 130  # looks at 2, 4 and 6
    assert DIFFUSION.run(tmp_path, songs, "--eval-interval", "2") == 0
    best = read_checkpoint(tmp_path / DIFFUSION.best, DIFFUSION.kind)
    assert (best["step"], best["best"]["step"], best["best"]["distance"]) == (kept, kept, distances[kept // 2 - 1])
    assert len(set(hashes)) == 5 and weights_hash(best["weights"]) == hashes[kept // 2 - 1]
    looks = [line for line in log_lines(tmp_path / DIFFUSION.log) if "distance" in line]
    assert [(line["step"], line["distance"]) for line in looks] == list(zip((2, 4, 6, 8, 10), distances, strict=True))


def test_novelty_of_a_prior_is_that_of_what_it_draws(finished: Path) -> None:
    """Guards against novelty against other riffs: riffs that are known are copies, of which none lies apart."""
    vae, content = load_vae(finished / VAE_FILE)
    model, _ = load_diffusion(finished / DIFFUSION_FILE, vae)
    limits = RiffRules(vae.tokenizer, Demands(content["data"]["lowest"], content["data"]["highest"]))
    first = training.EVALUATION_SEED
    drawn, _ = sample_riffs(vae, model, range(first, first + train_diffusion.NOVELTY_SAMPLES), SampleConfig(), limits)
    heard = TrainingRiffs(drawn, [""] * len(drawn), vae.tokenizer)
    assert train_diffusion.sampled_novelty(vae, model, train_diffusion.Judge(heard, limits, 0.5)) == {"distance": 0.0, "copies": len(drawn)}
    known = training_riffs(content, vae.tokenizer)
    found = train_diffusion.sampled_novelty(vae, model, train_diffusion.Judge(known, limits, 0.5))
    assert found["distance"] == np.median(known.nearest(drawn).distance) > 0


# ---------------------------------------------------------------- evaluation


def test_validation_numbers_do_not_depend_on_the_chunk(finished: Path, songs: Path) -> None:
    """Guards against means of means, and a dict's length taken for a batch size."""
    vae, _ = load_vae(finished / VAE_FILE)
    riffs = load_riffs(dataclasses.replace(train_vae.TrainVAE().dataset, data=str(songs)), vae.tokenizer).tokens
    train = VAETrainConfig(free_bits=0.5, beta=0.3)
    numbers = [train_vae.evaluate(vae, riffs, train, CPU, chunk) for chunk in (256, 1, 3, 8)]
    assert set(numbers[0]) >= {"reconstruction", "kl", "negative_elbo", "objective", "accuracy"}
    for other in numbers[1:]:
        assert other == pytest.approx(numbers[0], rel=1e-5)
    assert numbers[0]["negative_elbo"] == pytest.approx(numbers[0]["reconstruction"] + numbers[0]["kl"])


def test_evaluation_leaves_mode_generator_and_weights_alone(finished: Path, songs: Path) -> None:
    """Guards against evaluation that turns dropout off for good, or draws from the global generator."""
    vae, _ = load_vae(finished / VAE_FILE)
    riffs = load_riffs(dataclasses.replace(train_vae.TrainVAE().dataset, data=str(songs)), vae.tokenizer).tokens
    before = weights_hash(vae.state_dict())
    table = latent_table(vae, riffs, CPU)
    denoiser = train_diffusion.LatentDiffusion(6, train_diffusion.TrainDiffusion().model)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    for mode in (True, False):
        vae.train(mode)
        first, again = (train_vae.evaluate(vae, riffs, VAETrainConfig(), CPU) for _ in range(2))
        assert first == again
        assert vae.training is mode
    assert train_diffusion.evaluate(denoiser, table, CPU) == train_diffusion.evaluate(denoiser, table, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[union-attr]
    assert weights_hash(vae.state_dict()) == before


def test_diffusion_quarters_cover_the_schedule_evenly(finished: Path, songs: Path) -> None:
    """Guards against quarters of unequal size, whose mean is not the loss."""
    vae, _ = load_vae(finished / VAE_FILE)
    riffs = load_riffs(dataclasses.replace(train_vae.TrainVAE().dataset, data=str(songs)), vae.tokenizer).tokens
    table = latent_table(vae, riffs, CPU)
    torch.manual_seed(0)
    numbers = train_diffusion.evaluate(train_diffusion.LatentDiffusion(6, train_diffusion.TrainDiffusion().model), table, CPU)
    assert np.mean([numbers[f"quarter_{q}"] for q in (1, 2, 3, 4)]) == pytest.approx(numbers["loss"], rel=1e-2)


def test_latent_table_holds_the_posterior_of_every_riff(finished: Path, songs: Path) -> None:
    """Guards against rows that are off by one: a look-up must equal encoding the riff; moments include the posterior's variance."""
    vae, _ = load_vae(finished / VAE_FILE)
    riffs = load_riffs(dataclasses.replace(train_vae.TrainVAE().dataset, data=str(songs)), vae.tokenizer).tokens[:4]
    table = latent_table(vae, riffs, CPU)
    noise = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    for riff in range(4):
        with torch.no_grad():
            mu, logvar = vae.encoder(torch.from_numpy(riffs[riff : riff + 1]))
        assert_close(table.draw(np.array([riff]), noise), mu + (0.5 * logvar).exp() * noise, atol=1e-5, rtol=1e-5)
    mean, std = table.moments()
    draws = table.mu + table.std * torch.randn(20_000, *table.mu.shape, generator=torch.Generator().manual_seed(1))
    assert_close(draws.mean(dim=(0, 1)), mean, atol=0.02, rtol=0)
    assert_close(draws.flatten(0, 1).std(dim=0), std, atol=0.02, rtol=0.02)


def test_the_prior_sees_every_training_riff_in_its_own_key(songs: Path) -> None:
    """Guards against a prior that learns transposed riffs, or held-out ones."""
    riff_data = load_riffs(dataclasses.replace(train_vae.TrainVAE().dataset, data=str(songs), mix=0.0, rotate=0.0), TokenizerConfig())
    seen = prior_tokens(riff_data, latents=1, transpose=0, seed=0)
    assert sorted(map(tuple, seen)) == sorted(map(tuple, riff_data.train_tokens))
    many = prior_tokens(riff_data, latents=5 * len(seen), transpose=3, seed=0)
    assert len(many) == 5 * len(seen)
    assert len({tuple(riff) for riff in many}) > len(seen)


def test_a_kl_near_zero_is_called_a_failed_run(songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a collapsed posterior that nobody mentions."""
    figures = dict.fromkeys(model_figures.FIGURE_LABELS, 0.5)
    train_vae.print_summary({"train": {**figures, "kl": 0.5}})
    assert "KL is near zero" in capsys.readouterr().out
    train_vae.print_summary({"train": {**figures, "kl": 5.0}})
    assert "KL is near zero" not in capsys.readouterr().out
    assert VAE.run(tmp_path, songs, "--steps", "2", "--lr", "1e-6") == 0  # too little for z to carry anything
    assert "KL is near zero" in capsys.readouterr().out


# ---------------------------------------------------------------- few riffs


@pytest.mark.parametrize(("count", "phrases", "held"), [(1, 5, 0), (5, 1, 1)])
def test_five_riffs_are_enough(count: int, phrases: int, held: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against evaluation that needs a full batch, and a split that leaves nothing; 64 riffs a step, of five."""
    folder = small_songs(tmp_path / "songs", songs=count, phrases=phrases)
    for script in (VAE, DIFFUSION):
        assert script.run(tmp_path / "run", folder, "--steps", "3", "--batch-size", "64") == 0
        splits = {line["split"] for line in log_lines(tmp_path / "run" / script.log)}
        assert ("held out" in splits) == bool(held)
    out = capsys.readouterr().out
    assert ("nothing is held out" in out) == (not held)
    assert f"{5 - held} to train on, {held} held out" in out
    assert "nan" not in out.lower()


# ---------------------------------------------------------------- processes


def test_two_processes_give_the_weights_of_one(tmp_path: Path, songs: Path) -> None:
    """Guards against batches that are shared wrongly, gradients that are summed, and dropout drawn by each process for itself."""
    flags = [*TINY, "--data", str(songs), *SIZES, *PACE, "--steps", "4", "--batch-size", "6", "--warmup", "0"]
    assert "dropout" in VAETrainConfig.__dataclass_fields__
    flags += ["--dropout", "0.3", "--word-dropout", "0.3"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, "train_vae.py", *flags, "--run-dir", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes" in done.stdout
    for name, more in (("one", []), ("other", ["--seed", "1"])):
        assert train_vae.main([*flags, "--run-dir", str(tmp_path / name), *more]) == 0
    two, one, other = (VAE.state(tmp_path / name)["weights"] for name in ("two", "one", "other"))

    def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        return max(float((a[name] - b[name]).abs().max()) for name in a)

    assert distance(two, one) < 2e-5
    assert distance(other, one) > 1e-2
    lines = [log_lines(tmp_path / name / VAE.log) for name in ("two", "one")]
    assert [(line["step"], line["split"]) for line in lines[0]] == [(line["step"], line["split"]) for line in lines[1]]


@BOTH
def test_a_batch_that_does_not_divide_among_the_processes_is_refused(
    script: Script, finished: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against examples that are counted twice or lost; refused before anything is joined or written."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    script.prepare(tmp_path, finished / VAE_FILE)
    before = bytes_below(tmp_path)
    with pytest.raises(UserError) as error:
        script.run(tmp_path, songs, "--batch-size", "7")
    assert "--batch-size 7" in one_line(error) and "2 processes" in one_line(error)
    assert bytes_below(tmp_path) == before


def test_shares_of_a_batch_are_the_batch() -> None:
    batch = torch.arange(12)
    shares = [training.Processes(rank, 3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == batch.tolist()
    assert {len(share) for share in shares} == {4}


# ---------------------------------------------------------------- schedules, averages, randomness, log


def test_cosine_lr_by_hand() -> None:
    """Guards against a warmup that starts at 0 or ends off the peak, and a decay that misses its end."""
    rates = [training.cosine_lr(step, steps=12, peak=2.0, final=0.1, warmup=4) for step in (0, 1, 3, 4, 6, 8, 12, 99)]
    quarter = 2 * (0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert rates == pytest.approx([0.5, 1.0, 2.0, 2.0, quarter, 1.1, 0.2, 0.2])
    assert training.cosine_lr(0, 10, 1.0, 0.0, warmup=0) == 1.0
    assert math.isfinite(training.cosine_lr(3, 2, 1.0, 0.1, warmup=2))  # a warmup as long as the run


def test_linear_rise_by_hand() -> None:
    assert [training.linear_rise(step, 4) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert training.linear_rise(0, 0) == 1


def test_ema_by_hand() -> None:
    """Guards against an average that starts at zero, has its two weights exchanged, or never leaves its start."""
    model = nn.BatchNorm1d(1)
    ema = training.EMA(model, decay=0.5)
    values, expected = [3.0, -1.0, 4.0, 2.0, 7.0, 1.0, 0.0, 5.0, 9.0], 1.0
    for step, value in enumerate(values):
        with torch.no_grad():
            model.weight.fill_(value)
            assert model.num_batches_tracked is not None
            model.num_batches_tracked.fill_(step)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert ema.average["weight"].item() == pytest.approx(expected, rel=1e-5)
        assert ema.average["num_batches_tracked"].item() == step
    assert (1 + 8) / (10 + 8) == 0.5  # so the ramp and its end were both seen


def test_sampling_gets_the_averaged_weights(finished: Path) -> None:
    """Guards against an average that is kept and never used."""
    model = read_checkpoint(finished / DIFFUSION_FILE, DIFFUSION_KIND)
    state = DIFFUSION.state(finished)
    if model["step"] == state["step"]:
        assert same(model["weights"], state["weights"])
    assert not same(state["weights"], state["raw_weights"])
    assert "raw_weights" not in model and "optimizer" not in model


def test_seeds_of_purposes_and_steps_differ() -> None:
    """Guards against noise that is the same at every step, or in two places."""
    seeds = {training.numpy_seed(*words) for words in [(0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 2, 0), (0, 2, 1), (1, 1, 0), (1, 2, 1)]}
    assert len(seeds) == 7
    assert training.numpy_seed(3, 1, 4) == training.numpy_seed(3, 1, 4)
    assert torch.equal(torch.rand(3, generator=training.generator(3, 1, 4)), torch.rand(3, generator=training.generator(3, 1, 4)))


def test_draws_of_a_batch_are_what_the_options_say() -> None:
    """Guards against dropout that is not scaled, shares that are upside down, and noise that repeats."""
    model = train_vae.MusicVAE(train_vae.TrainVAE().model, train_vae.TrainVAE().tokenizer)
    train = VAETrainConfig(dropout=0.25, word_dropout=0.1, scheduled_sampling=0.8, steps=100)
    draws = train_vae.make_draws(model, 50, 50, train, seed=0)
    for mask in (draws.encoder_mask, draws.decoder_mask, draws.output_mask):
        assert mask is not None
        assert_close(mask.unique(), torch.tensor([0, 1 / 0.75]))
        assert mask.mean().item() == pytest.approx(1, abs=0.02)
    assert draws.encoder_mask is not None and draws.decoder_mask is not None
    assert not torch.equal(draws.encoder_mask, draws.decoder_mask)
    assert draws.keep is not None and draws.keep.float().mean().item() == pytest.approx(0.9, abs=0.03)
    assert draws.from_model is not None and draws.from_model.float().mean().item() == pytest.approx(0.4, abs=0.06)
    again, other = (train_vae.make_draws(model, 50, step, train, seed=0) for step in (50, 51))
    assert draws.noise is not None and again.noise is not None and other.noise is not None
    assert torch.equal(draws.noise, again.noise) and not torch.equal(draws.noise, other.noise)
    plain = train_vae.make_draws(model, 50, 0, VAETrainConfig(dropout=0, word_dropout=0, scheduled_sampling=0), seed=0)
    assert plain.encoder_mask is None and plain.from_model is None and plain.keep is None
    assert plain.noise is not None and torch.equal(plain.noise, train_vae.make_draws(model, 50, 0, train, seed=0).noise)


def test_loss_is_reconstruction_plus_beta_times_kl() -> None:
    """Guards against a beta on the wrong term, and parts that do not add up to the loss."""
    torch.manual_seed(0)
    model = train_vae.MusicVAE(train_vae.TrainVAE().model, train_vae.TrainVAE().tokenizer)
    with torch.no_grad():
        model.encoder.mu.bias.fill_(0.7)
    tokens = torch.randint(129, (5, 32), generator=torch.Generator().manual_seed(0))
    for beta, free_bits in ((0.0, 0.0), (0.3, 0.0), (0.3, 4.0)):
        loss, parts = train_vae.training_loss(model, model, tokens, train_vae.Draws(), beta, free_bits)
        expected = parts["reconstruction"] + beta * max(0.0, parts["kl"] - free_bits * math.log(2))
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert parts["loss"] == pytest.approx(loss.item())
        assert parts["kl_weighted"] == pytest.approx(parts["loss"] - parts["reconstruction"], abs=1e-3)


def test_log_holds_every_loss_part_raw_and_weighted(finished: Path) -> None:
    train = [line for line in log_lines(finished / VAE.log) if line["split"] == "train"]
    assert [line["step"] for line in train] == [2, 4, 6, 8, 10]
    assert set(train[0]) >= {"loss", "reconstruction", "kl", "kl_weighted", "beta", "lr", "grad_norm"}
    held = [line for line in log_lines(finished / VAE.log) if line["split"] == "held out"]
    assert [line["step"] for line in held] == [3, 6, 9, 10]


def test_a_full_disk_while_training_leaves_the_last_state(
    finished: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a run that ends with neither the old nor the new checkpoint."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", stop_after(4))
        VAE.run(tmp_path, songs)
    before = bytes_below(tmp_path)

    def full_disk(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            VAE.run(tmp_path, songs)
    after = bytes_below(tmp_path)
    assert after[VAE.last] == before[VAE.last]
    assert after[VAE.best] == before[VAE.best]
    assert not [name for name in after if name.endswith(".tmp")]
    assert VAE.run(tmp_path, songs) == 0
    assert same(trained(VAE.state(tmp_path)), trained(VAE.state(finished)))


def test_save_checkpoint_is_what_the_scripts_use() -> None:
    """Both scripts write through the one function that is tested to be atomic."""
    assert train_vae.save_checkpoint is save_checkpoint and train_diffusion.save_checkpoint is save_checkpoint


def test_a_closed_pipe_does_not_end_a_training(songs: Path, tmp_path: Path) -> None:
    """Guards against `train_vae.py | head` that leaves no model and says nothing."""
    flags = [*TINY, "--run-dir", str(tmp_path), "--data", str(songs), *SIZES, *PACE, "--log-interval", "1"]
    process = subprocess.Popen([sys.executable, "-u", "train_vae.py", *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert any(line.startswith(b"step") for line in process.stdout)
    process.stdout.close()
    process.wait(timeout=60)
    assert (tmp_path / VAE_FILE).exists()
    assert VAE.state(tmp_path)["step"] == 10


def test_one_riff_goes_through_the_whole_chain(tmp_path: Path) -> None:
    """Guards against pictures and figures that need two."""
    import visualize_tokens

    folder = small_songs(tmp_path / "songs", songs=1, phrases=1)
    assert VAE.run(tmp_path / "run", folder) == 0
    assert DIFFUSION.run(tmp_path / "run", folder) == 0
    assert visualize_tokens.main(["--run-dir", str(tmp_path / "run"), "--num-outputs", "1", "--sampling-steps", "3"]) == 0


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize(
    ("most", "took", "chosen"),
    [
        (1, {}, 1),
        (2, {1: 1.0, 2: 0.6}, 2),
        (2, {1: 1.0, 2: 30.0}, 1),  # somebody else has the other core
        (8, {1: 1.0, 2: 0.5, 4: 0.48}, 2),  # not worth two cores more
        (8, {1: 1.0, 2: 0.5, 4: 0.3, 8: 0.2}, 8),
        (6, {1: 1.0, 2: 0.5, 4: 0.3}, 4),
    ],
)
def test_threads_are_doubled_while_it_is_worth_it(most: int, took: dict[int, float], chosen: int) -> None:
    asked = []

    def seconds(threads: int) -> float:
        asked.append(threads)
        return took[threads]

    found, why = training.worthwhile_threads(most, seconds)
    assert found == chosen and asked == list(took)
    assert why == "" if most == 1 else why.startswith(f" (measured: 2 are {1 / took[2]:.1f}")


@pytest.mark.parametrize(("value", "threads"), [("2", 2), ("2,1", 2), (" 1 ", 1)])
def test_threads_that_somebody_asked_for_are_not_measured(value: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(training, "worthwhile_threads", lambda *_: pytest.fail("measured"))
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    try:
        said = training.choose_threads(0)
        assert said == f"{threads} thread{'s' * (threads > 1)}, as OMP_NUM_THREADS says" and torch.get_num_threads() == threads
        assert training.choose_threads(3 - threads).endswith(", as asked") and torch.get_num_threads() == 3 - threads
        assert training.choose_threads(0, training.Processes(0, 2)) == "1 thread" and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("value", ["", "0", "many", "-1"])
def test_what_asks_for_no_threads_is_measured(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(training, "worthwhile_threads", lambda *_: (1, " (measured)"))
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    try:
        assert training.choose_threads(0) == "1 thread (measured)"
    finally:
        torch.set_num_threads(before)
