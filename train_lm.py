"""Train a language model: an LSTM over the events of whole pieces, or over the tokens of riffs.

    python train_lm.py --data FOLDER [--preset events_lstm] [--run-dir runs/events_lstm] [--steps N] ...
    python train_lm.py --preset riff_2bar_lstm            the riffs of midi_riffs/, to set beside the VAE and its diffusion model

Run the same command again to resume. Writes to the run folder: language_model.pth (the model, best on the held-out pieces),
language_model_last.pth (what a resumed run needs), train_lm.jsonl (the log), data_table.csv (what became of each file).
Several processes: torchrun --nproc_per_node 2 train_lm.py
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from presets import TrainLM, answer_early, parse_options

if __name__ == "__main__":
    answer_early(partial(parse_options, TrainLM))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import training
from checkpoints import BASE_NAME, LM_KIND, known_riffs, load_weights, read_checkpoint, save_checkpoint
from config import LM_FILE, UserError, run_script
from dataset import load_riffs, plural, save_table, summary
from language_model import LanguageModel
from measures.model_figures import evaluate_pieces, perplexity
from pieces import IGNORED, PieceData, Sequences, load_pieces, piece_summary, riffs_as_pieces
from presets import format_options
from resuming import RunFiles, find_state, make_way, plain_options, read_initial, take_over

DROPOUT = 1  # purpose of random numbers
LAST_FILE = "language_model_last.pth"
LOG_FILE = "train_lm.jsonl"


# ---------------------------------------------------------------- one batch, one step


def dropout_masks(model: LanguageModel, batch_size: int, length: int, dropout: float, step: int, seed: int) -> list[Tensor] | None:
    """The dropout of one global batch. [batch_size, length, H] for each layer"""
    if not dropout:
        return None
    rng = training.generator(seed, DROPOUT, step)
    shape = (batch_size, length, model.config.hidden_size)
    return [torch.empty(shape).bernoulli_(1 - dropout, generator=rng).div_(1 - dropout) for _ in model.layers]


def training_loss(
    model: torch.nn.Module,
    batch: tuple[Tensor, Tensor, Tensor],
    masks: list[Tensor] | None,
    processes: training.Processes,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Loss of one step on this process' share of the batch.

    Args:
        batch: inputs and targets, int64 [batch_size, T], of all processes, targets IGNORED where there is nothing to learn; and where in
            their pieces they begin, int64 [batch_size].

    Returns:
        a loss whose gradient, averaged over the processes, is that of the mean over the tokens of all; and for the log, float
        [3]: nats and right guesses of this share, and its tokens.
    """
    counted = int((batch[1] != IGNORED).sum())
    inputs, targets, first = (processes.share(part).to(device) for part in batch)
    logits, _ = model(inputs, None, None if masks is None else [processes.share(mask).to(device) for mask in masks], first)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    right = (logits.detach().argmax(dim=-1) == targets).sum()
    parts = torch.stack([nats.detach(), right.to(nats.dtype), (targets != IGNORED).sum().to(nats.dtype)]).cpu()
    return nats * processes.world / counted, parts


# ---------------------------------------------------------------- main


def load_data(options: TrainLM, is_main: bool) -> PieceData:
    """The pieces, or riffs as pieces, that the options name.

    Raises:
        UserError: none to be had.
    """
    if options.model.tokens == "riff":
        riff_data = load_riffs(options.dataset, options.tokenizer)
        if is_main:
            print(summary(riff_data))
        return riffs_as_pieces(riff_data)
    pieces = load_pieces(options.dataset, options.events)
    if is_main:
        print(piece_summary(pieces))
    return pieces


def initial_weights(path: str, model: LanguageModel, options: TrainLM) -> dict[str, Any]:
    """Start from the weights of another run (fine-tuning); its tokens must be the same.

    Returns:
        the pieces those weights have seen.

    Raises:
        UserError: other tokens, or weights of another shape.
    """
    content = read_initial(path, LM_KIND)
    kind, names = (
        ("events", ("time_step_ms", "max_shift"))
        if options.model.tokens == "events"
        else ("tokenizer", ("bars", "steps_per_beat", "hold_token"))
    )
    ours = {"tokens": options.model.tokens} | {name: getattr(getattr(options, kind), name) for name in names}
    theirs = {"tokens": content["model"].get("tokens"), **content[kind]}
    different = [f"{name} {theirs.get(name)} -> {value}" for name, value in ours.items() if theirs.get(name) != value]
    if different:
        raise UserError(f"--init-from {path}: was trained on other tokens ({', '.join(different)}); use the preset it was trained with")
    load_weights(model, content["weights"], path)
    return content["known"]


