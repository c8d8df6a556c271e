"""Sampling: what a token is drawn from, legal riffs, denoising against exact answers, and one seed, one riff, in any company."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

import graphs
from config import HOLD, REST, DiffusionConfig, SampleConfig, TokenizerConfig
from denoising import x0_and_eps
from diffusion import LatentDiffusion, NoiseSchedule
from midi_utils import is_legal
from models import MusicVAE
from presets import TrainVAE, preset_options
from sampling import (
    CHUNK,
    automaton,
    decode,
    decode_steps,
    decode_weighed,
    denoising_times,
    reconstruct,
    sample_latents,
    sample_riffs,
    token_probabilities,
)
from steering.rules import Demands, RiffRules
from stepwise import legal_at, take_token

torch.set_num_threads(1)

EIGHTHS = TokenizerConfig(steps_per_beat=2)  # two bars in 16 steps
PLAIN = TokenizerConfig(steps_per_beat=2, hold_token=False)
TINY = dataclasses.replace(
    preset_options(TrainVAE, "riff_2bar_tiny").model, embed_size=12, encoder_size=10, decoder_size=14, z_size=5, position_size=4
)
V = 7  # tokens in the tests of token_probabilities


def awake(model: nn.Module, scale: float = 0.6) -> nn.Module:
    """The model with every weight random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, scale, generator=generator)
    return model.eval()


def awake_vae(tokenizer: TokenizerConfig = EIGHTHS) -> MusicVAE:
    vae = awake(MusicVAE(TINY, tokenizer))
    assert isinstance(vae, MusicVAE)
    return vae


def awake_diffusion(num_timesteps: int = 20) -> LatentDiffusion:
    diffusion = awake(LatentDiffusion(TINY.z_size, DiffusionConfig(hidden_size=16, blocks=1, num_timesteps=num_timesteps)))
    assert isinstance(diffusion, LatentDiffusion)
    diffusion.latent_mean, diffusion.latent_std = torch.linspace(-1, 1, TINY.z_size), torch.linspace(0.5, 1.5, TINY.z_size)
    return diffusion


# ---------------------------------------------------------------- what a token is drawn from

rows = st.lists(st.floats(-30, 30, width=32), min_size=V, max_size=V)
masks = st.lists(st.booleans(), min_size=V, max_size=V).filter(any)
temperatures = st.sampled_from([0.0, 1e-6, 0.3, 1.0, 1.3, 100.0])
samples = st.builds(
    SampleConfig, temperature=temperatures, rest_penalty=st.floats(-4, 4), top_k=st.integers(0, V + 2), top_p=st.floats(0.001, 1.0)
)


def probabilities_of(logits: list[float], allowed: list[bool], sample: SampleConfig) -> np.ndarray:
    return token_probabilities(torch.tensor([logits]), torch.tensor([allowed]), sample)[0].numpy()


@given(logits=rows, allowed=masks, sample=samples)
@settings(max_examples=300, deadline=None)
def test_rows_are_distributions_over_what_is_allowed(logits: list[float], allowed: list[bool], sample: SampleConfig) -> None:
    """Guards against NaN, against a filter that keeps nothing, and against a forbidden token that comes back."""
    p = probabilities_of(logits, allowed, sample)
    assert np.isfinite(p).all() and (p >= 0).all()
    assert abs(p.sum() - 1) < 1e-5
    assert (p[~np.array(allowed)] == 0).all()
    if sample.top_k:
        assert (p > 0).sum() <= sample.top_k


@given(logits=rows, allowed=masks, k=st.integers(1, V + 1))
@settings(max_examples=100, deadline=None)
def test_top_k_keeps_the_k_likeliest(logits: list[float], allowed: list[bool], k: int) -> None:
    """Guards against top-k that counts forbidden tokens, keeps all ties, or keeps the least likely."""
    plain = probabilities_of(logits, allowed, SampleConfig())
    p = probabilities_of(logits, allowed, SampleConfig(top_k=k))
    kept = p > 0
    assert kept.sum() == min(k, (plain > 0).sum())
    if not kept.all():
        assert plain[kept].min() >= plain[~kept].max()
    np.testing.assert_allclose(p[kept], plain[kept] / plain[kept].sum(), rtol=1e-4)


