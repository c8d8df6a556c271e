"""Train the latent diffusion model on the latents of a run's VAE.

    python train_diffusion.py [--preset riff_2bar] [--run-dir runs/riff_2bar] [--steps N] ...

Run the same command again to resume. Reads riff_vae.pth and the riffs it was trained on; writes to the run folder:
latent_diffusion.pth (the model: averaged weights, of the last step whose riffs are as new as people's), latent_diffusion_last.pth
(what a resumed run needs) and train_diffusion.jsonl (the log). Several processes: torchrun --nproc_per_node 2 train_diffusion.py
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from presets import TrainDiffusion, answer_early, parse_options

if __name__ == "__main__":
    answer_early(partial(parse_options, TrainDiffusion))

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import training
from checkpoints import (
    DIFFUSION_KIND,
    load_same_riffs,
    load_same_windows,
    load_vae,
    load_weights,
    read_checkpoint,
    require_kind,
    save_checkpoint,
    songs_config,
    weights_hash,
)
from config import DIFFUSION_FILE, VAE_FILE, SampleConfig, UserError, run_script
from dataset import ExampleStream
from diffusion import LatentDiffusion
from latents import LatentTable, latent_table, prior_tokens, prior_windows
from measures.novelty import TrainingRiffs, human_distance
from models import MusicVAE
from presets import format_options, is_language_model
from resuming import RunFiles, find_state, make_way, plain_options, read_initial, take_over
from sampling import sample_riffs
from steering.attributes import measure_all
from steering.rules import Demands, RiffRules

POSTERIOR, TIME, NOISE, SHOWN = 1, 2, 3, 4  # purposes of random numbers
EVALUATION_DRAWS = 4096  # (latent, time, noise) triples of one evaluation, at least
NOVELTY_SAMPLES = 512  # riffs drawn at each evaluation to see how new they are
LAST_FILE = "latent_diffusion_last.pth"
LOG_FILE = "train_diffusion.jsonl"


# ---------------------------------------------------------------- one batch, one step


def make_batch(table: LatentTable, stream: ExampleStream, step: int, batch_size: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """The latents of one global batch, drawn afresh from q(z|x): [batch_size, Z]; and the rows they came from, int64 [batch_size]"""
    noise = torch.randn(batch_size, table.mu.shape[1], generator=training.generator(seed, POSTERIOR, step))
    rows = stream.batch(step, batch_size)[0]
    return table.draw(rows, noise), rows


def shown_conditions(values: Tensor, step: int, unconditional: float, seed: int) -> Tensor:
    """What the denoiser is told of a batch: of some examples nothing, of the others each attribute with even chances.

    Args:
        values: [B, A], normalised.
        unconditional: share of examples of which nothing is told.

    Returns:
        [B, A], NaN where hidden.
    """
    rng = training.generator(seed, SHOWN, step)
    shown = torch.rand(values.shape, generator=rng) < 0.5
    shown &= torch.rand(len(values), 1, generator=rng) >= unconditional
    return values.masked_fill(~shown, math.nan)


def training_loss(
    model: torch.nn.Module,
    z: Tensor,
    conditions: Tensor | None,
    step: int,
    num_timesteps: int,
    seed: int,
    processes: training.Processes,
    device: torch.device,
) -> Tensor:
    """Loss of one step on this process' share of the batch. z: [batch_size, Z], normalised; conditions: [batch_size, A] -> scalar"""
    t = torch.randint(num_timesteps, (len(z),), generator=training.generator(seed, TIME, step))
    eps = torch.randn(z.shape, generator=training.generator(seed, NOISE, step))
    z, t, eps = (processes.share(x).to(device) for x in (z, t, eps))
    return model(z, t, eps, None if conditions is None else processes.share(conditions).to(device)).mean()


