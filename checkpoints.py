"""Checkpoints: what is in them, how they are written and read. `load_model` is the only way a script gets a trained model.

A checkpoint is one file of plain types, read with weights_only=True. Keys: format, kind, tokenizer, model (configs as
dicts), weights, data (fingerprint, folder and what generated riffs inherit), known (the riffs the weights have seen, to say
how much of a new one is copied), step, best, options (for the record); a diffusion checkpoint also vae_hash and z_size. The
file to resume from holds optimizer besides, and raw_weights (not averaged) of a diffusion model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from config import (
    TOKEN_FILE,
    DataConfig,
    DiffusionConfig,
    EventConfig,
    LMConfig,
    SampleConfig,
    SongConfig,
    TokenizerConfig,
    UserError,
    VAEConfig,
)
from dataset import RiffData, load_riffs
from diffusion import LatentDiffusion
from family.corpus import WindowData, load_windows
from files import write_file
from language_model import LanguageModel
from measures.novelty import TrainingRiffs
from models import MusicVAE
from pieces import vocabulary
from presets import TrainVAE, is_of_windows, preset_options

FORMAT = 2
BASE_NAME = "base model: "  # before the names of riffs that a model was not trained on itself
VAE_KIND, DIFFUSION_KIND, LM_KIND = "riff_vae", "latent_diffusion", "language_model"
MAKER = {VAE_KIND: "train_vae.py", DIFFUSION_KIND: "train_diffusion.py", LM_KIND: "train_lm.py"}
REQUIRED = {
    VAE_KIND: ("tokenizer", "model", "weights", "data", "data_hash", "known", "step", "options"),
    DIFFUSION_KIND: ("model", "z_size", "weights", "vae_hash", "data_hash", "step", "options"),
    LM_KIND: ("tokenizer", "events", "model", "weights", "data", "data_hash", "known", "step", "options"),
}

CONFIGS: dict[str, dict[str, Any]] = {
    VAE_KIND: {"tokenizer": TokenizerConfig, "model": VAEConfig},
    DIFFUSION_KIND: {"model": DiffusionConfig},
    LM_KIND: {"tokenizer": TokenizerConfig, "model": LMConfig},
}

Config = TypeVar("Config", TokenizerConfig, EventConfig, VAEConfig, DiffusionConfig, LMConfig, DataConfig, SongConfig)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """A fingerprint of a state dict: 16 hexadecimal digits that change when any weight does."""
    digest = hashlib.sha256()
    for name, weight in sorted((_first_name(name), weight) for name, weight in weights.items()):  # priors know VAEs of the first format
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


# What weights of a VAE were called in the first format, and are called now.
RENAMED = (("embedding.", "embedding.parts.0."), ("encoder.gru.", "encoder.rnn."), ("decoder.gru.", "decoder.layers.rnn."))


def _renamed(name: str) -> str:
    """What a weight of the first format is called now."""
    for old, new in RENAMED:
        if name.startswith(old) and not name.startswith(("embedding.in_bar.", "embedding.bar.")):
            return new + name.removeprefix(old)
    return name


def _first_name(name: str) -> str:
    """The inverse of _renamed."""
    return next((old + name.removeprefix(new) for old, new in RENAMED if name.startswith(new)), name)


def save_checkpoint(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all; a full disk leaves the old file as it was."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_file(path, buffer.getvalue())


def read_checkpoint(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Read a checkpoint and make sure it is one of ours, of the kind asked for.

    Args:
        kind: VAE_KIND, DIFFUSION_KIND or LM_KIND.

    Raises:
        UserError: missing, damaged, foreign, of another kind or of a newer format.
    """
    path = Path(path)
    maker = MAKER[kind]
    if not path.is_file():
        others = [other.name for other in sorted(path.parent.glob("*.pth"))]
        there = (
            f" (there: {', '.join(others)}; was it another --preset, or a run that was stopped before its first look?)" if others else ""
        )
        raise UserError(f"{path}: no such checkpoint{there}; run {maker} first, or give the --run-dir it is in")
    data = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(data) as archive:
            if archive.testzip():  # torch.load does not look at the checksums: a damaged weight would pass
                raise zipfile.BadZipFile
        data.seek(0)
        content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception:  # a damaged or foreign file raises RuntimeError, BadZipFile, UnpicklingError, EOFError, OSError, zlib.error, ...
        raise UserError(f"{path}: damaged, or not a checkpoint of this project; restore it or train again with {maker} --restart") from None
    if not isinstance(content, dict) or "kind" not in content or "format" not in content:
        raise UserError(f"{path}: holds no model of this project (a bare state dict?); train one with {maker}")
    if content["kind"] != kind:
        raise UserError(f"{path}: is a {content['kind']} checkpoint, a {kind} one is needed; {maker} writes it")
    if content["format"] > FORMAT:
        raise UserError(f"{path}: was written by a newer version of this project (format {content['format']}); update the project")
    if content["format"] == 1 and kind == VAE_KIND and "weights" in content:
        content["weights"] = {_renamed(name): weight for name, weight in content["weights"].items()}
    for key, config in CONFIGS[kind].items():
        if isinstance(content.get(key), dict):  # an option that was not there yet is at its default
            content[key] = {f.name: f.default for f in dataclasses.fields(config)} | content[key]
    missing = [key for key in REQUIRED[kind] if key not in content]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)} in it; train it again with this version: {maker} --restart")
    return content


