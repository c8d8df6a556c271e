"""Checkpoints: whole or not at all, plain types only, and one line for everything that is wrong with a file."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from checkpoints import (
    BASE_NAME,
    DIFFUSION_KIND,
    FORMAT,
    VAE_KIND,
    build_config,
    keep_aside,
    known_riffs,
    load_diffusion,
    load_model,
    load_vae,
    read_checkpoint,
    riffs_by_origin,
    save_checkpoint,
    training_riffs,
    weights_hash,
)
from config import DIFFUSION_FILE, VAE_FILE, DiffusionConfig, TokenizerConfig, UserError, VAEConfig
from diffusion import LatentDiffusion
from models import MusicVAE
from presets import TrainVAE, preset_options
from resuming import plain_options

torch.set_num_threads(1)

TOKENIZER = TokenizerConfig(steps_per_beat=2)
SIZES = {"embed_size": 6, "encoder_size": 5, "decoder_size": 7, "z_size": 3}
DENOISER = {"hidden_size": 4, "blocks": 1, "num_timesteps": 10}
RIFFS = np.array([[50, 128, 52, *[0] * 13], [60, 0, 61, *[128] * 13]])


def new_vae(seed: int = 0, **sizes: int) -> MusicVAE:
    torch.manual_seed(seed)
    return MusicVAE(VAEConfig(**{**SIZES, **sizes}), TOKENIZER)


def new_diffusion(z_size: int = 3, **sizes: int) -> LatentDiffusion:
    torch.manual_seed(1)
    return LatentDiffusion(z_size, DiffusionConfig(**{**DENOISER, **sizes}))  # type: ignore[arg-type]


def vae_content(vae: MusicVAE) -> dict[str, Any]:
    return {
        "kind": VAE_KIND,
        "tokenizer": dataclasses.asdict(vae.tokenizer),
        "model": dataclasses.asdict(vae.config),
        "weights": vae.state_dict(),
        "data": {"data": "riffs", "bpm": 100.0, "program": 27},
        "data_hash": "0123",
        "known": known_riffs(RIFFS, ["a bar 1", "b bar 1"]),
        "step": 7,
        "best": {"step": 5, "objective": 1.5},
        "options": plain_options(preset_options(TrainVAE, "riff_2bar_tiny")),
    }


def diffusion_content(diffusion: LatentDiffusion, vae: MusicVAE) -> dict[str, Any]:
    return {
        "kind": DIFFUSION_KIND,
        "model": dataclasses.asdict(diffusion.config),
        "z_size": diffusion.z_size,
        "weights": diffusion.state_dict(),
        "vae_hash": weights_hash(vae.state_dict()),
        "data_hash": "0123",
        "step": 7,
        "options": {},
    }


@pytest.fixture
def vae_file(tmp_path: Path) -> Path:
    path = tmp_path / "riff_vae.pth"
    save_checkpoint(path, vae_content(new_vae()))
    return path


@pytest.fixture
def diffusion_file(tmp_path: Path) -> Path:
    path = tmp_path / "latent_diffusion.pth"
    save_checkpoint(path, diffusion_content(new_diffusion(), new_vae()))
    return path


def refused(path: Path, load: Callable[[], Any]) -> str:
    """The message of a UserError: one line that names the file."""
    with pytest.raises(UserError) as error:
        load()
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


# ---------------------------------------------------------------- round trip


def test_a_vae_comes_back_as_it_was(vae_file: Path) -> None:
    """Guards against a config that is not stored, and a model that comes back ready to train."""
    vae = new_vae()
    loaded, content = load_vae(vae_file)
    assert loaded.config == vae.config and loaded.tokenizer == TOKENIZER
    assert not loaded.training
    assert weights_hash(loaded.state_dict()) == weights_hash(vae.state_dict())
    assert (content["format"], content["step"], content["best"]["objective"]) == (FORMAT, 7, 1.5)
    tokens = torch.randint(129, (3, TOKENIZER.steps), generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(tokens)[0], vae.eval()(tokens)[0])


def test_a_diffusion_model_comes_back_with_its_normalisation(tmp_path: Path) -> None:
    """Guards against a latent mean and std that are left in a script."""
    vae, diffusion = new_vae(), new_diffusion()
    diffusion.latent_mean, diffusion.latent_std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.5, 2.5])
    save_checkpoint(tmp_path / "d.pth", diffusion_content(diffusion, vae))
    loaded, _ = load_diffusion(tmp_path / "d.pth", vae)
    assert loaded.config == diffusion.config
    for name, value in diffusion.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_checkpoint_is_plain_and_loads_safely(vae_file: Path, diffusion_file: Path) -> None:
    """Guards against a numpy scalar, a Path or a dataclass inside, which only an unsafe load would read."""

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(key) in (str, int) and plain(item) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool, torch.Tensor)

    for path in (vae_file, diffusion_file):
        assert plain(torch.load(path, weights_only=True))


def test_what_cannot_be_loaded_safely_is_refused(tmp_path: Path) -> None:
    """Guards against a load that would run code from a stranger's file."""
    path = tmp_path / "bad.pth"
    torch.save({"format": FORMAT, "kind": VAE_KIND, "step": np.float64(1), "where": Path("x"), "call": print}, path)
    refused(path, lambda: read_checkpoint(path, VAE_KIND))