@given(logits=rows, allowed=masks, top_p=st.floats(0.001, 0.999), temperature=st.sampled_from([0.3, 1.0, 1.3]))
@settings(max_examples=300, deadline=None)
def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass(
    logits: list[float], allowed: list[bool], top_p: float, temperature: float
) -> None:
    """Guards against top-p that keeps no token, stops one short of the mass, or keeps one too many."""
    plain = probabilities_of(logits, allowed, SampleConfig(temperature=temperature)).astype(np.float64)
    p = probabilities_of(logits, allowed, SampleConfig(temperature=temperature, top_p=top_p))
    kept = p > 0
    assert kept.sum() >= 1
    assert plain[kept].sum() >= top_p - 1e-5
    assert plain[kept].sum() - plain[kept].min() < top_p + 1e-5
    if not kept.all():
        assert plain[kept].min() >= plain[~kept].max()
    np.testing.assert_allclose(p[kept], plain[kept] / plain[kept].sum(), rtol=1e-3, atol=1e-7)


def test_top_p_on_known_numbers() -> None:
    """The mass is reached by the token that crosses it, which stays."""
    logits = np.log([0.1, 0.2, 0.4, 0.3]).tolist()
    for top_p, kept in (
        (0.01, [2]),
        (0.39, [2]),
        (0.41, [2, 3]),
        (0.69, [2, 3]),
        (0.71, [1, 2, 3]),
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ):
        p = probabilities_of(logits, [True] * 4, SampleConfig(temperature=1.0, top_p=top_p))
        assert np.flatnonzero(p).tolist() == kept, top_p


@given(logits=rows, allowed=masks, penalty=st.floats(-4, 4))
@settings(max_examples=100, deadline=None)
def test_temperature_0_is_the_likeliest_token(logits: list[float], allowed: list[bool], penalty: float) -> None:
    """Guards against a division by zero, and a likeliest token chosen before the penalty or the grammar."""
    sample = SampleConfig(temperature=0, rest_penalty=penalty, top_k=1, top_p=0.5)
    p = probabilities_of(logits, allowed, sample)
    penalised = np.array(logits, dtype=np.float32)
    penalised[REST] -= np.float32(penalty)
    penalised[~np.array(allowed)] = -np.inf
    assert sorted(p.tolist()) == [0] * (V - 1) + [1]
    assert penalised[p.argmax()] == penalised.max()


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-37, 1e-45, 1e-60, 1e-300])
def test_tiny_temperatures_are_the_likeliest_token_and_no_nan(temperature: float) -> None:
    """Guards against a temperature that is 0 in float32, and logits that overflow."""
    for logits in ([1, 5, 2, 4.5, 0, -3, 1], [-30, -10, -20, -30, -40, -50, -60], [0.0, 1, 0, 0, 0, 0, 0]):
        for top_p in (1.0, 0.5):
            p = probabilities_of([float(x) for x in logits], [True] * V, SampleConfig(temperature=temperature, top_p=top_p))
            assert p.tolist() == [0, 1, 0, 0, 0, 0, 0]


@given(
    logits=st.lists(st.floats(-5, 5, width=32), min_size=V, max_size=V),
    penalty=st.floats(0.1, 4),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
)
@settings(max_examples=100, deadline=None)
def test_rest_penalty_lowers_rests_alone_and_by_what_it_says(logits: list[float], penalty: float, temperature: float) -> None:
    """Guards against a penalty with the wrong sign, on the wrong token, or that reshuffles the notes."""
    plain = probabilities_of(logits, [True] * V, SampleConfig(temperature=temperature)).astype(np.float64)
    p = probabilities_of(logits, [True] * V, SampleConfig(temperature=temperature, rest_penalty=penalty)).astype(np.float64)
    assert p[REST] < plain[REST]
    np.testing.assert_allclose(p[1:] / p[1:].sum(), plain[1:] / plain[1:].sum(), rtol=1e-4)
    odds = (p[REST] / p[1:].sum()) / (plain[REST] / plain[1:].sum())
    np.testing.assert_allclose(odds, np.exp(-penalty / temperature), rtol=1e-3)