def known_pieces(pieces: PieceData, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The pieces that the weights have seen, for the checkpoint: the training pieces, and those of the model it started from."""
    if pieces.riffs is not None:
        return known_riffs(pieces.riffs.train_tokens, pieces.train_names, before)
    ours = [torch.from_numpy(piece.astype(np.int32)) for piece in pieces.train]
    if before is None:
        return {"tokens": ours, "names": pieces.train_names}
    return {"tokens": [*ours, *before["tokens"]], "names": [*pieces.train_names, *(BASE_NAME + name for name in before["names"])]}


def data_defaults(pieces: PieceData) -> dict[str, Any]:
    """What a checkpoint tells generate.py about the training pieces."""
    if pieces.riffs is not None:
        return {**dataclasses.asdict(pieces.config), **pieces.riffs.defaults(), "riffs": len(pieces.train)}
    return {**dataclasses.asdict(pieces.config), "program": pieces.program, "pieces": len(pieces.train)}


def main(argv: Sequence[str] | None = None) -> int:
    # ---- config and run folder
    options = parse_options(TrainLM, argv)
    if options.run.dry_run:
        print(format_options(options))
        return 0
    run, train = options.run, options.train
    folder = Path(run.run_dir)
    files = RunFiles(folder / LAST_FILE, folder / LM_FILE, folder / LOG_FILE)

    # ---- engine and seed
    processes = training.join_processes(train.batch_size)
    training.keep_freed_memory()
    device = training.choose_device(run.device)
    threads = training.choose_threads(run.threads, processes, options.model.hidden_size)
    training.announce(run, device, threads, processes)

    # ---- data
    pieces = load_data(options, processes.is_main)
    sequences = Sequences(pieces, train.seq_len, run.seed)
    if processes.is_main:
        epochs = train.steps * train.batch_size / len(sequences)
        print(f"      {plural(len(sequences), 'sequence')} of up to {train.seq_len} tokens; {train.steps} steps are {epochs:.1f} epochs")

    # ---- model and optimizer
    torch.manual_seed(run.seed)
    model = LanguageModel(options.model, pieces.vocabulary.size).to(device)
    optimizer = training.make_optimizer(model, train.lr, train.weight_decay)

    # ---- resume
    same = {
        "tokenizer": (dataclasses.asdict(options.tokenizer), "the tokens"),
        "events": (dataclasses.asdict(options.events), "the tokens"),
        "data_hash": (pieces.fingerprint, f"the pieces in {pieces.folder}"),
    }
    state = find_state(files, LM_KIND, options, same, processes)
    step, best = 0, {"step": None, "loss": float("inf")}
    if state is not None:
        load_weights(model, state["weights"], files.last)
        step, best = take_over(optimizer, state, options, processes.is_main)
    fine_tuning = state is None and train.init_from != "none"
    inherited = initial_weights(train.init_from, model, options) if fine_tuning else None
    known = state["known"] if state is not None else known_pieces(pieces, inherited)
    make_way(files, options, processes)
    if processes.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        save_table(pieces.rows, folder / "data_table.csv")
    log = training.MetricLog(files.log, processes, step if state else None)
    engine: torch.nn.Module = DistributedDataParallel(model) if processes.world > 1 else model

    def content() -> dict[str, Any]:
        return {
            "kind": LM_KIND,
            "tokenizer": dataclasses.asdict(options.tokenizer),
            "events": dataclasses.asdict(options.events),
            "model": dataclasses.asdict(options.model),
            "weights": {name: value.detach().cpu() for name, value in model.state_dict().items()},
            "data": data_defaults(pieces),
            "data_hash": pieces.fingerprint,
            "known": known,
            "step": step,
            "best": best,
            "options": plain_options(options),
        }

    def save_last() -> None:
        if processes.is_main:
            save_checkpoint(files.last, {**content(), "optimizer": optimizer.state_dict()})

    def look() -> None:
        """Judge the model on the held-out pieces, and keep it if it is the best so far (the newest, with nothing held out)."""
        nonlocal best
        held = processes.from_main(evaluate_pieces(model, pieces.held, device) if pieces.held else None)
        if held is not None:
            log.write(step, held, "held out")
        if held is None or held["loss"] < best["loss"]:
            best = {"step": step, **(held or {"loss": float("inf")})}
            if processes.is_main:
                save_checkpoint(files.best, content())
            save_last()  # a model never stands without the state to go on from

    def given_up() -> bool:
        """Whether the held-out pieces have seen no improvement for too long, up to the last look at them."""
        return bool(pieces.held) and training.out_of_patience(step, run.eval_interval, best["step"], train.patience)

    # ---- loop
    if fine_tuning and pieces.held:
        look()  # the weights it starts from may be the best there are
    model.train()
    begin, tokens = time.perf_counter(), 0
    with training.StopRequest() as stop:
        while step < train.steps and not given_up():
            batch = tuple(map(torch.from_numpy, sequences.batch(step, train.batch_size)))
            masks = dropout_masks(model, *batch[0].shape, train.dropout, step, run.seed)
            loss, parts = training_loss(engine, batch, masks, processes, device)
            lr = training.cosine_lr(step, train.steps, train.lr, train.lr_final, train.warmup)
            norm = training.clip_and_step(engine, optimizer, loss, lr, train.grad_clip)
            training.require_finite(float(parts[0]), norm, step, files.last)
            step, tokens = step + 1, tokens + int((batch[1] != IGNORED).sum())
            if step % run.log_interval == 0 or step == train.steps:
                nats, right, count = processes.mean(parts).tolist()
                shown = {"loss": nats / count, "perplexity": perplexity(nats / count), "accuracy": right / count}
                log.write(step, {**shown, "lr": lr, "grad_norm": norm, "tokens_per_second": tokens / (time.perf_counter() - begin)})
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
            print(f"stopped early: no improvement on the held-out pieces since step {best['step']} (--patience {train.patience})")
        load_weights(model, read_checkpoint(files.best, LM_KIND)["weights"], files.best)
        figures = {"train": evaluate_pieces(model, pieces.train, device)} | (
            {"held out": evaluate_pieces(model, pieces.held, device)} if pieces.held else {}
        )
        print(f"\n{'':24s}" + "".join(f"{name:>10s}" for name in figures))
        labels = {"loss": "loss, nats per token", "perplexity": "perplexity", "accuracy": "accuracy", "nats_per_piece": "nats per piece"}
        for key, label in labels.items():
            print(f"{label:24s}" + "".join(f"{values[key]:10.4g}" for values in figures.values()))
        why = "" if pieces.held else " (the last; nothing was held out)"
        print(f"\n{files.best}: the model of step {best['step']}{why or f', best on the held-out pieces of {step}'}")
    processes.close()
    return 0


if __name__ == "__main__":
    run_script(main)
