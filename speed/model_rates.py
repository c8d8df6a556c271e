"""Training and sampling rates of models; untrained weights cost what trained ones do."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F

import training
from config import GROOVE_SIZE, SampleConfig, TokenizerConfig, VAETrainConfig
from diffusion import LatentDiffusion
from family.presets import FAMILY
from language_model import LanguageModel
from lm_sampling import continue_sequences, event_grammar
from models import Draws, MusicVAE, kl_cost, kl_nats
from pieces import event_vocabulary
from presets import TrainDiffusion, TrainLM, TrainVAE, preset_options
from sampling import decode_steps, denoising_times, sample_latents, sample_riffs
from speed.bench import Bench
from speed.machine import CPU, Work, multiply_adds
from speed.original import RIVAL, Original

BATCHES = (1, 64, 1024)  # that are sampled
TRAINED = (64, 512)
ON_DEVICE = (512, 4096)
COUNTED = 8  # rows
PRECISIONS = ("float32", "bfloat16")
LATE = 0.9  # share of steps that are the model's own late in training, with scheduled sampling


def random_steps(tokenizer: TokenizerConfig, count: int) -> torch.Tensor:
    """Music of a representation, all at random."""
    if tokenizer.representation == "groove":
        return torch.rand(count, tokenizer.steps, GROOVE_SIZE).round()
    parts = [torch.randint(size, (count, tokenizer.steps)) for size in tokenizer.vocab_sizes]
    return torch.stack(parts, dim=-1) if len(parts) > 1 else parts[0]


def train_step(vae: MusicVAE, optimizer: torch.optim.Optimizer, steps: torch.Tensor, train: VAETrainConfig, precision: torch.dtype) -> None:
    """One optimizer step, as late in training."""
    with steps.device:
        draws = Draws(noise=torch.randn(len(steps), vae.config.z_size))
        if train.scheduled_sampling:
            shape = steps.shape[:2]
            draws = dataclasses.replace(draws, from_model=torch.rand(shape) < LATE, uniform=torch.rand(*shape, vae.embedding.draws))
    with torch.autocast(steps.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        logits, mu, logvar = vae(steps, draws)
    loss = vae.reconstruction_nats(logits, steps).mean() + kl_cost(kl_nats(mu, logvar), train.free_bits).mean()
    training.clip_and_step(vae, optimizer, loss, train.lr, train.grad_clip)


def train_work(vae: MusicVAE, options: TrainVAE, batch: int, precision: torch.dtype) -> Callable[[], None]:
    """A function that takes an optimizer step on random music, where the model is."""
    steps = random_steps(options.tokenizer, batch).to(place(vae))
    return partial(train_step, vae, training.make_optimizer(vae), steps, options.train, precision)


def place(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def decode_work(vae: MusicVAE, batch: int, kind: str) -> Callable[[], torch.Tensor]:
    """A function that decodes latents drawn from N(0, I). kind: precision"""
    with place(vae):
        uniform, z = torch.rand(batch, vae.tokenizer.steps, vae.embedding.draws), torch.randn(batch, vae.config.z_size)
    return partial(decode_steps, vae.eval(), z, uniform, SampleConfig(temperature=1.0, precision=kind))  # type: ignore[arg-type]


def measure_vae(bench: Bench, preset: str, batches: Sequence[int], sampled: Sequence[int], noun: str) -> None:
    """Training with a preset's options, and decoding from N(0, I) in both precisions."""
    options = preset_options(TrainVAE, preset)
    precision = training.choose_precision(options.train.precision, CPU)
    trainings = {batch: f"{preset}, training, batch {batch}, {_name(precision)}" for batch in batches}
    decodings = {(batch, kind): f"{preset}, decoding, batch {batch}, {kind}" for batch in sampled for kind in PRECISIONS}
    if not any(map(bench.wants, (*trainings.values(), *decodings.values()))):
        return  # before anything is built
    vae, tokenizer = MusicVAE(options.model, options.tokenizer), options.tokenizer
    for batch, name in trainings.items():
        work = train_work(vae, options, batch, precision)
        bench.rate(name, noun, batch, work, lambda work=work: Work(multiply_adds(work), precision))
    for (batch, kind), name in decodings.items():
        work = decode_work(vae, batch, kind)

        def needs(work: Callable[[], object] = work, kind: str = kind, batch: int = batch) -> Work:
            return Work(multiply_adds(work), getattr(torch, kind), batch, tokenizer.steps)

        bench.rate(name, noun, batch, work, needs)


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def measure_riffs(bench: Bench) -> None:
    """The default preset: training both models, latents and decoding apart, and both together."""
    measure_vae(bench, "riff_2bar", TRAINED, BATCHES, "riffs")
    options = preset_options(TrainDiffusion, "riff_2bar")
    size = preset_options(TrainVAE, "riff_2bar").model.z_size
    diffusion = LatentDiffusion(size, options.model)
    optimizer = training.make_optimizer(diffusion)
    for batch in TRAINED:
        z, eps = torch.randn(2, batch, size)
        t = torch.randint(options.model.num_timesteps, (batch,))

        def step(z: torch.Tensor = z, t: torch.Tensor = t, eps: torch.Tensor = eps) -> None:
            training.clip_and_step(diffusion, optimizer, diffusion(z, t, eps).mean(), 1e-4, 1.0)

        bench.rate(f"latent diffusion, training, batch {batch}", "latents", batch, step, lambda step=step: Work(multiply_adds(step)))
    diffusion.eval()
    times = denoising_times(options.model.num_timesteps, 50)
    vae = MusicVAE(preset_options(TrainVAE, "riff_2bar").model, TokenizerConfig()).eval()
    for batch in BATCHES:
        noise = torch.randn(batch, size)
        work = partial(sample_latents, diffusion, noise, noise[None], times, 0.0)

        def needs(work: Callable[[], object] = work, batch: int = batch) -> Work:
            once = multiply_adds(partial(diffusion.guided, times, batch))  # what hangs on the times alone
            return Work(multiply_adds(work) - once, rows=batch, steps=len(times))

        bench.rate(f"latents, 50 DDIM steps, batch {batch}", "latents", batch, work, needs)
    for count in (1, 64, 1000):
        bench.rate(f"whole riffs, {count}", "riffs", count, partial(sample_riffs, vae, diffusion, range(count), SampleConfig()))


