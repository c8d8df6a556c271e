"""The rows of a study: riffs drawn from a trained run and from its rivals, or read from folders.

evaluate.py measures and reports them; what a study is, see evaluation.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints import (
    build_config,
    load_diffusion,
    load_language_model,
    load_same_riffs,
    load_vae,
    training_riffs,
)
from config import DIFFUSION_FILE, LM_FILE, VAE_FILE, DataConfig, EventConfig, SampleConfig, TokenizerConfig, UserError, VAETrainConfig
from dataset import RiffData, load_riffs, plural
from language_model import LanguageModel
from latents import latent_table, prior_tokens
from lm_sampling import sample_events, sample_riffs_by_lm
from measures.baselines import TOKEN_BASELINES, NGram, gaussian_mixtures, jittered_latents
from measures.evaluation import MODEL, MOST, TRAIN, Row, Study
from measures.model_figures import evaluate_pieces, final_figures, perplexity
from measures.novelty import TrainingPieces, TrainingRiffs
from models import MusicVAE
from pieces import PieceData, event_vocabulary, load_pieces, riffs_as_pieces
from presets import Generate
from sampling import decode, reconstruct, sample_riffs
from steering.rules import Demands, RiffRules

LEAST_HELD = 2  # riffs, or pieces, that real music can be compared with
LSTM = "LSTM"  # row of a language model beside a VAE
LM_SAMPLE = SampleConfig(temperature=0.8)  # of that row: its nearest to real riffs
N_GRAM = 5  # order of the n-grams that language models are set beside


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How rows are drawn."""

    count: int  # riffs or pieces of each row
    seed: int
    device: torch.device
    data: str  # folder of the training riffs; "" for where they were
    sample: SampleConfig
    length: int = 4000  # most tokens of a piece


# ---------------------------------------------------------------- a trained run


def rows_of(riff_data: RiffData, held_out: bool) -> Row:
    """The training or the held-out riffs of a folder; of very many, a fixed choice."""
    chosen = np.flatnonzero(riff_data.held_out == held_out)
    if len(chosen) > MOST:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MOST, replace=False))
    songs = np.array([riff_data.songs[i] for i in riff_data.song[chosen]])
    return Row(riff_data.tokens[chosen], np.array([riff_data.riffs[i].bpm for i in chosen]), songs)


def token_rivals(train: np.ndarray, tokenizer: TokenizerConfig, count: int, seed: int) -> dict[str, np.ndarray]:
    """The rivals that need no model. int64 [count, steps] each"""
    return {
        name: make(train, tokenizer, count, np.random.default_rng(np.random.SeedSequence([seed, number])))
        for number, (name, make) in enumerate(TOKEN_BASELINES.items())
    }


def latent_rivals(
    vae: MusicVAE, riff_data: RiffData, seen: np.ndarray, count: int, seed: int, decoded: Callable[[np.ndarray, int], np.ndarray]
) -> tuple[dict[str, np.ndarray], int]:
    """The rivals that stand in for the diffusion model.

    Args:
        seen: int64 [n, steps], riffs that the diffusion model was trained on.
        decoded: latents [count, Z] and a number -> tokens.

    Returns:
        tokens of each, int64 [count, steps]; and the number of components of the mixture.
    """
    device = next(vae.parameters()).device
    table = latent_table(vae, seen, device)
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(table.mu.shape), dtype=np.float32))
    mixtures, components = gaussian_mixtures((table.mu + table.std * noise).numpy(), count, seed % 2**32)
    rows = {name: decoded(z, number) for number, (name, z) in enumerate(mixtures.items())}
    own = latent_table(vae, riff_data.train_tokens[:MOST], device).mu.numpy()
    rows["nearest-neighbour jitter"] = decoded(jittered_latents(own, count, np.random.default_rng(seed)), 2)
    return rows, components