@torch.inference_mode()
def evaluate(model: LatentDiffusion, table: LatentTable, device: torch.device) -> dict[str, float]:
    """Loss on some riffs' latents, in all and by quarter of t (quarter 1 has the least noise), with numbers of its own."""
    some = slice(EVALUATION_DRAWS)  # a training table may be larger; its rows are in random order
    draws = -(-EVALUATION_DRAWS // len(table.mu[some]))
    mu, std = table.mu[some].repeat(draws, 1), table.std[some].repeat(draws, 1)
    rng = training.generator(training.EVALUATION_SEED, NOISE)
    z = mu + std * torch.randn(mu.shape, generator=rng)
    total = len(mu)
    t = (torch.arange(total) * model.config.num_timesteps) // total  # every part of the schedule equally often
    t = t[torch.randperm(total, generator=rng)]
    losses = model(model.normalize(z.to(device)), t.to(device), torch.randn(mu.shape, generator=rng).to(device)).cpu()
    quarter = t * 4 // model.config.num_timesteps
    return {"loss": float(losses.mean()), **{f"quarter_{q + 1}": float(losses[quarter == q].mean()) for q in range(4)}}


@dataclasses.dataclass(frozen=True)
class Judge:
    """What new riffs are held against while the prior is trained: riffs alone, of windows of songs the held-out loss judges."""

    known: TrainingRiffs
    rules: RiffRules
    human: float  # distance of people's riffs to the nearest of another song, median; NaN with one song


def sampled_novelty(vae: MusicVAE, model: LatentDiffusion, judge: Judge, seed: int = training.EVALUATION_SEED) -> dict[str, float]:
    """How new riffs are, drawn as generate.py draws them by default but for its refusal of copies.

    Returns:
        distance: median distance to their nearest training riffs, 0..1; copies: how many are a training riff, exact or transposed.
    """
    tokens, _ = sample_riffs(vae, model, range(seed, seed + NOVELTY_SAMPLES), SampleConfig(), judge.rules)
    nearest = judge.known.nearest(tokens)
    return {"distance": float(np.median(nearest.distance)), "copies": int(nearest.copy.sum())}


def as_new(shown: Mapping[str, float], judge: Judge | None) -> bool:
    """Whether riffs are as far from the training riffs as people's, as far as that can be told."""
    return judge is None or bool(np.isnan(judge.human) or (shown["distance"] >= judge.human and not shown["copies"]))


def better(shown: Mapping[str, float], best: Mapping[str, Any], judge: Judge | None, held_out: bool) -> bool:
    """Whether a model is to be kept in place of the best so far.

    Later models are truer to the style, up to copying it: of riffs the last that is as new as people's are is kept, or the newest one.
    Windows of songs are many, and the held-out loss tells.
    """
    if best["step"] is None:
        return True
    if judge is None:
        return not held_out or shown["loss"] < best["loss"]
    newer = (-shown["copies"], shown["distance"]) > (-best["copies"], best["distance"])
    return as_new(shown, judge) or (newer and not best["as_new"])


# ---------------------------------------------------------------- main


def prior_data(
    vae: MusicVAE, vae_content: Mapping[str, Any], options: TrainDiffusion, processes: training.Processes
) -> tuple[np.ndarray, np.ndarray, str, Judge | None]:
    """What the prior is trained on, says what it is.

    Returns:
        steps to encode, held-out steps, the data's fingerprint, and of riffs what judges new ones.

    Raises:
        UserError: the VAE was trained on something else.
    """
    train, path, tokenizer = options.train, Path(options.run.run_dir) / VAE_FILE, vae.tokenizer
    if songs_config(vae_content, path).songs:
        windows = processes.first(lambda: load_same_windows(vae_content, tokenizer, options.data, path, may_make=True))
        if train.prior_transpose or options.model.condition_names:
            flag = "--prior-transpose" if train.prior_transpose else "--conditions"
            raise UserError(f"{flag}: is for riffs; {path} is a VAE of windows, whose prior learns what the VAE did; leave it out")
        tokens = prior_windows(windows, train.latents, options.run.seed)
        if processes.is_main:
            print(f"data: {len(windows.train_index)} windows of {windows.folder}, as {len(tokens)} latents")
        order = np.random.default_rng(0).permutation(len(windows.held_out_tokens))  # a look may be at the first of them alone
        return tokens, windows.held_out_tokens[order], windows.fingerprint, None
    riff_data = load_same_riffs(vae_content, tokenizer, options.data, path)
    tokens = prior_tokens(riff_data, train.latents, train.prior_transpose, options.run.seed)
    judge = Judge(
        TrainingRiffs(riff_data.train_tokens, riff_data.train_names, tokenizer),
        RiffRules(tokenizer, Demands(vae_content["data"]["lowest"], vae_content["data"]["highest"])),
        human_distance(riff_data.train_tokens, riff_data.train_song, tokenizer),
    )
    if processes.is_main:
        riffs, distinct = len(riff_data.train_tokens), len(np.unique(tokens, axis=0))
        print(f"data: {riffs} riffs of {riff_data.folder}, mixed to {distinct} different ones, as {len(tokens)} latents")
        if not np.isnan(judge.human):
            print(
                f"      riffs lie {judge.human:.3f} from the nearest of another song (median): new ones shall not lie closer, nor be copies"
            )
    return tokens, riff_data.held_out_tokens, riff_data.fingerprint, judge


def initial_weights(path: str, model: LatentDiffusion) -> None:
    """Start from the weights of another run (fine-tuning); the normalisation stays that of this run's latents.

    Raises:
        UserError: weights of another shape.
    """
    weights = read_initial(path, DIFFUSION_KIND)["weights"]
    own = {name: value for name, value in model.state_dict().items() if name.startswith(("latent_", "condition_"))}
    load_weights(model, {**weights, **own}, path)


def main(argv: Sequence[str] | None = None) -> int:
    # ---- config and run folder
    options = parse_options(TrainDiffusion, argv)
    if options.run.dry_run:
        print(format_options(options))
        return 0
    run, train = options.run, options.train
    folder = Path(run.run_dir)
    files = RunFiles(folder / LAST_FILE, folder / DIFFUSION_FILE, folder / LOG_FILE)

    # ---- engine and seed
    processes = training.join_processes(train.batch_size)
    training.keep_freed_memory()
    device = training.choose_device(run.device)
    threads = training.choose_threads(run.threads, processes)

    # ---- data: the latents of the VAE
    vae, vae_content = load_vae(folder / VAE_FILE, str(device))
    if not is_language_model(options.preset):
        require_kind(vae, vae_content, options.preset, folder / VAE_FILE)
    vae_hash = weights_hash(vae.state_dict())
    training.announce(run, device, threads, processes)
    tokens, held_out, data_hash, judge = prior_data(vae, vae_content, options, processes)
    table = latent_table(vae, tokens, device)
    held_table = latent_table(vae, held_out, device) if len(held_out) else None
    human = judge.human if judge else math.nan
    rows = np.zeros(len(tokens), dtype=np.int64)
    stream = ExampleStream(rows, rows, run.seed)

    # ---- model, optimizer, averaged weights
    torch.manual_seed(run.seed)
    model = LatentDiffusion(vae.config.z_size, options.model)
    model.latent_mean, model.latent_std = table.moments()
    labels = None
    if names := options.model.condition_names:
        values = torch.from_numpy(measure_all(tokens, vae.tokenizer, names)).float()
        model.condition_mean, model.condition_std = values.mean(dim=0), values.std(dim=0).clamp(min=1e-3)
        labels = model.normalize_conditions(values)
    model.to(device)
    optimizer = training.make_optimizer(model, train.lr, train.weight_decay)

    # ---- resume
    config = dataclasses.asdict(options.model)
    sampled = [train.latents, train.prior_transpose]
    same = {
        "vae_hash": (vae_hash, f"the VAE {folder / VAE_FILE}"),
        "data_hash": (data_hash, "the music that the VAE was trained on"),
        "table": (sampled, "--latents or --prior-transpose"),
    }
    state = find_state(files, DIFFUSION_KIND, options, same, processes)
    step, best = 0, {"step": None, "loss": float("inf"), "distance": 0.0, "copies": 0, "as_new": False}
    if state is None and train.init_from != "none":
        initial_weights(train.init_from, model)
    ema = training.EMA(model, train.ema_decay)
    if state is not None:
        load_weights(model, state["raw_weights"], files.last)
        ema.average = {name: value.to(device) for name, value in state["weights"].items()}
        step, best = take_over(optimizer, state, options, processes.is_main)
    make_way(files, options, processes)
    log = training.MetricLog(files.log, processes, step if state else None)
    engine: torch.nn.Module = DistributedDataParallel(model) if processes.world > 1 else model
    averaged = LatentDiffusion(vae.config.z_size, options.model).to(device)

    def content() -> dict[str, Any]:
        return {
            "kind": DIFFUSION_KIND,
            "model": config,
            "z_size": vae.config.z_size,
            "weights": {name: value.cpu() for name, value in ema.average.items()},
            "vae_hash": vae_hash,
            "table": sampled,
            "data_hash": data_hash,
            "step": step,
            "best": best,
            "options": plain_options(options),
        }

    def save_last() -> None:
        if processes.is_main:
            raw = {name: value.detach().cpu() for name, value in model.state_dict().items()}
            save_checkpoint(files.last, {**content(), "raw_weights": raw, "optimizer": optimizer.state_dict()})

    # ---- loop
    begin, done_before = time.perf_counter(), step
    with training.StopRequest() as stop:
        while step < train.steps:
            z, chosen = make_batch(table, stream, step, train.batch_size, run.seed)
            z = model.normalize(z.to(device)).cpu()
            told = None if labels is None else shown_conditions(labels[chosen], step, train.unconditional, run.seed)
            loss = training_loss(engine, z, told, step, options.model.num_timesteps, run.seed, processes, device)
            lr = training.cosine_lr(step, train.steps, train.lr, train.lr_final, train.warmup)
            norm = training.clip_and_step(engine, optimizer, loss, lr, train.grad_clip)
            training.require_finite(float(loss.detach()), norm, step, files.last)
            ema.update(step)
            step += 1
            if step % run.log_interval == 0 or step == train.steps:
                mean_loss = float(processes.mean(loss.detach().reshape(1)))
                rate = (step - done_before) * train.batch_size / (time.perf_counter() - begin)
                log.write(step, {"loss": mean_loss, "lr": lr, "grad_norm": norm, "latents_per_second": rate})
            if step % run.eval_interval == 0 or step == train.steps:
                averaged.load_state_dict(ema.average)
                shown = evaluate(averaged, held_table or table, device)
                novelty = processes.from_main(sampled_novelty(vae, averaged, judge)) if judge else {}
                shown |= novelty
                log.write(step, shown, "held out" if held_table else "averaged")
                if better(shown, best, judge, held_table is not None):
                    best = {"step": step, "loss": shown["loss"], **novelty, "as_new": as_new(shown, judge)}
                    if processes.is_main:
                        save_checkpoint(files.best, content())
                    save_last()  # a model never stands without the state to go on from
            stopping = processes.any(stop.asked)
            if step % run.save_interval == 0 or step == train.steps or stopping:
                save_last()
            if stopping:
                break

    # ---- summary
    del engine
    if step < train.steps:
        if processes.is_main:
            print(f"stopped at step {step} of {train.steps}; run the same command again (without --restart) to go on")
        processes.close()
        return 130
    if processes.is_main:
        averaged.load_state_dict(read_checkpoint(files.best, DIFFUSION_KIND)["weights"])
        figures = {"train": evaluate(averaged, table, device)} | (
            {"held out": evaluate(averaged, held_table, device)} if held_table else {}
        )
        print(f"\n{'loss, averaged weights':24s}" + "".join(f"{name:>10s}" for name in figures))
        for key in next(iter(figures.values())):
            print(f"{key:24s}" + "".join(f"{values[key]:10.4f}" for values in figures.values()))
        why = (
            "the lowest loss on held-out songs, or the last with none"
            if judge is None
            else "the last; a single song does not tell how far people's riffs lie apart"
            if np.isnan(human)
            else f"its riffs lie {best['distance']:.3f} from their nearest training riffs"
        )
        print(f"\n{files.best}: the model of step {best['step']} ({why})")
        if not best["as_new"]:
            print(
                f"no step's riffs lay as far from the training riffs as people's ({human:.3f}), or none without copies: the one that came "
                f"nearest was kept. Later ones are truer to the style, but closer to your riffs; more riffs would help"
            )
    processes.close()
    return 0


if __name__ == "__main__":
    run_script(main)
