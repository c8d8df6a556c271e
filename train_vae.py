"""Train the riff VAE on a folder of two-bar riffs.

    python train_vae.py [--data midi_riffs] [--preset riff_2bar] [--run-dir runs/riff_2bar] [--steps N] ...

Run the same command again to resume. Writes to the run folder: riff_vae.pth (the model, best on the held-out songs),
riff_vae_last.pth (what a resumed run needs), train_vae.jsonl (the log), data_table.csv (what became of each file).
Several processes: torchrun --nproc_per_node 2 train_vae.py
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import training
from checkpoints import VAE_KIND, known_riffs, load_weights, read_checkpoint, save_checkpoint
from config import VAE_FILE, TrainVAE, UserError, VAETrainConfig, format_options, parse_options, run_script
from dataset import augmented_batch, load_riffs, save_table, summary, training_stream
from models import Draws, RiffVAE, kl_cost, kl_nats, reconstruction_nats
from vae_figures import evaluate, final_figures, print_summary

DRAWS = 1  # purpose of random numbers
LAST_FILE = "riff_vae_last.pth"
LOG_FILE = "train_vae.jsonl"
# Onset accuracy on held-out songs by number of training riffs, as the learning curve of the README found it.
LEARNING_CURVE = {
    "from the base model": {8: 0.81, 16: 0.82, 32: 0.86, 64: 0.87, 128: 0.90},
    "from scratch": {8: 0.18, 16: 0.17, 32: 0.20, 64: 0.35, 128: 0.66},
}


# ---------------------------------------------------------------- what to expect


def expectation(riffs: int, fine_tuned: bool) -> str:
    """What so many training riffs are good for, in a sentence, read off the learning curve."""
    start = "from the base model" if fine_tuned else "from scratch"
    sizes, shares = zip(*LEARNING_CURVE[start].items(), strict=True)
    share = float(np.interp(np.log2(riffs), np.log2(sizes), shares))
    few = f"{riffs} riffs are too few to learn a style; " if riffs < sizes[0] else ""
    many = "" if riffs >= sizes[-1] else f", {sizes[-1]} gave {shares[-1]:.0%}"
    number = min(max(riffs, sizes[0]), sizes[-1])
    return f"what to expect, {start}: {few}{number} of our riffs gave back {share:.0%} of the notes of songs never heard{many}"


# ---------------------------------------------------------------- one batch, one step


def make_draws(model: RiffVAE, batch_size: int, step: int, train: VAETrainConfig, seed: int) -> Draws:
    """The random numbers of one global batch."""
    rng = training.generator(seed, DRAWS, step)
    shape = (batch_size, model.tokenizer.steps)
    inputs, outputs = model.encoder.embedding.size, model.decoder.output.in_features

    def mask(size: int) -> Tensor | None:
        return (torch.rand(*shape, size, generator=rng) >= train.dropout).float() / (1 - train.dropout) if train.dropout else None

    noise = torch.randn(batch_size, model.config.z_size, generator=rng)
    keep = torch.rand(shape, generator=rng) >= train.word_dropout
    draws = Draws(noise, keep, mask(inputs), mask(inputs), mask(outputs))
    share = train.scheduled_sampling * training.linear_rise(step, train.steps)
    if share == 0:
        return draws
    from_model, uniform = torch.rand(shape, generator=rng) < share, torch.rand(shape, generator=rng)
    return dataclasses.replace(draws, from_model=from_model, uniform=uniform)


def training_loss(model: torch.nn.Module, tokens: Tensor, draws: Draws, beta: float, free_bits: float) -> tuple[Tensor, dict[str, float]]:
    """Loss on some riffs, mean over them.

    Args:
        tokens: int64 [B, T]
        beta: weight of the KL now.

    Returns:
        the loss, and its parts for the log: loss, reconstruction and kl in nats per riff; kl_weighted, accuracy.
    """
    logits, mu, logvar = model(tokens, draws)
    reconstruction = reconstruction_nats(logits, tokens).mean()
    kl = kl_nats(mu, logvar)
    weighted = beta * kl_cost(kl, free_bits).mean()
    loss = reconstruction + weighted
    accuracy = (logits.detach().argmax(dim=-1) == tokens).float().mean()
    parts = torch.stack([loss, reconstruction, kl.sum(dim=1).mean(), weighted, accuracy]).detach()
    names = ("loss", "reconstruction", "kl", "kl_weighted", "accuracy")
    return loss, dict(zip(names, parts.tolist(), strict=True))


# ---------------------------------------------------------------- main


def initial_weights(path: str, model: RiffVAE) -> dict[str, Any]:
    """Start from the weights of another run (fine-tuning); its tokens must be the same.

    Returns:
        the riffs those weights have seen.

    Raises:
        UserError: other tokens, or weights of another shape.
    """
    content = training.read_initial(path, VAE_KIND)
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
    best_path, last_path = folder / VAE_FILE, folder / LAST_FILE

    # ---- engine and seed
    processes = training.join_processes(train.batch_size)
    device = training.choose_device(run.device)
    threads = training.choose_threads(run.threads, processes)
    training.announce(run, device, threads, processes)

    # ---- data
    riff_data = load_riffs(options.dataset, options.tokenizer)
    stream = training_stream(riff_data, run.seed)
    if processes.is_main:
        print(summary(riff_data))
        print(expectation(len(riff_data.train_tokens), train.init_from != "none"))

    # ---- model and optimizer
    torch.manual_seed(run.seed)
    model = RiffVAE(options.model, options.tokenizer).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.lr, weight_decay=train.weight_decay)

    # ---- resume
    config = dataclasses.asdict(options.model)
    same = {
        "tokenizer": (dataclasses.asdict(options.tokenizer), "the tokens"),
        "data_hash": (riff_data.fingerprint, f"the riffs in {riff_data.folder}"),
    }
    files = (last_path, best_path, folder / LOG_FILE)
    state = training.start_or_resume(*files, VAE_KIND, run, train.init_from, config, same) if processes.is_main else None
    state = processes.from_main(state)
    step, best, inherited = 0, {"step": 0, "objective": float("inf")}, None
    if state is not None:
        load_weights(model, state["weights"], last_path)
        training.restore_optimizer(optimizer, state, train.weight_decay)
        step, best = state["step"], state["best"]
        changed = training.changed_options(state["options"], training.plain_options(options))
        if processes.is_main:
            print(training.resume_remark(step, train.steps, changed))
    elif train.init_from != "none":
        inherited = initial_weights(train.init_from, model)
    known = state["known"] if state is not None else known_riffs(riff_data.train_tokens, riff_data.train_names, inherited)
    if processes.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        save_table(riff_data, folder / "data_table.csv")
    log = training.MetricLog(folder / LOG_FILE, processes, step)
    engine: torch.nn.Module = DistributedDataParallel(model) if processes.world > 1 else model

    def content() -> dict[str, Any]:
        return {
            "kind": VAE_KIND,
            "tokenizer": dataclasses.asdict(options.tokenizer),
            "model": config,
            "weights": {name: value.detach().cpu() for name, value in model.state_dict().items()},
            "data": {**dataclasses.asdict(options.dataset), **riff_data.defaults(), "riffs": len(riff_data.train_tokens)},
            "data_hash": riff_data.fingerprint,
            "known": known,
            "step": step,
            "best": best,
            "options": training.plain_options(options),
        }

    def given_up() -> bool:
        """Whether the held-out songs have seen no improvement for too long, up to the last look at them."""
        last_look = step - step % run.eval_interval
        since = max(best["step"], train.beta_anneal)  # while beta rises, the objective at the full beta may rise too
        return bool(train.patience and best["step"] and riff_data.held_out.any() and last_look - since >= train.patience)

    def save_last() -> None:
        if processes.is_main:
            save_checkpoint(last_path, {**content(), "optimizer": optimizer.state_dict()})

    # ---- loop
    model.train()
    begin, done_before = time.perf_counter(), step
    with training.StopRequest() as stop:
        while step < train.steps and not given_up():
            tokens = torch.from_numpy(augmented_batch(riff_data, stream, step, train.batch_size))
            draws = make_draws(model, train.batch_size, step, train, run.seed)
            tokens, draws = processes.share(tokens).to(device), draws.map(lambda x: processes.share(x).to(device))
            beta = train.beta * training.linear_rise(step, train.beta_anneal)
            loss, parts = training_loss(engine, tokens, draws, beta, train.free_bits)
            lr = training.cosine_lr(step, train.steps, train.lr, train.lr_final, train.warmup)
            norm = training.clip_and_step(engine, optimizer, loss, lr, train.grad_clip)
            training.require_finite(parts["loss"], norm, step, last_path)
            step += 1
            if step % run.log_interval == 0 or step == train.steps:
                parts = dict(zip(parts, processes.mean(torch.tensor(list(parts.values()))).tolist(), strict=True))
                rate = (step - done_before) * train.batch_size / (time.perf_counter() - begin)
                log.write(step, {**parts, "beta": beta, "lr": lr, "grad_norm": norm, "riffs_per_second": rate})
            if step % run.eval_interval == 0 or step == train.steps:
                held = evaluate(model, riff_data.held_out_tokens, train, device) if riff_data.held_out.any() else None
                held = processes.from_main(held)  # one judgement for all: a last digit must not part them
                if held is not None:
                    log.write(step, held, "held out")
                if held is None or held["objective"] < best["objective"]:
                    best = {"step": step, "objective": held["objective"] if held else float("inf")}
                    if processes.is_main:
                        save_checkpoint(best_path, content())
                    save_last()  # a model never stands without the state to go on from
            stopping = processes.any(stop.asked)
            if step % run.save_interval == 0 or step == train.steps or stopping or given_up():
                save_last()
            if stopping:
                break

    # ---- summary
    del engine
    if step < train.steps and not given_up():
        print(f"stopped at step {step} of {train.steps}; run the same command again (without --restart) to go on")
        processes.close()
        return 130
    if processes.is_main:
        if step < train.steps:
            print(f"stopped early: no improvement on the held-out songs since step {best['step']} (--patience {train.patience})")
        load_weights(model, read_checkpoint(best_path, VAE_KIND)["weights"], best_path)
        print_summary(final_figures(model, riff_data, train, device))
        why = "" if riff_data.held_out.any() else " (the last; nothing was held out)"
        print(f"\n{best_path}: the model of step {best['step']}{why or f', best on the held-out songs of {step}'}")
    processes.close()
    return 0


if __name__ == "__main__":
    run_script(main)