def study_of_run(folder: Path, drawing: Drawing, beside: Path | None = None) -> Study:
    """Draw every row of a run of a VAE and its diffusion model.

    Args:
        beside: run of a language model of the same riffs, for a row of its own.

    Raises:
        UserError: no models there, nothing was held out, or the riffs changed.
    """
    device = drawing.device
    vae, content = load_vae(folder / VAE_FILE, str(device))
    diffusion, its_content = load_diffusion(folder / DIFFUSION_FILE, vae, str(device))
    riff_data = load_same_riffs(content, vae.tokenizer, drawing.data, folder / VAE_FILE)
    require_held_out(riff_data, folder)
    count, seed, sample = drawing.count, drawing.seed, drawing.sample
    rules = RiffRules(vae.tokenizer, Demands(content["data"]["lowest"], content["data"]["highest"]))
    seeds = range(seed, seed + count)

    def decoded(z: np.ndarray, number: int) -> np.ndarray:
        uniform = np.random.default_rng(np.random.SeedSequence([seed, number, 7])).random((len(z), vae.tokenizer.steps), dtype=np.float32)
        parts = zip(torch.from_numpy(z).split(1024), torch.from_numpy(uniform).split(1024), strict=True)
        return np.concatenate([decode(vae, a.to(device), b.to(device), sample, rules).cpu().numpy() for a, b in parts])

    def encode(tokens: np.ndarray) -> np.ndarray:
        return latent_table(vae, tokens, device).mu.double().numpy()

    known = training_riffs(content, vae.tokenizer)
    prior = diffusion if sample.prior == "diffusion" else None
    rows = {MODEL: sample_riffs(vae, prior, seeds, sample, rules)[0]}  # first draws: copies count, as they do for the rivals
    rows["N(0, I) prior"] = sample_riffs(vae, None, seeds, sample, rules)[0]
    its = its_content["options"]
    seen = {"latents": its["train"]["latents"], "transpose": its["train"]["prior_transpose"], "seed": its["run"]["seed"]}
    rivals, components = latent_rivals(vae, riff_data, prior_tokens(riff_data, **seen)[:4096], count, seed, decoded)
    rows |= rivals
    rows |= token_rivals(riff_data.train_tokens, vae.tokenizer, count, seed)
    lstm, lm_content = load_riff_lm(beside, drawing, riff_data) if beside else (None, None)
    if lstm is not None:
        rows[LSTM] = sample_riffs_by_lm(lstm, vae.tokenizer, seeds, LM_SAMPLE, rules)
    train, held = rows_of(riff_data, False), rows_of(riff_data, True)
    made = {name: Row(tokens, np.full(len(tokens), content["data"]["bpm"])) for name, tokens in rows.items()}
    again = reconstruct(vae, torch.from_numpy(held.tokens)).numpy()
    made["held-out, autoencoded"] = dataclasses.replace(held, tokens=again)
    trained = VAETrainConfig(
        **{k: v for k, v in content["options"]["train"].items() if k in {f.name for f in dataclasses.fields(VAETrainConfig)}}
    )
    facts = {"vae": final_figures(vae, riff_data.shown, trained, device), "mixture_components": components, "step": content["step"]}
    facts["drawn_again"] = int(known.nearest(rows[MODEL]).too_close(Generate.max_copy).sum())
    if lstm is not None:
        facts["language_model"] = lm_facts(lstm, lm_content, riffs_as_pieces(riff_data))
    return Study(str(folder), vae.tokenizer, train, held, known, made, encode, facts)


def require_held_out(riff_data: RiffData, folder: Path) -> None:
    """
    Raises:
        UserError: there is nothing to compare with.
    """
    if (count := int(riff_data.held_out.sum())) < LEAST_HELD:
        raise UserError(
            f"{folder}: {plural(count, 'riff')} held out, at least {LEAST_HELD} are needed to compare with; "
            "train on more songs, with --holdout above 0"
        )


# ---------------------------------------------------------------- a language model of riffs


def load_riff_lm(folder: Path, drawing: Drawing, riff_data: RiffData | None = None) -> tuple[LanguageModel, dict[str, Any]]:
    """A language model of riffs.

    Args:
        riff_data: the riffs it must have been trained on, and the split.

    Raises:
        UserError: none there, of events, or of other riffs.
    """
    model, content = load_language_model(folder / LM_FILE, "riff", str(drawing.device))
    if riff_data is not None and content["data_hash"] != riff_data.fingerprint:
        raise UserError(f"{folder}: was trained on other riffs, or another split; give it the same --data, --split-seed and --holdout")
    return model, content


def lm_facts(model: LanguageModel, content: Mapping[str, Any], pieces: PieceData) -> dict[str, Any]:
    """How well a language model predicts training and held-out pieces, beside n-grams of the same tokens."""
    device = next(model.parameters()).device
    grams = NGram(pieces.train, pieces.vocabulary.size, N_GRAM)
    facts: dict[str, Any] = {"step": content["step"]}
    for name, some in (("train", pieces.train), ("held out", pieces.held)):
        count, nats = sum(len(piece) - 1 for piece in some), sum(grams.nats(piece) for piece in some)
        facts[name] = evaluate_pieces(model, some, device)
        facts[name] |= {"n-gram loss": nats / count, "n-gram perplexity": perplexity(nats / count)}
    return facts


def study_of_riff_lm(folder: Path, drawing: Drawing) -> Study:
    """Draw every row of a run of a language model of riffs.

    Raises:
        UserError: no model there, nothing was held out, or the riffs changed.
    """
    model, content = load_riff_lm(folder, drawing)
    tokenizer = build_config(TokenizerConfig, content["tokenizer"], folder / LM_FILE)
    riff_data = load_same_riffs(content, tokenizer, drawing.data, folder / LM_FILE)
    require_held_out(riff_data, folder)
    seeds = range(drawing.seed, drawing.seed + drawing.count)
    rules = RiffRules(tokenizer, Demands(content["data"]["lowest"], content["data"]["highest"]))
    rows = {MODEL: sample_riffs_by_lm(model, tokenizer, seeds, drawing.sample, rules)}
    rows |= token_rivals(riff_data.train_tokens, tokenizer, drawing.count, drawing.seed)
    made = {name: Row(tokens, np.full(len(tokens), content["data"]["bpm"])) for name, tokens in rows.items()}
    known = training_riffs(content, tokenizer)
    facts = {"language_model": lm_facts(model, content, riffs_as_pieces(riff_data))}
    facts["drawn_again"] = int(known.nearest(rows[MODEL]).too_close(Generate.max_copy).sum())
    return Study(str(folder), tokenizer, rows_of(riff_data, False), rows_of(riff_data, True), known, made, None, facts)


