"""Train a VAE: on a folder of two-bar riffs, or with a preset of the MusicVAE family on windows of whole songs.

    python train_vae.py [--data midi_riffs] [--preset riff_2bar] [--run-dir runs/riff_2bar] [--steps N] ...

Run the same command again to resume. Writes to the run folder: riff_vae.pth (the model, best on the held-out songs),
riff_vae_last.pth (what a resumed run needs), train_vae.jsonl (the log), data_table.csv (what became of each file).
Several processes: torchrun --nproc_per_node 2 train_vae.py
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from presets import TrainVAE, answer_early, parse_options

if __name__ == "__main__":
    answer_early(partial(parse_options, TrainVAE))

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import training
from checkpoints import VAE_KIND, known_riffs, load_weights, read_checkpoint, save_checkpoint
from config import BASE_MODEL, VAE_FILE, UserError, VAETrainConfig, run_script
from dataset import plural, save_table
from examples import load_examples
from latents import encoder_steps
from measures.model_figures import DRAWS, evaluate, final_figures, print_summary
from models import Draws, MusicVAE, kl_cost, kl_nats
from presets import format_options
from resuming import RunFiles, find_state, make_way, plain_options, read_initial, take_over

LAST_FILE = "riff_vae_last.pth"
LOG_FILE = "train_vae.jsonl"
# Onset accuracy on held-out songs by number of training riffs, as the learning curve of the README found it.
LEARNING_CURVE = {
    "from the base model": {8: 0.81, 16: 0.82, 32: 0.86, 64: 0.87, 128: 0.90},
    "from scratch": {8: 0.18, 16: 0.17, 32: 0.20, 64: 0.35, 128: 0.66},
}


# ---------------------------------------------------------------- what to expect


def expectation(riffs: int, init_from: str) -> str:
    """What so many training riffs are good for, in a sentence, read off the learning curve (of the default riffs and base model)."""
    start = "from scratch" if init_from == "none" else "from the base model"
    sizes, shares = zip(*LEARNING_CURVE[start].items(), strict=True)
    share = float(np.interp(np.log2(riffs), np.log2(sizes), shares))
    few = f"{plural(riffs, 'riff')} {'is' if riffs == 1 else 'are'} too few to learn a style; " if riffs < sizes[0] else ""
    many = "" if riffs >= sizes[-1] else f", {sizes[-1]} gave {shares[-1]:.0%}"
    number = min(max(riffs, sizes[0]), sizes[-1])
    other = f" ({init_from} may do better or worse)" if init_from not in ("none", BASE_MODEL) else ""
    return f"what to expect, {start}{other}: {few}{number} of our riffs gave back {share:.0%} of the notes of songs never heard{many}"


def fine_tuning_remark(log: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> str:
    """What fine-tuning did for the held-out songs, in a sentence; "" where nothing can be said.

    Args:
        log: lines of the run's log.
        best: of the model that was kept: step, reconstruction and kl in nats per riff.
    """
    before = next((line for line in log if line["step"] == 0 and line["split"] == "held out"), None)
    if before is None or "kl" not in best:
        return ""
    if best["step"] == 0:
        return "fine-tuning brought nothing: the weights it started from describe the held-out songs best; try a lower --lr, or more riffs"
    said = f"fine-tuning took the held-out songs from {before['reconstruction']:.1f} + {before['kl']:.1f} nats (reconstruction + KL) "
    said += f"to {best['reconstruction']:.1f} + {best['kl']:.1f}"
    worse = best["reconstruction"] > before["reconstruction"]
    return said + "; they come back less exactly than before: a lower --beta, or more riffs, would help" * worse


# ---------------------------------------------------------------- one batch, one step


def make_draws(model: MusicVAE, batch_size: int, step: int, train: VAETrainConfig, seed: int, device: torch.device | str = "cpu") -> Draws:
    """The random numbers of one global batch, drawn where they are used: the same on all CPUs, others on each kind of GPU."""
    rng = training.generator(seed, DRAWS, step, device=device)
    shape = (batch_size, model.tokenizer.steps)
    inputs, outputs = model.embedding.size, model.config.decoder_size

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=rng, device=device)

    def mask(size: int) -> Tensor | None:
        return (uniform(*shape, size) >= train.dropout).float() / (1 - train.dropout) if train.dropout else None

    noise = torch.randn(batch_size, model.config.z_size, generator=rng, device=device)
    keep = uniform(*shape) >= train.word_dropout  # drawn in any case, so that what is drawn after it stays the same
    draws = Draws(noise, keep if train.word_dropout else None, mask(inputs), mask(inputs), mask(outputs))
    share = train.scheduled_sampling
    share *= training.inverse_sigmoid(step, train.sampling_rate) if train.sampling_rate else training.linear_rise(step, train.steps)
    if share == 0:
        return draws
    return dataclasses.replace(draws, from_model=uniform(*shape) < share, uniform=uniform(*shape, model.embedding.draws))


def training_loss(
    model: MusicVAE,
    engine: torch.nn.Module,
    steps: Tensor,
    draws: Draws,
    beta: float,
    free_bits: float,
    given: Tensor | None = None,
    precision: torch.dtype = torch.float32,
) -> tuple[Tensor, dict[str, float]]:
    """Loss on some examples, mean over them.

    Args:
        engine: the model, or what shares it out to several processes.
        steps: [B, T] and more, what is to be decoded.
        beta: weight of the KL now.
        given: what is encoded, if not the same.
        precision: of the recurrent layers.

    Returns:
        the loss, and its parts for the log: loss, reconstruction and kl in nats per riff; kl_weighted, accuracy.
    """
    with torch.autocast(steps.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        logits, mu, logvar = engine(steps, draws, given)
    reconstruction = model.reconstruction_nats(logits, steps).mean()
    kl = kl_nats(mu, logvar)
    weighted = beta * kl_cost(kl, free_bits).mean()
    loss = reconstruction + weighted
    accuracy = model.embedding.right(model.embedding.likeliest(logits.detach()), steps).float().mean()
    parts = torch.stack([loss, reconstruction, kl.sum(dim=1).mean(), weighted, accuracy]).detach()
    names = ("loss", "reconstruction", "kl", "kl_weighted", "accuracy")
    return loss, dict(zip(names, parts.tolist(), strict=True))


def learning_rate(step: int, train: VAETrainConfig) -> float:
    """Of the next step."""
    if train.lr_decay:
        return training.exponential_lr(step, train.lr, train.lr_final, train.lr_decay, train.warmup)
    return training.cosine_lr(step, train.steps, train.lr, train.lr_final, train.warmup)


# ---------------------------------------------------------------- main


def initial_weights(path: str, model: MusicVAE) -> dict[str, Any]:
    """Start from the weights of another run (fine-tuning); its tokens must be the same.

    Returns:
        the riffs those weights have seen.

    Raises:
        UserError: other tokens, or weights of another shape.
    """
    content = read_initial(path, VAE_KIND)
    ours = dataclasses.asdict(
        dataclasses.replace(model.tokenizer, policy=content["tokenizer"].get("policy", "lowest"))
    )  # how files are read
    different = [
        f"{name} {content['tokenizer'].get(name)} -> {value}" for name, value in ours.items() if content["tokenizer"].get(name) != value
    ]
    if different:
        raise UserError(
            f"{path}: was trained on other tokens ({', '.join(different)}); use the preset it was trained with, or --init-from none"
        )
    load_weights(model, content["weights"], path)
    return content["known"]


def main(argv: Sequence[str] | None = None) -> int:
    # ---- config and run folder
    options = parse_options(TrainVAE, argv)
    if options.run.dry_run:
        print(format_options(options))
        return 0
    run, train = options.run, options.train
    folder = Path(run.run_dir)
    files = RunFiles(folder / LAST_FILE, folder / VAE_FILE, folder / LOG_FILE)

    # ---- engine and seed
    processes = training.join_processes(train.batch_size)
    training.keep_freed_memory()
    device = training.choose_device(run.device)
    threads = training.choose_threads(run.threads, processes, options.model.encoder_size)
    precision = training.choose_precision(train.precision, device)
    training.announce(run, device, threads, processes, precision)

    # ---- data
    begun = (files.last.exists() or files.best.exists()) and not run.restart
    examples = processes.first(
        lambda: load_examples(options.dataset, options.songs, options.tokenizer, folder, run.seed, may_change=not begun)
    )
    data, held_out, batch = examples.data, examples.data.held_out_tokens, examples.batches(device)
    noun = "window" if options.songs.songs else "riff"
    if processes.is_main:
        print(examples.summary)

    # ---- model and optimizer
    torch.manual_seed(run.seed)
    model = MusicVAE(options.model, options.tokenizer).to(device)
    optimizer = training.make_optimizer(model, train.lr, train.weight_decay)

    # ---- resume
    config = dataclasses.asdict(options.model)
    same = {
        "tokenizer": (dataclasses.asdict(options.tokenizer), "the tokens"),
        "data_hash": (data.fingerprint, f"the {noun}s in {data.folder}"),
    }
    state = find_state(files, VAE_KIND, options, same, processes)
    step, best, inherited = 0, {"step": None, "objective": float("inf")}, None
    fine_tuning = state is None and train.init_from != "none"
    if state is not None:
        load_weights(model, state["weights"], files.last)
        step, best = take_over(optimizer, state, options, processes.is_main)
    elif fine_tuning:
        inherited = initial_weights(train.init_from, model)
    known = state["known"] if state is not None else known_riffs(*examples.known, inherited)
    make_way(files, options, processes)
    if processes.is_main:
        if state is None and not options.songs.songs:
            print(expectation(examples.count, train.init_from))
        folder.mkdir(parents=True, exist_ok=True)
        save_table(data.rows, folder / "data_table.csv")
    log = training.MetricLog(files.log, processes, step if state else None)
    engine: torch.nn.Module = DistributedDataParallel(model) if processes.world > 1 else model

    defaults, data_hash = data.defaults(), data.fingerprint

    def content() -> dict[str, Any]:
        return {
            "kind": VAE_KIND,
            "tokenizer": dataclasses.asdict(options.tokenizer),
            "model": config,
            "weights": {name: value.detach().cpu() for name, value in model.state_dict().items()},
            "data": {**dataclasses.asdict(data.config), **defaults, "riffs": examples.count},
            "songs": dataclasses.asdict(examples.songs),
            "data_hash": data_hash,
            "known": known,
            "step": step,
            "best": best,
            "options": plain_options(options),
        }

    def given_up() -> bool:
        """Whether the held-out songs have seen no improvement for too long, up to the last look at them."""
        if best["step"] is None or not len(held_out):
            return False
        since = max(best["step"], train.beta_anneal)  # while beta rises, the objective at the full beta may rise too
        return training.out_of_patience(step, run.eval_interval, since, train.patience)

    def look() -> None:
        """Judge the model on the held-out songs, and keep it if it is the best so far (the newest, with nothing held out)."""
        nonlocal best
        held = evaluate(model, held_out, train, device) if len(held_out) else None
        held = processes.from_main(held)  # one judgement for all: a last digit must not part them
        if held is not None:
            log.write(step, held, "held out")
        if held is None or held["objective"] < best["objective"]:
            best = {"step": step, **(held or {"objective": float("inf")})}
            if processes.is_main:
                save_checkpoint(files.best, content())
            save_last()  # a model never stands without the state to go on from

    def save_last() -> None:
        if processes.is_main:
            save_checkpoint(files.last, {**content(), "optimizer": optimizer.state_dict()})

    # ---- loop
    if fine_tuning and len(held_out):
        look()  # the weights it starts from may be the best there are
    model.train()
    begin, done_before = time.perf_counter(), step
    with training.StopRequest() as stop:
        while step < train.steps and not given_up():
            steps = batch(step, train.batch_size)
            draws = make_draws(model, train.batch_size, step, train, run.seed, device)
            steps, given = processes.share(steps), processes.share(encoder_steps(steps, model.tokenizer))
            steps, given, draws = steps.to(device), given.to(device), draws.map(lambda x: processes.share(x).to(device))
            beta = train.beta * (1 - train.beta_rate**step if train.beta_rate else training.linear_rise(step, train.beta_anneal))
            loss, parts = training_loss(model, engine, steps, draws, beta, train.free_bits, given, precision)
            lr = learning_rate(step, train)
            norm = training.clip_and_step(engine, optimizer, loss, lr, train.grad_clip)
            training.require_finite(parts["loss"], norm, step, files.last)
            step += 1
            if step % run.log_interval == 0 or step == train.steps:
                parts = dict(zip(parts, processes.mean(torch.tensor(list(parts.values()))).tolist(), strict=True))
                rate = (step - done_before) * train.batch_size / (time.perf_counter() - begin)
                log.write(step, {**parts, "beta": beta, "lr": lr, "grad_norm": norm, "riffs_per_second": rate})
            if step % run.eval_interval == 0 or step == train.steps:
                look()
            stopping = processes.any(stop.asked)
            if step % run.save_interval == 0 or step == train.steps or stopping or given_up():
                save_last()
            if stopping:
                break

    # ---- summary
    del engine
    if step < train.steps and not given_up():
        if processes.is_main:
            print(f"stopped at step {step} of {train.steps}; run the same command again (without --restart) to go on")
        processes.close()
        return 130
    if processes.is_main:
        if step < train.steps:
            print(f"stopped early: no improvement on the held-out songs since step {best['step']} (--patience {train.patience})")
        load_weights(model, read_checkpoint(files.best, VAE_KIND)["weights"], files.best)
        figures = final_figures(model, data.shown, train, device, apart=0.5 * options.songs.songs)
        print_summary(figures, noun)
        if "onset_accuracy" in figures.get("held out", {}):
            share = figures["held out"]["onset_accuracy"]
            print(f"\nit gives back {share:.0%} of the notes of the held-out songs (onset accuracy, free-running)")
        remark = fine_tuning_remark(training.read_log(files.log), best)
        if remark:
            print(remark)
        why = "" if len(held_out) else " (the last; nothing was held out)"
        print(f"\n{files.best}: the model of step {best['step']}{why or f', best on the held-out songs of {step}'}")
    processes.close()
    return 0


if __name__ == "__main__":
    run_script(main)