def test_each_row_is_its_own() -> None:
    """Guards against a filter that mixes the rows of a batch, and one that changes the logits it was given."""
    logits = 3 * torch.randn(20, V, generator=torch.Generator().manual_seed(0))
    allowed = torch.rand(20, V, generator=torch.Generator().manual_seed(1)) < 0.7
    allowed[:, 3] = True
    sample = SampleConfig(temperature=0.9, rest_penalty=1, top_k=4, top_p=0.8)
    before = logits.clone()
    together = token_probabilities(logits, allowed, sample)
    assert torch.equal(logits, before)
    for i in range(20):
        assert_close(token_probabilities(logits[i : i + 1], allowed[i : i + 1], sample)[0], together[i], atol=1e-6, rtol=0)


# ---------------------------------------------------------------- grammar


def test_grammar_forbids_a_hold_after_a_rest_and_at_the_start_and_nothing_else() -> None:
    """Guards against a mask that forbids a second hold, or allows one on the first step."""
    rules = automaton(RiffRules(EIGHTHS), 5)
    expected = torch.ones(5, 129, dtype=torch.bool)
    expected[:, HOLD] = False
    assert torch.equal(legal_at(rules, 0), expected)
    take_token(rules, 0, torch.tensor([REST, 1, 64, 127, 5]))
    expected[1:, HOLD] = True
    assert torch.equal(legal_at(rules, 1), expected)
    take_token(rules, 1, torch.tensor([64, HOLD, HOLD, REST, HOLD]))
    expected[:, HOLD] = torch.tensor([True, True, True, False, True])
    assert torch.equal(legal_at(rules, 2), expected)
    assert torch.equal(legal_at(automaton(RiffRules(PLAIN), 3), 0), torch.ones(3, 128, dtype=torch.bool))


def test_what_is_not_given_for_each_step_is_refused() -> None:
    """Guards against music that is cut short without a word."""
    vae, sample = awake_vae(), SampleConfig(temperature=1.0)
    z, right = torch.zeros(2, TINY.z_size), torch.zeros(2, EIGHTHS.steps)
    assert decode(vae, z, right, sample).shape == right.shape
    for wrong in (right[:, 1:], torch.zeros(2, EIGHTHS.steps + 1)):
        with pytest.raises(ValueError, match="16 are to be written"):
            decode(vae, z, wrong, sample)
        with pytest.raises(ValueError, match="16 are to be written"):
            decode_steps(vae, z, wrong.unsqueeze(-1), sample)


def test_each_riff_can_have_rules_of_its_own() -> None:
    """Guards against riffs that walk through each other's automata: rules of all sizes side by side, each riff as if it were alone."""
    vae = awake_vae()
    kinds = np.zeros((16, 3), dtype=bool)
    kinds[::2, 1] = kinds[1::2, 2] = True
    wanted = [Demands(), Demands(order=(40, 43, 47)), Demands(kinds=kinds), Demands(first=frozenset({50}), last=frozenset({45}))]
    rules = [RiffRules(EIGHTHS, demands) for demands in wanted * 2]
    generator = torch.Generator().manual_seed(0)
    z, uniform = torch.randn(8, TINY.z_size, generator=generator), torch.rand(8, 16, generator=generator)
    tokens, weights = decode_weighed(vae, z, uniform, SampleConfig(temperature=1.0), rules)
    for i, own in enumerate(rules):
        assert own.obeys(tokens[i].numpy())
        alone, weight = decode_weighed(vae, z, uniform, SampleConfig(temperature=1.0), own)
        assert torch.equal(alone[i], tokens[i])
        assert_close(weight[i], weights[i])