def test_weights_hash_sees_values_and_names_but_not_order() -> None:
    """Guards against a hash that two VAEs share, or that changes when a dict is rebuilt."""
    weights = new_vae().state_dict()
    reordered = dict(reversed(list(weights.items())))
    name = next(iter(weights))
    changed = {**weights, name: weights[name] + 1e-6 * (torch.arange(weights[name].numel()).view_as(weights[name]) == 0)}
    renamed = {f"x{key}" if key == name else key: value for key, value in weights.items()}
    assert weights_hash(reordered) == weights_hash(weights)
    assert len({weights_hash(w) for w in (weights, changed, renamed, new_vae(1).state_dict())}) == 4


# ---------------------------------------------------------------- files that are wrong


def test_a_missing_file_says_which_script_makes_it(tmp_path: Path) -> None:
    for kind, script in ((VAE_KIND, "train_vae.py"), (DIFFUSION_KIND, "train_diffusion.py")):
        assert script in refused(tmp_path / "no.pth", lambda kind=kind: read_checkpoint(tmp_path / "no.pth", kind))
    refused(tmp_path, lambda: read_checkpoint(tmp_path, VAE_KIND))  # a folder


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_file_is_refused(vae_file: Path, share: float) -> None:
    """Guards against a traceback, or half a model, from a copy that was cut off; an empty file included."""
    data = vae_file.read_bytes()
    vae_file.write_bytes(data[: int(len(data) * share)])
    assert "train_vae.py" in refused(vae_file, lambda: load_vae(vae_file))


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    """Guards against errors of the unpickler that nobody thought of: 300 files of noise, some that begin like a checkpoint."""
    path = tmp_path / "noise.pth"
    rng = np.random.default_rng(0)
    heads = [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}", b"\x80\x04\x95", b"MThd", b"{}", b"\x80\x02c__builtin__\nprint\n"]
    for i in range(300):
        path.write_bytes(heads[i % len(heads)] + rng.bytes(int(rng.integers(1, 200))))
        refused(path, lambda: load_vae(path))


def test_a_damaged_byte_of_the_weights_never_passes_unseen(vae_file: Path) -> None:
    """Guards against a model with a wrong weight, which torch.load alone lets through: it does not look at the checksums."""
    data = vae_file.read_bytes()
    original = weights_hash(load_vae(vae_file)[0].state_dict())
    places = range(100, data.index(b"PK\x01\x02"), 211)  # up to the archive's table of contents
    assert len(places) > 100
    refusals = 0
    for at in places:
        vae_file.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            assert weights_hash(load_vae(vae_file)[0].state_dict()) == original, at  # padding
        except UserError as error:
            refusals += 1
            assert "\n" not in str(error) and str(vae_file) in str(error)
    assert refusals > len(places) / 2