# ---------------------------------------------------------------- two folders


def study_of_folders(generated: str, folder: str, count: int, seed: int) -> Study:
    """Riffs of one folder, judged by another whose songs are parted: half of them stand for training, half for comparison.

    Args:
        generated, folder: to be judged, and to judge by.
        count: riffs of each row, and most riffs to judge.

    Raises:
        UserError: a folder without usable riffs, or a reference of one song.
    """
    tokenizer = TokenizerConfig()
    reference = load_riffs(DataConfig(data=folder, holdout=0.5), tokenizer)
    made = load_riffs(DataConfig(data=generated, holdout=0.0, max_bars=0), tokenizer, generated=True)
    for name, riff_data in ((generated, made), (folder, reference)):
        refused = sum(not row.riffs for row in riff_data.rows)
        print(f"{name}: {plural(len(riff_data.tokens), 'riff')} of {plural(len(riff_data.rows), 'file')}, {refused} of them refused")
    calls = generate_calls(Path(generated))
    if calls > 1:
        print(f"{generated}: generate.py wrote these in {calls} calls with different models or settings; they are judged as one")
    if reference.held_out.sum() < LEAST_HELD:
        raise UserError(f"{folder}: needs riffs of two songs or more (the part of a file name before _ is its song)")
    train, held = rows_of(reference, False), rows_of(reference, True)
    names = np.array([reference.songs[i] for i in reference.song])
    known = TrainingRiffs(reference.tokens, reference.names, tokenizer, names)  # copies of any of them count
    shown = np.sort(np.random.default_rng(seed).permutation(len(made.tokens))[:count])
    rows = {MODEL: Row(made.tokens[shown], np.array([made.riffs[i].bpm for i in shown]))}
    rivals = token_rivals(reference.train_tokens, tokenizer, count, seed)
    rows |= {name: Row(tokens, np.full(len(tokens), float(np.median(train.bpm)))) for name, tokens in rivals.items()}
    refused = Counter(row.reason for row in made.rows if not row.riffs)
    return Study(generated, tokenizer, train, held, known, rows, facts={"refused": dict(refused)})


def generate_calls(folder: Path) -> int:
    """How many different models and settings the JSON files of generate.py in a folder tell of."""
    found = set()
    for path in folder.rglob("riff_seed*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found.add(json.dumps([record["vae"], record["diffusion"], record["settings"]], sort_keys=True))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return len(found)


# ---------------------------------------------------------------- a language model of events


@dataclasses.dataclass(frozen=True)
class PieceStudy:
    """Pieces of a run, of its rivals and of people."""

    events: EventConfig
    held: list[np.ndarray]
    known: TrainingPieces
    rows: dict[str, list[np.ndarray]]  # int64 [tokens] each
    facts: dict[str, Any]


def study_of_pieces(folder: Path, drawing: Drawing) -> PieceStudy:
    """Draw every row of a run of a language model of events.

    Raises:
        UserError: no model there, nothing was held out, or the pieces changed.
    """
    path = folder / LM_FILE
    model, content = load_language_model(path, "events", str(drawing.device))
    events = build_config(EventConfig, content["events"], path)
    names = {f.name for f in dataclasses.fields(DataConfig)}
    config = build_config(DataConfig, {name: value for name, value in content["data"].items() if name in names}, path)
    pieces = load_pieces(dataclasses.replace(config, data=drawing.data or config.data), events)
    if pieces.fingerprint != content["data_hash"]:
        raise UserError(f"{pieces.folder}: its pieces are not those the model was trained on; run train_lm.py --restart on them first")
    if len(pieces.held) < LEAST_HELD:
        raise UserError(
            f"{folder}: {plural(len(pieces.held), 'piece')} held out, at least {LEAST_HELD} are needed to compare with; "
            "train on more pieces, with --holdout above 0"
        )
    vocabulary, count, seed = event_vocabulary(events), drawing.count, drawing.seed
    rows = {MODEL: sample_events(model, vocabulary, range(seed, seed + count), drawing.sample, drawing.length)}
    for name, order in ((f"{N_GRAM}-gram", N_GRAM), ("unigram", 1)):
        grams = NGram(pieces.train, vocabulary.size, order)
        rngs = (np.random.default_rng(np.random.SeedSequence([seed, order, number])) for number in range(count))
        rows[name] = [grams.sample(vocabulary.bos, vocabulary.eos, drawing.length, rng) for rng in rngs]
    rng = np.random.default_rng(seed)
    rows[TRAIN] = [pieces.train[i] for i in rng.permutation(len(pieces.train))[:count]]
    known = TrainingPieces([piece.numpy() for piece in content["known"]["tokens"]], content["known"]["names"])
    return PieceStudy(events, pieces.held, known, rows, {"language_model": lm_facts(model, content, pieces)})