def build_config(kind: type[Config], values: Mapping[str, Any], path: str | os.PathLike[str]) -> Config:
    """Rebuild a config dataclass from a checkpoint's dict; unknown keys are errors.

    Raises:
        UserError: a key this version does not know, or a value it does not allow.
    """
    unknown = set(values) - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise UserError(f"{path}: this version does not know the option {', '.join(sorted(unknown))}; update the project")
    try:
        return kind(**values)
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}; the file is damaged, or of another version of this project") from None


def load_weights(model: torch.nn.Module, weights: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Fill a model, or say in one line what does not fit.

    Raises:
        UserError: missing, unexpected or differently shaped weights; the first is named.
    """
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(weights)) + [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        name = wrong[0]
        shapes = f" (there {list(weights[name].shape)}, here {list(own[name].shape)})" if name in own and name in weights else ""
        raise UserError(
            f"{path}: its weights do not fit this model: {name}{shapes}; use the preset it was trained with, or other weights (--init-from)"
        )
    model.load_state_dict(weights)


def load_model(
    path: str | os.PathLike[str], kind: str, device: str = "cpu"
) -> tuple[MusicVAE | LatentDiffusion | LanguageModel, dict[str, Any]]:
    """Rebuild a trained model from its checkpoint, ready for evaluation.

    Args:
        kind: VAE_KIND, DIFFUSION_KIND or LM_KIND.

    Returns:
        the model, and the rest of the checkpoint.

    Raises:
        UserError: see read_checkpoint.
    """
    content = read_checkpoint(path, kind)
    model: MusicVAE | LatentDiffusion | LanguageModel
    if kind == VAE_KIND:
        tokenizer = build_config(TokenizerConfig, content["tokenizer"], path)
        model = MusicVAE(build_config(VAEConfig, content["model"], path), tokenizer)
    elif kind == LM_KIND:
        config = build_config(LMConfig, content["model"], path)
        tokenizer, events = build_config(TokenizerConfig, content["tokenizer"], path), build_config(EventConfig, content["events"], path)
        model = LanguageModel(config, vocabulary(config, tokenizer, events).size)
    else:
        model = LatentDiffusion(content["z_size"], build_config(DiffusionConfig, content["model"], path))
    load_weights(model, content["weights"], path)
    return model.to(device).eval(), content


def load_vae(path: str | os.PathLike[str], device: str = "cpu") -> tuple[MusicVAE, dict[str, Any]]:
    """load_model for a riff VAE."""
    model, content = load_model(path, VAE_KIND, device)
    assert isinstance(model, MusicVAE)
    return model, content


def load_diffusion(path: str | os.PathLike[str], vae: MusicVAE, device: str = "cpu") -> tuple[LatentDiffusion, dict[str, Any]]:
    """load_model for a latent diffusion model, which must have been trained on this very VAE.

    Raises:
        UserError: it belongs to another VAE.
    """
    model, content = load_model(path, DIFFUSION_KIND, device)
    assert isinstance(model, LatentDiffusion)
    if content["vae_hash"] != weights_hash(vae.state_dict()):
        raise UserError(
            f"{path}: was trained on the latents of another VAE; run train_diffusion.py --restart for this one, or give --prior normal"
        )
    return model, content


def load_prior(path: str | os.PathLike[str], vae: MusicVAE, sample: SampleConfig, device: str = "cpu") -> LatentDiffusion:
    """load_diffusion for drawing with some settings.

    Raises:
        UserError: it belongs to another VAE, or has fewer timesteps than steps are asked for.
    """
    model, _ = load_diffusion(path, vae, device)
    timesteps = model.config.num_timesteps
    if sample.sampling_steps > timesteps:
        raise UserError(f"--sampling-steps {sample.sampling_steps}: this model has {timesteps} timesteps; give that many or fewer")
    return model


def load_language_model(
    path: str | os.PathLike[str], tokens: Literal["events", "riff"], device: str = "cpu"
) -> tuple[LanguageModel, dict[str, Any]]:
    """load_model for a language model of events or of riffs.

    Raises:
        UserError: it is one of the other kind.
    """
    model, content = load_model(path, LM_KIND, device)
    assert isinstance(model, LanguageModel)
    if model.config.tokens != tokens:
        raise UserError(f"{path}: is a model of {model.config.tokens}, one of {tokens} is needed; give the --preset it was trained with")
    return model, content


def load_same_riffs(vae_content: Mapping[str, Any], tokenizer: TokenizerConfig, folder: str, path: str | os.PathLike[str]) -> RiffData:
    """The riffs the VAE was trained on, split as they were then.

    Args:
        folder: where they are now, or "" for where they were.

    Raises:
        UserError: they changed.
    """
    require_riffs(vae_content, path)
    riff_data = load_riffs(_data_config(vae_content, folder, path), tokenizer)
    if riff_data.fingerprint != vae_content["data_hash"]:
        raise UserError(
            f"{riff_data.folder}: its riffs are not those that {path} was trained on; run train_vae.py --restart in that --run-dir, "
            "or give the old riffs with --data"
        )
    return riff_data


def _data_config(vae_content: Mapping[str, Any], folder: str, path: str | os.PathLike[str]) -> DataConfig:
    """What a VAE was trained on, or the same in another folder."""
    known = {f.name for f in dataclasses.fields(DataConfig)}
    config = build_config(DataConfig, {name: value for name, value in vae_content["data"].items() if name in known}, path)
    return dataclasses.replace(config, data=folder or config.data)


def songs_config(vae_content: Mapping[str, Any], path: str | os.PathLike[str]) -> SongConfig:
    """Which windows of songs a VAE was trained on; songs is False for riffs."""
    return build_config(SongConfig, vae_content.get("songs", {}), path)


def require_riffs(vae_content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """
    Raises:
        UserError: the VAE is of windows of songs, where one of riffs is needed.
    """
    if songs_config(vae_content, path).songs:
        preset = vae_content["options"].get("preset", "")
        raise UserError(
            f"{path}: is a VAE of windows of songs; train_diffusion.py and generate.py take it with --preset {preset}, this does not"
        )


def require_kind(vae: MusicVAE, content: Mapping[str, Any], preset: str, path: str | os.PathLike[str]) -> None:
    """
    Raises:
        UserError: a preset is of other music than the VAE: its options would mean something else.
    """
    own = content["options"].get("preset", "")
    ours, theirs = vae.tokenizer, preset_options(TrainVAE, preset).tokenizer
    same = (ours.representation, ours.given) == (theirs.representation, theirs.given)
    if preset != own and not (same and songs_config(content, path).songs == is_of_windows(preset)):
        raise UserError(f"{path}: is not of the music of --preset {preset}; give --preset {own}")


def load_same_windows(
    vae_content: Mapping[str, Any], tokenizer: TokenizerConfig, folder: str, path: str | os.PathLike[str], may_make: bool = False
) -> WindowData:
    """load_same_riffs for windows of songs: out of the token file that the VAE was trained on.

    Args:
        folder: where the songs are now; of use only if the token file is gone.
        may_make: whether a token file that is gone may be made anew.

    Raises:
        UserError: they changed, or the token file is gone.
    """
    token_file = Path(path).parent / TOKEN_FILE
    data = _data_config(vae_content, "", path)
    if token_file.exists() and not (data.data.endswith(".npy") and Path(data.data).exists()):
        data = dataclasses.replace(data, data=str(token_file))
    elif folder:
        data = dataclasses.replace(data, data=folder)
    made = data.data.endswith(".npy")
    if not (Path(data.data).exists() if made else may_make):
        raise UserError(
            f"{data.data if made else token_file}: is gone; `python train_diffusion.py --data FOLDER` makes it anew from the songs"
        )
    windows = load_windows(data, songs_config(vae_content, path), tokenizer, token_file, may_change=False)
    if windows.fingerprint != vae_content["data_hash"]:
        raise UserError(
            f"{windows.folder}: its windows are not those that {path} was trained on; run train_vae.py --restart in that --run-dir, "
            "or give the old songs with --data"
        )
    return windows


def known_riffs(tokens: np.ndarray, names: Sequence[str], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The riffs that a VAE's weights have seen, for its checkpoint: its own training riffs, then those of the model it started from.

    Args:
        tokens: int [riffs, steps]
        before: the other model's entry.
    """
    ours = torch.from_numpy(tokens.astype(np.uint8))  # the largest token is 128
    if before is None:
        return {"tokens": ours, "names": list(names)}
    inherited = [name if name.startswith(BASE_NAME) else BASE_NAME + name for name in before["names"]]
    return {"tokens": torch.cat([ours, before["tokens"]]), "names": [*names, *inherited]}


def training_riffs(content: Mapping[str, Any], tokenizer: TokenizerConfig) -> TrainingRiffs:
    """What riffs of a VAE are to be original against: all that its weights have seen. content: of its checkpoint"""
    known = content["known"]
    return TrainingRiffs(known["tokens"].numpy().astype(np.int64), known["names"], tokenizer)


def riffs_by_origin(content: Mapping[str, Any], tokenizer: TokenizerConfig) -> tuple[TrainingRiffs, TrainingRiffs | None]:
    """The riffs a VAE was trained on itself, and those of the model it started from (None without one). content: of its checkpoint"""
    names, tokens = content["known"]["names"], content["known"]["tokens"].numpy().astype(np.int64)
    own = np.array([not name.startswith(BASE_NAME) for name in names])
    ours = TrainingRiffs(tokens[own], [name for name, mine in zip(names, own, strict=True) if mine], tokenizer)
    if own.all():
        return ours, None
    return ours, TrainingRiffs(
        tokens[~own], [name.removeprefix(BASE_NAME) for name, mine in zip(names, own, strict=True) if not mine], tokenizer
    )


def keep_aside(path: str | os.PathLike[str]) -> Path | None:
    """Rename a file to the first free <name>.old-1, <name>.old-2, ...; returns the new name, or None if there was no file."""
    path = Path(path)
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return path.rename(aside)