def test_a_bare_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(new_vae().state_dict(), path)
    assert "bare state dict" in refused(path, lambda: load_vae(path))
    torch.save([1, 2], path)
    refused(path, lambda: load_vae(path))


def test_the_wrong_kind_is_refused_both_ways(vae_file: Path, diffusion_file: Path) -> None:
    text = refused(diffusion_file, lambda: load_vae(diffusion_file))
    assert "latent_diffusion" in text and "riff_vae" in text
    refused(vae_file, lambda: load_diffusion(vae_file, new_vae()))


def test_a_newer_format_is_refused(vae_file: Path) -> None:
    torch.save({**vae_content(new_vae()), "format": FORMAT + 1}, vae_file)
    assert "newer" in refused(vae_file, lambda: load_vae(vae_file))


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_an_unknown_config_key_is_refused_and_named(vae_file: Path, part: str) -> None:
    """Guards against options that are silently ignored, and models rebuilt without them."""
    content = vae_content(new_vae())
    content[part] = {**content[part], "attention_heads": 8}
    save_checkpoint(vae_file, content)
    assert "attention_heads" in refused(vae_file, lambda: load_vae(vae_file))


@pytest.mark.parametrize("key", ["model", "tokenizer", "weights", "data", "data_hash", "known", "step", "options"])
def test_a_missing_key_of_a_vae_is_refused(vae_file: Path, key: str) -> None:
    """Guards against a KeyError traceback, at once or later in a script."""
    content = vae_content(new_vae())
    del content[key]
    save_checkpoint(vae_file, content)
    assert key in refused(vae_file, lambda: load_vae(vae_file))


@pytest.mark.parametrize("key", ["model", "z_size", "weights", "vae_hash", "data_hash", "step", "options"])
def test_a_missing_key_of_a_diffusion_model_is_refused(diffusion_file: Path, key: str) -> None:
    content = diffusion_content(new_diffusion(), new_vae())
    del content[key]
    save_checkpoint(diffusion_file, content)
    assert key in refused(diffusion_file, lambda: load_diffusion(diffusion_file, new_vae()))


def test_a_config_value_out_of_range_is_refused_with_the_file(vae_file: Path) -> None:
    """Guards against a message about a flag that nobody gave."""
    content = vae_content(new_vae())
    content["model"] = {**content["model"], "z_size": 0}
    save_checkpoint(vae_file, content)
    assert "z-size" in refused(vae_file, lambda: load_vae(vae_file))


def test_weights_of_another_shape_are_refused_and_named(vae_file: Path) -> None:
    """Guards against the many lines of load_state_dict, and against a partial load."""
    content = vae_content(new_vae())
    content["weights"] = new_vae(decoder_size=9).state_dict()
    save_checkpoint(vae_file, content)
    assert "decoder" in refused(vae_file, lambda: load_vae(vae_file))


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_missing_and_unexpected_weights_are_refused_and_named(vae_file: Path, change: str) -> None:
    content = vae_content(new_vae())
    weights = dict(content["weights"])
    weights["extra.weight"] = weights.pop("decoder.output.bias") if change == "missing" else torch.zeros(1)
    content["weights"] = weights
    save_checkpoint(vae_file, content)
    assert ("decoder.output.bias" if change == "missing" else "extra.weight") in refused(vae_file, lambda: load_vae(vae_file))


def test_the_diffusion_of_another_vae_is_refused(diffusion_file: Path) -> None:
    """Guards against latents of one VAE decoded by another, which sounds almost right."""
    load_diffusion(diffusion_file, new_vae())
    assert "another VAE" in refused(diffusion_file, lambda: load_diffusion(diffusion_file, new_vae(1)))