def measure_original(bench: Bench, original: Original | None) -> None:
    """The 2-bar melody model of the original, in its size, and how many times as quick it is as the original itself, by turns."""
    preset = "melody_2bar"
    measure_vae(bench, preset, TRAINED, BATCHES, "melodies")
    if original is None:
        return
    options = preset_options(TrainVAE, preset)
    vae, precision = MusicVAE(options.model, options.tokenizer), training.choose_precision(options.train.precision, CPU)
    for batch in TRAINED:
        ours, theirs = partial(train_work, vae, options, batch, precision), partial(original.rate, "training", batch)
        bench.times(f"{RIVAL}, training, batch {batch}, {_name(precision)}", batch, ours, theirs)
    for batch, kind in itertools.product(BATCHES, PRECISIONS):
        ours, theirs = partial(decode_work, vae, batch, kind), partial(original.rate, "sampling", batch)
        bench.times(f"{RIVAL}, sampling, batch {batch}, {kind}", batch, ours, theirs)


def measure_device(bench: Bench, device: torch.device) -> None:
    """Training and decoding on a GPU: riffs, and melodies in the original's size. Multiply-adds are counted on the CPU, for a few rows."""
    for preset in ("riff_2bar", "melody_2bar"):
        options = preset_options(TrainVAE, preset)
        here = MusicVAE(options.model, options.tokenizer)
        there = copy.deepcopy(here).to(device)
        for batch in ON_DEVICE:
            precision = training.choose_precision(options.train.precision, device)

            def trained(batch: int = batch, here: MusicVAE = here, options: TrainVAE = options, kind: torch.dtype = precision) -> Work:
                return Work(multiply_adds(train_work(here, options, COUNTED, torch.float32)) * batch // COUNTED, kind)

            name = f"{preset}, training on {device.type}, batch {batch}, {_name(precision)}"
            bench.rate(name, "windows", batch, train_work(there.train(), options, batch, precision), trained)
        for batch, kind in itertools.product((1, *ON_DEVICE), PRECISIONS):

            def decoded(batch: int = batch, here: MusicVAE = here, kind: str = kind) -> Work:
                work = decode_work(here, COUNTED, "float32")
                work()  # weights are laid out once
                return Work(multiply_adds(work) * batch // COUNTED, getattr(torch, kind), batch, here.tokenizer.steps)

            name = f"{preset}, decoding on {device.type}, batch {batch}, {kind}"
            bench.rate(name, "windows", batch, decode_work(there, batch, kind), decoded)


def measure_family(bench: Bench, most: float) -> None:
    """Every preset of windows, on random music. most: parameters, in millions; larger models are passed over."""
    for preset in FAMILY:
        options = preset_options(TrainVAE, preset)
        with torch.device("meta"):
            size = sum(p.numel() for p in MusicVAE(options.model, options.tokenizer).parameters()) / 1e6
        if size <= most and preset != "melody_2bar":
            batch = 64 if size < 20 else 2
            measure_vae(bench, preset, [batch], [batch], "windows")


# ---------------------------------------------------------------- language models


def measure_language_models(bench: Bench) -> None:
    """The event LSTM in its published size, and the one that can copy."""
    for preset in ("events_lstm", "events_lstm_copy"):
        measure_language_model(bench, preset)


def measure_language_model(bench: Bench, preset: str, length: int = 300) -> None:
    """Tokens a second, all sequences together."""
    options = preset_options(TrainLM, preset)
    vocabulary, sample = event_vocabulary(options.events), SampleConfig(temperature=1.0, top_k=50)
    model = LanguageModel(options.model, vocabulary.size)
    optimizer = training.make_optimizer(model)
    tokens = torch.randint(vocabulary.size, (options.train.batch_size, options.train.seq_len))

    def step() -> None:
        loss = F.cross_entropy(model(tokens)[0][:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        training.clip_and_step(model, optimizer, loss, 1e-4, 1.0)

    def write(batch: int) -> None:
        given = torch.full((batch, 1), vocabulary.bos)
        uniform = torch.rand(batch, length, generator=torch.Generator().manual_seed(0))
        continue_sequences(model, given, event_grammar(batch, vocabulary, True), uniform, sample, None)

    name = f"{preset}, training, {tokens.shape[0]} x {tokens.shape[1]}"
    bench.rate(name, "tokens", tokens.numel(), step, lambda: Work(multiply_adds(step)))
    model.eval()
    for batch in (1, 64):
        work = partial(write, batch)
        needs = partial(lambda work, rows: Work(multiply_adds(work), rows=rows, steps=length), work, batch)
        bench.rate(f"{preset}, sampling, batch {batch}", "tokens", batch * length, work, needs)