SETTINGS = [
    SampleConfig(),
    SampleConfig(temperature=0),
    SampleConfig(temperature=100),
    SampleConfig(temperature=1e-6),
    SampleConfig(rest_penalty=-20),
    SampleConfig(top_k=1, rest_penalty=4),
    SampleConfig(top_p=0.01),
]


@pytest.mark.parametrize("tokenizer", [EIGHTHS, PLAIN], ids=["hold", "plain"])
@pytest.mark.parametrize("sample", SETTINGS, ids=range(len(SETTINGS)))
def test_every_riff_is_legal_whatever_the_weights(tokenizer: TokenizerConfig, sample: SampleConfig) -> None:
    """Guards against illegal riffs: random weights that would hold and rest all the time, u at both ends."""
    vae = awake_vae(tokenizer)
    with torch.no_grad():
        vae.decoder.output_bias[REST] += 3
        if tokenizer.hold_token:
            vae.decoder.output_bias[HOLD] += 6
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(48, tokenizer.steps, generator=generator)
    uniform[:4], uniform[4:8] = 0, float(np.nextafter(np.float32(1), np.float32(0)))
    tokens = decode(vae, torch.randn(48, TINY.z_size, generator=generator), uniform, sample).numpy()
    assert tokens.shape == (48, tokenizer.steps)
    assert tokens.min() >= 0 and tokens.max() < tokenizer.vocab_size
    assert all(is_legal(riff, tokenizer) for riff in tokens)
    if tokenizer.hold_token:
        assert not (tokens[:, 0] == HOLD).any()
        assert not ((tokens[:, 1:] == HOLD) & (tokens[:, :-1] == REST)).any()


def test_decoding_feeds_each_token_to_the_next_step() -> None:
    """Temperature 0 against a loop over the whole-riff decoder: guards against inputs that lag, or are not fed back at all."""
    vae = awake_vae()
    z = torch.randn(20, TINY.z_size, generator=torch.Generator().manual_seed(1))
    tokens = torch.zeros(20, EIGHTHS.steps, dtype=torch.int64)
    margin = np.inf
    for t in range(EIGHTHS.steps):
        logits = vae.decoder(z, vae.decoder.shown(tokens))[:, t].detach().clone()
        silent = tokens[:, t - 1] == REST if t else torch.ones(20, dtype=torch.bool)
        logits[silent, HOLD] = -torch.inf
        best = logits.topk(2, dim=1)
        margin = min(margin, float((best.values[:, 0] - best.values[:, 1]).min()))
        tokens[:, t] = best.indices[:, 0]
    assert margin > 1e-4  # no tie that rounding could decide
    assert torch.equal(decode(vae, z, torch.rand(20, EIGHTHS.steps), SampleConfig(temperature=0)), tokens)
    assert len(tokens.unique(dim=0)) > 10
    assert torch.equal(reconstruct(vae, tokens, z=z), tokens)