def test_load_model_knows_both_kinds(vae_file: Path, diffusion_file: Path) -> None:
    assert isinstance(load_model(vae_file, VAE_KIND)[0], MusicVAE)
    assert isinstance(load_model(diffusion_file, DIFFUSION_KIND)[0], LatentDiffusion)


def test_build_config_takes_missing_values_from_the_defaults() -> None:
    """A checkpoint of an older version, before an option existed, still loads."""
    assert build_config(TokenizerConfig, {"bars": 4}, "x") == TokenizerConfig(bars=4)


# ---------------------------------------------------------------- a save that fails


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["write", "half a write", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(vae_file: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Guards against a checkpoint that is truncated before the new one is whole."""
    before = vae_file.read_bytes()
    real = Path.write_bytes

    def half(path: Path, data: bytes) -> None:
        real(path, data[: len(data) // 2])
        full_disk()

    with monkeypatch.context() as patch:
        if where == "replace":
            patch.setattr(os, "replace", full_disk)
        else:
            patch.setattr(Path, "write_bytes", half if where == "half a write" else full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(vae_file, vae_content(new_vae(1)))
    assert vae_file.read_bytes() == before
    assert [path.name for path in vae_file.parent.iterdir()] == [vae_file.name]


def test_a_killed_save_leaves_the_old_file(vae_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against writing in place: at no moment before the last is the old file touched."""
    before = vae_file.read_bytes()
    seen: list[bytes] = []
    real = os.replace

    def watch(source: Path, target: Path) -> None:
        seen.append(vae_file.read_bytes())
        assert checkpoints.read_checkpoint(source, VAE_KIND)["step"] == 7  # whole before it is renamed
        real(source, target)

    monkeypatch.setattr(os, "replace", watch)
    save_checkpoint(vae_file, vae_content(new_vae(1)))
    assert seen == [before]
    assert weights_hash(load_vae(vae_file)[0].state_dict()) == weights_hash(new_vae(1).state_dict())


# ---------------------------------------------------------------- keeping aside


def test_keep_aside_takes_the_first_free_number(tmp_path: Path) -> None:
    """Guards against a restart that overwrites what an earlier restart kept."""
    path = tmp_path / "riff_vae.pth"
    assert keep_aside(path) is None
    for number, text in enumerate(("one", "two", "three"), start=1):
        path.write_text(text)
        assert keep_aside(path) == tmp_path / f"riff_vae.pth.old-{number}"
        assert not path.exists()
    (tmp_path / "riff_vae.pth.old-2").unlink()
    path.write_text("four")
    keep_aside(path)
    assert {p.name[-1]: p.read_text() for p in tmp_path.iterdir()} == {"1": "one", "2": "four", "3": "three"}


# ---------------------------------------------------------------- the riffs that the weights have seen


def test_known_riffs_come_back_with_those_of_the_model_before(vae_file: Path) -> None:
    """Guards against a copy of the base model's riffs that counts as new, and a prefix for every generation."""
    other = np.array([[70, 128, 75, *[0] * 13]])
    first = known_riffs(RIFFS, ["a bar 1", "b bar 1"])
    second = known_riffs(other, ["c bar 1"], first)
    third = known_riffs(RIFFS[1:], ["b bar 1"], second)
    assert second["names"] == ["c bar 1", f"{BASE_NAME}a bar 1", f"{BASE_NAME}b bar 1"]
    assert third["names"] == ["b bar 1", f"{BASE_NAME}c bar 1", f"{BASE_NAME}a bar 1", f"{BASE_NAME}b bar 1"]
    save_checkpoint(vae_file, {**vae_content(new_vae()), "known": third})
    known = training_riffs(read_checkpoint(vae_file, VAE_KIND), TOKENIZER)
    nearest = known.nearest(np.concatenate([other + 1 * (other > 0) * (other < 128), RIFFS]))
    assert [known.names[i] for i in nearest.index] == [f"{BASE_NAME}c bar 1", f"{BASE_NAME}a bar 1", "b bar 1"]
    assert nearest.copy.all()
    assert torch.equal(third["tokens"], torch.from_numpy(np.concatenate([RIFFS[1:], other, RIFFS])).to(torch.uint8))


def test_the_riffs_of_a_run_stand_apart_from_those_of_its_base_model() -> None:
    """Guards against a nearest training riff that its owner has never seen, and names that say twice where they come from."""
    other = np.array([[70, 128, 75, *[0] * 13]])
    alone = known_riffs(RIFFS, ["a bar 1", "b bar 1"])
    tuned = known_riffs(other, ["c bar 1"], known_riffs(RIFFS[1:], ["b bar 1"], known_riffs(RIFFS[:1], ["a bar 1"])))
    own, base = riffs_by_origin({"known": alone}, TOKENIZER)
    assert own.names == ["a bar 1", "b bar 1"] and base is None
    own, base = riffs_by_origin({"known": tuned}, TOKENIZER)
    assert base is not None and (own.names, base.names) == (["c bar 1"], ["b bar 1", "a bar 1"])
    for riffs, tokens in ((own, other), (base, RIFFS[::-1])):
        nearest = riffs.nearest(tokens)
        assert nearest.copy.all() and nearest.index.tolist() == list(range(len(tokens)))
    assert not own.nearest(RIFFS).copy.any() and not base.nearest(other).copy.any()


def test_a_checkpoint_of_the_first_format_is_read_as_it_was(finished: Path, tmp_path: Path) -> None:
    """Its weights had other names, and options that came later are at their defaults."""
    vae, content = load_vae(finished / VAE_FILE)
    old = dict(content)
    old["format"] = 1
    names = (("embedding.parts.0.", "embedding."), ("encoder.rnn.", "encoder.gru."), ("decoder.layers.rnn.", "decoder.gru."))
    for new, before in names:
        old["weights"] = {before + name.removeprefix(new) if name.startswith(new) else name: w for name, w in old["weights"].items()}
    assert {"embedding.token.weight", "embedding.in_bar.weight", "decoder.gru.weight_hh_l0"} <= set(old["weights"])
    old["model"] = {name: value for name, value in old["model"].items() if name not in ("cell", "level_lengths", "decoder_layers")}
    old["tokenizer"] = {name: value for name, value in old["tokenizer"].items() if name not in ("representation", "given")}
    old.pop("songs")
    torch.save(old, tmp_path / VAE_FILE)
    again, found = load_vae(tmp_path / VAE_FILE)
    assert again.config == vae.config and again.tokenizer == vae.tokenizer and found["tokenizer"] == content["tokenizer"]
    assert all(torch.equal(one, other) for one, other in zip(again.state_dict().values(), vae.state_dict().values(), strict=True))


def test_a_prior_knows_its_vae_in_the_first_format(finished: Path, tmp_path: Path) -> None:
    """Its file holds the hash that the VAE had under the old names."""
    vae, _ = load_vae(finished / VAE_FILE)
    old = {"embedding.parts.0.": "embedding.", "encoder.rnn.": "encoder.gru.", "decoder.layers.rnn.": "decoder.gru."}
    names = {
        name: next((now + name.removeprefix(new) for new, now in old.items() if name.startswith(new)), name) for name in vae.state_dict()
    }
    digest = hashlib.sha256()
    for name, weight in sorted((names[name], weight) for name, weight in vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.numpy().tobytes())
    content = torch.load(finished / DIFFUSION_FILE, weights_only=True)
    assert content["vae_hash"] == digest.hexdigest()[:16]
    torch.save(content | {"format": 1}, tmp_path / DIFFUSION_FILE)
    load_diffusion(tmp_path / DIFFUSION_FILE, vae)
