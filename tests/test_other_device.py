"""That models work on another device: on one that only PyTorch's fake tensors know, so that this is seen without a GPU. Two tensors on
different devices in one operation, or a number read back in the middle of a loop, are errors there; copies between devices are not."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_family import EACH_DECODER, EACH_KIND, KINDS, SIZES
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from config import DiffusionConfig, EventConfig, LMConfig, SampleConfig, TokenizerConfig
from denoising import predicted
from diffusion import LatentDiffusion, denoiser_at_times
from language_model import LanguageModel
from lm_sampling import continue_sequences, event_grammar
from models import Draws, MusicVAE, kl_cost, kl_nats
from pieces import event_vocabulary, riff_vocabulary
from sampling import automaton, decode, decode_steps
from steering.rules import RiffRules

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # read to see whether weights have moved
B = 3
OTHER = torch.device("meta")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know this device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    with FakeTensorMode():
        yield


def made(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> MusicVAE:
    with OTHER:
        return MusicVAE(dataclasses.replace(SIZES, **decoder), tokenizer)


def music(tokenizer: TokenizerConfig) -> torch.Tensor:
    if tokenizer.representation == "groove":
        return torch.rand(B, tokenizer.steps, 27, device=OTHER)
    parts = [torch.randint(size, (B, tokenizer.steps), device=OTHER) for size in tokenizer.vocab_sizes]
    return torch.stack(parts, dim=-1) if len(parts) > 1 else parts[0]


def test_what_this_is_based_on() -> None:
    """Fake tensors see both mistakes."""
    here, there = torch.ones(2), torch.ones(2, device=OTHER)
    with pytest.raises(Exception, match="same device"):
        here + there
    with pytest.raises(DataDependentOutputException):
        there.sum().item()


@EACH_KIND
@EACH_DECODER
def test_training(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    vae, steps = made(tokenizer, decoder), music(tokenizer)
    shape = (B, tokenizer.steps)
    draws = Draws(
        noise=torch.randn(B, SIZES.z_size, device=OTHER),
        keep=torch.rand(shape, device=OTHER) < 0.5,
        from_model=torch.rand(shape, device=OTHER) < 0.5,
        uniform=torch.rand(*shape, vae.embedding.draws, device=OTHER),
    )
    logits, mu, logvar = vae(steps, draws)
    loss = vae.reconstruction_nats(logits, steps).mean() + kl_cost(kl_nats(mu, logvar), 48.0).mean()
    loss.backward()


@EACH_KIND
@EACH_DECODER
def test_decoding(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    vae = made(tokenizer, decoder).eval()
    z, uniform = torch.randn(B, SIZES.z_size, device=OTHER), torch.rand(B, tokenizer.steps, vae.embedding.draws, device=OTHER)
    for sample in (SampleConfig(), SampleConfig(temperature=1.0, top_k=5, top_p=0.9), SampleConfig(temperature=0.0)):
        assert decode_steps(vae, z, uniform, sample).device == OTHER


def test_riffs_by_rules() -> None:
    vae = made(KINDS["mono"], {}).eval()
    z, uniform = torch.randn(B, SIZES.z_size, device=OTHER), torch.rand(B, KINDS["mono"].steps, device=OTHER)
    assert decode(vae, z, uniform, SampleConfig(top_p=0.9), RiffRules(KINDS["mono"])).device == OTHER


def test_diffusion() -> None:
    with OTHER:
        diffusion = LatentDiffusion(SIZES.z_size, DiffusionConfig(hidden_size=16, blocks=2, conditions="density,rests"))
        z, told, times = torch.randn(B, SIZES.z_size), torch.rand(B, 2), torch.arange(5)
    diffusion(z, times[:B], z, told).mean().backward()
    at_times = denoiser_at_times(diffusion.denoiser, times, B, told[:1])
    for i in range(len(times)):
        z = predicted(at_times, i, z)
    assert z.device == OTHER


@pytest.mark.parametrize("copy_size", [0, 4])
def test_language_models(copy_size: int) -> None:
    """Events in more than one loop, by their grammar and without an end (whether all have ended is read back), and riffs by their rules."""
    tokenizer, sample = TokenizerConfig(bars=1), SampleConfig(temperature=1.0, top_k=5, top_p=0.9)
    sizes = LMConfig(embed_size=8, hidden_size=16, copy_size=copy_size, copy_window=7, copy_lag=3, position_buckets=copy_size)
    for vocabulary, steps, given in ((event_vocabulary(EventConfig()), 300, 4), (riff_vocabulary(tokenizer), tokenizer.steps, 1)):
        with OTHER:
            model = LanguageModel(sizes, vocabulary.size)
            tokens, uniform = torch.randint(vocabulary.size, (B, given)), torch.rand(B, steps)
        model(tokens)[0].logsumexp(dim=-1).sum().backward()
        rules = event_grammar(B, vocabulary, True, OTHER) if given > 1 else automaton(RiffRules(tokenizer), B, OTHER, more=1)
        assert continue_sequences(model.eval(), tokens, rules, uniform, sample, None).shape == (B, steps)