def test_reconstruction_is_from_the_posterior_mean_and_repeatable() -> None:
    """Guards against noise in what is called a reconstruction, and against its touching the global generator."""
    vae = awake_vae()
    tokens = torch.randint(129, (5, EIGHTHS.steps), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mu = vae.encoder(tokens)[0]
    state = torch.get_rng_state()
    assert torch.equal(reconstruct(vae, tokens), reconstruct(vae, tokens, z=mu))
    warm = [reconstruct(vae, tokens, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(warm[0], warm[1])
    assert not torch.equal(warm[0], warm[2])
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- denoising times


@given(num_timesteps=st.integers(10, 1000), sampling_steps=st.integers(1, 1200))
@settings(max_examples=200, deadline=None)
def test_denoising_times_start_in_noise_fall_evenly_and_end_at_0(num_timesteps: int, sampling_steps: int) -> None:
    """Guards against a last step of noise left in, a first step skipped, and a time visited twice."""
    times = denoising_times(num_timesteps, sampling_steps)
    assert len(times) == min(num_timesteps, sampling_steps)
    assert times[0] == num_timesteps - 1
    if len(times) > 1:
        assert times[-1] == 0
        gaps = -np.diff(times)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_all_steps_visit_every_time() -> None:
    for num_timesteps in (10, 50, 1000):
        assert denoising_times(num_timesteps, num_timesteps) == list(range(num_timesteps - 1, -1, -1))


# ---------------------------------------------------------------- denoising: exact answers


class IdealDenoiser:
    """What a perfect model of N(mean, std^2) would say: the mean of x_0 given x_t, by Bayes' rule."""

    def __init__(self, mean: float, std: float, alphas_cumprod: Tensor) -> None:
        self.mean, self.std = mean, std
        self.schedule = SimpleNamespace(alphas_cumprod=alphas_cumprod)
        self.config = SimpleNamespace(num_timesteps=len(alphas_cumprod))

    def guided(self, times: list[int], *asked: object) -> IdealDenoiser:
        self.times = times
        return self

    def x0_and_eps_at(self, i: int, x_t: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.schedule.alphas_cumprod[self.times[i]].double()
        x_t = x_t.double()
        gain = self.std**2 * abar.sqrt() / (abar * self.std**2 + 1 - abar)
        x_0 = self.mean + gain * (x_t - abar.sqrt() * self.mean)
        return x_0.float(), ((x_t - abar.sqrt() * x_0) / (1 - abar).sqrt()).float()

    def denormalize(self, x: Tensor) -> Tensor:
        return x


def sampled_moments(model: IdealDenoiser, sampling_steps: int, eta: float) -> tuple[float, float]:
    """Mean and standard deviation of what the sampler draws, exactly: its result is linear in the noises it is given, so one
    run with a single 1 in each of them gives all their weights."""
    draws = len(denoising_times(model.config.num_timesteps, sampling_steps))  # x_T and draws - 1 noises
    x_T, noise = torch.zeros(draws + 1, 1), torch.zeros(draws - 1, draws + 1, 1)
    x_T[1, 0] = 1
    for i in range(draws - 1):
        noise[i, i + 2, 0] = 1
    with pytest.MonkeyPatch.context() as patch:  # TorchScript knows no model but ours
        patch.setattr("graphs.SCRIPTS", False)
        patch.setattr("denoising.x0_and_eps_at", IdealDenoiser.x0_and_eps_at)
        times = denoising_times(model.config.num_timesteps, sampling_steps)
        z = sample_latents(model, x_T, noise, times, eta)[:, 0].double()  # type: ignore[arg-type]
    return z[0].item(), (z[1:] - z[0]).square().sum().sqrt().item()


@pytest.mark.skipif(not graphs.SCRIPTS, reason="no TorchScript here")
@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_denoising_without_python_is_the_same_to_the_bit(prediction_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against what TorchScript reads otherwise than Python, and against machines without it that make something else."""
    torch.manual_seed(0)
    options = {"hidden_size": 16, "blocks": 2, "num_timesteps": 40, "prediction_type": prediction_type, "conditions": "density,rests"}
    diffusion = LatentDiffusion(3, DiffusionConfig(**options)).eval()  # type: ignore[arg-type]
    times = [16, 14, 12, 10, 8, 6, 4, 2, 0]  # from 39 on, limits would hold all of them
    with torch.no_grad():
        for weight in diffusion.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    told, found = diffusion.conditions({"density": 1.5}), []
    for scripts in (True, False):
        monkeypatch.setattr(graphs, "SCRIPTS", scripts)
        generator, made = torch.Generator().manual_seed(1), []
        for rows in (1, 3, 8):
            x, noise = torch.randn(rows, 3, generator=generator), torch.randn(8, rows, 3, generator=generator)
            for eta in (0.0, 0.6):
                made += [sample_latents(diffusion, x, noise, times, eta, *asked) for asked in ((), (told,), (told, 2.5))]
        found.append(made)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(found[0][0], found[0][1]) and not torch.equal(found[0][1], found[0][2])


# Largest relative error of the spread by sampling steps and eta: what is left is the size of the steps, and falls with their number.
SPREAD_ERROR = {(50, 0.0): 0.09, (50, 1.0): 0.17, (1000, 0.0): 0.008, (1000, 1.0): 0.015}


@pytest.mark.parametrize(("sampling_steps", "eta"), SPREAD_ERROR)
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (2.0, 0.3), (-1.0, 0.7)])
def test_an_ideal_denoiser_gives_back_its_gaussian(mean: float, std: float, schedule: str, sampling_steps: int, eta: float) -> None:
    """Guards against every mistake of a sampler that still makes plausible numbers."""
    model = IdealDenoiser(mean, std, NoiseSchedule(1000, schedule).alphas_cumprod)
    found_mean, found_std = sampled_moments(model, sampling_steps, eta)
    assert abs(found_mean - mean) < 0.005
    assert abs(found_std / std - 1) < SPREAD_ERROR[sampling_steps, eta]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_schedule_that_does_not_end_in_noise_is_caught(eta: float) -> None:
    """The test above can fail: with the betas of 1000 steps at 200 even a perfect denoiser misses the mean by a quarter and more."""
    published = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 200))).float()
    ours = NoiseSchedule(200, "linear").alphas_cumprod
    wrong, right = (abs(sampled_moments(IdealDenoiser(2.0, 1.0, abar), 200, eta)[0] - 2.0) for abar in (published, ours))
    assert wrong > 0.25
    assert right < 0.02


def test_eta_0_reads_no_noise() -> None:
    """Guards against DDIM that is called deterministic and is not."""
    diffusion, x_T = awake_diffusion(), torch.randn(3, TINY.z_size, generator=torch.Generator().manual_seed(0))
    nothing = torch.empty(0, 3, TINY.z_size)
    loud = torch.full((9, 3, TINY.z_size), 1e6)
    times = denoising_times(20, 10)
    assert torch.equal(sample_latents(diffusion, x_T, nothing, times, 0.0), sample_latents(diffusion, x_T, loud, times, 0.0))


@pytest.mark.parametrize("num_timesteps", [20, 50])
def test_eta_1_and_all_steps_equal_ancestral_ddpm(num_timesteps: int) -> None:
    """Against Ho et al. 2020, eq. 6 and 7, in numpy: guards against a sigma, a direction or a noise that is off by a step."""
    diffusion = awake_diffusion(num_timesteps)
    rng = np.random.default_rng(0)
    x_T = rng.standard_normal((4, TINY.z_size)).astype(np.float32)
    noise = rng.standard_normal((num_timesteps - 1, 4, TINY.z_size)).astype(np.float32)
    abar = diffusion.schedule.alphas_cumprod.double().numpy()
    x = x_T.astype(np.float64)
    for t in range(num_timesteps - 1, -1, -1):
        with torch.no_grad():
            v = diffusion.denoiser(torch.from_numpy(x).float(), torch.full((4,), t)).double().numpy()
        x_0 = np.clip(np.sqrt(abar[t]) * x - np.sqrt(1 - abar[t]) * v, -6, 6)
        if t == 0:
            x = x_0
            break
        alpha, previous = abar[t] / abar[t - 1], abar[t - 1]
        mean = np.sqrt(previous) * (1 - alpha) / (1 - abar[t]) * x_0 + np.sqrt(alpha) * (1 - previous) / (1 - abar[t]) * x
        x = mean + np.sqrt((1 - previous) / (1 - abar[t]) * (1 - alpha)) * noise[num_timesteps - 1 - t]
    expected = x * diffusion.latent_std.numpy() + diffusion.latent_mean.numpy()
    found = sample_latents(diffusion, torch.from_numpy(x_T), torch.from_numpy(noise), denoising_times(num_timesteps, num_timesteps), 1.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3, rtol=1e-3)


def test_one_sampling_step_is_the_first_guess() -> None:
    diffusion, x_T = awake_diffusion(), torch.randn(3, TINY.z_size, generator=torch.Generator().manual_seed(0))
    t = torch.full((3,), 19)
    with torch.no_grad():
        prediction = diffusion.denoiser(x_T, t)
    expected = diffusion.denormalize(x0_and_eps("v", prediction, x_T, *diffusion.schedule.coefficients(t))[0])
    assert_close(sample_latents(diffusion, x_T, torch.empty(0, 3, TINY.z_size), [19], 1.0), expected)


# ---------------------------------------------------------------- one seed, one riff

PRIORS = {
    "normal": (False, SampleConfig()),
    "ddim": (True, SampleConfig(sampling_steps=5)),
    "ddpm": (True, SampleConfig(sampling_steps=20, eta=1.0, temperature=1.3, top_p=0.95)),
    "greedy": (True, SampleConfig(sampling_steps=5, temperature=0)),
}


@functools.cache
def models() -> tuple[MusicVAE, LatentDiffusion]:
    return awake_vae(), awake_diffusion()


def drawn(prior: str, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    with_diffusion, sample = PRIORS[prior]
    vae, diffusion = models()
    return sample_riffs(vae, diffusion if with_diffusion else None, seeds, sample)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_seed_gives_the_same_riff_in_any_company(prior: str) -> None:
    """Guards against noise drawn for the batch, and against sums that round otherwise in a batch of another size."""
    many = np.random.default_rng(0).permutation(np.r_[7, 99, 200:268]).tolist()
    assert len(many) == 70 > CHUNK
    alone, few, crowd = drawn(prior, [7]), drawn(prior, list(range(8))), drawn(prior, many)
    for part in (0, 1):  # tokens and latents, bit by bit
        assert alone[part][0].tobytes() == few[part][7].tobytes() == crowd[part][many.index(7)].tobytes()
    assert len(crowd[0]) == len(crowd[1]) == 70
    assert drawn(prior, [99])[1].tobytes() == crowd[1][many.index(99)].tobytes()


@pytest.mark.parametrize("prior", PRIORS)
def test_a_seed_gives_the_same_riff_with_one_thread_and_two(prior: str) -> None:
    """Guards against a result that depends on how the work was shared, of one chunk or of two."""
    one = drawn(prior, list(range(70)))
    try:
        torch.set_num_threads(2)
        two, few = drawn(prior, list(range(70))), drawn(prior, list(range(8)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    for part in (0, 1):
        assert one[part].tobytes() == two[part].tobytes()
        assert one[part][:8].tobytes() == few[part].tobytes()


@pytest.mark.parametrize("prior", PRIORS)
def test_the_same_seed_twice_is_equal_and_another_seed_is_not(prior: str) -> None:
    """Guards against a hidden generator, and against seeds that are not used."""
    models()
    state = torch.get_rng_state()
    first, again = drawn(prior, [3, 4]), drawn(prior, [3, 4])
    assert torch.equal(torch.get_rng_state(), state)
    assert first[0].tobytes() == again[0].tobytes() and first[1].tobytes() == again[1].tobytes()
    assert np.abs(first[1][0] - first[1][1]).min() > 1e-4
    _, z = drawn(prior, list(range(64)))
    assert len(np.unique(z, axis=0)) == 64


def test_latents_of_the_normal_prior_are_standard_normal() -> None:
    """Guards against token draws and latents that share their numbers, and against a scale that slipped in."""
    _, z = drawn("normal", list(range(640)))
    assert abs(z.mean()) < 0.07 and abs(z.std() - 1) < 0.05  # four standard errors of 3200 numbers
    assert np.abs(np.corrcoef(z.T) - np.eye(TINY.z_size)).max() < 0.16


def test_no_pitch_outside_the_range() -> None:
    """Guards against notes that no fret of the instrument has."""
    tokenizer = TokenizerConfig()
    vae = MusicVAE(TINY, tokenizer).eval()
    tokens, _ = sample_riffs(vae, None, range(64), SampleConfig(prior="normal", temperature=2.0), RiffRules(tokenizer, Demands(40, 52)))
    sounds = (tokens != REST) & (tokens != HOLD)
    assert tokens[sounds].min() == 40 and tokens[sounds].max() == 52
    free, _ = sample_riffs(vae, None, range(64), SampleConfig(prior="normal", temperature=2.0))
    assert free[(free != REST) & (free != HOLD)].max() > 52
