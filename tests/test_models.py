"""The networks and their losses, each against what it must equal: no leak, no mixing, no dead parameter, textbook formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import step_by_step
from torch import Tensor, nn
from torch.testing import assert_close

from config import HOLD, REST, DiffusionConfig, TokenizerConfig, VAEConfig, VAETrainConfig
from denoising import predicted, x0_and_eps
from diffusion import LatentDiffusion, NoiseSchedule, denoiser_at_times
from models import Draws, MusicVAE, kl_cost, kl_nats
from presets import TrainVAE, preset_options
from sampling import reconstruct
from stepwise import drawn_at
from train_vae import make_draws, training_loss

torch.set_num_threads(1)

EIGHTHS = TokenizerConfig(steps_per_beat=2)  # two bars in 16 steps
PLAIN = TokenizerConfig(steps_per_beat=2, hold_token=False)
TINY = dataclasses.replace(
    preset_options(TrainVAE, "riff_2bar_tiny").model, embed_size=12, encoder_size=10, decoder_size=14, z_size=5, position_size=4
)
B = 4


def awake(model: nn.Module, seed: int = 0, scale: float = 0.4) -> nn.Module:
    """The model with every weight random: initial weights are small or zero where a mistake would then not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, scale, generator=generator)
    return model


def new_vae(tokenizer: TokenizerConfig = EIGHTHS, config: VAEConfig = TINY) -> MusicVAE:
    torch.manual_seed(0)
    return MusicVAE(config, tokenizer)


def awake_vae(tokenizer: TokenizerConfig = EIGHTHS, config: VAEConfig = TINY) -> MusicVAE:
    vae = awake(new_vae(tokenizer, config))
    assert isinstance(vae, MusicVAE)
    return vae


def some_tokens(tokenizer: TokenizerConfig = EIGHTHS, batch: int = B, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(tokenizer.vocab_size, (batch, tokenizer.steps), generator=generator)


def randn(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class FixedPosterior(nn.Module):
    """An encoder that says the same whatever it hears, so that tokens can reach the logits through the decoder's input only."""

    def __init__(self, mu: Tensor) -> None:
        super().__init__()
        self.mu = mu

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.mu, torch.zeros_like(self.mu)


def with_fixed_z(vae: MusicVAE, z: Tensor) -> MusicVAE:
    vae.encoder = FixedPosterior(z)  # type: ignore[assignment]
    return vae


def embedded(vae: MusicVAE, run: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """What a run returns, and the step embeddings it was computed from, ready for gradients."""
    seen: list[Tensor] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        seen.append(output)

    handle = vae.decoder.embedding.register_forward_hook(note)
    try:
        return run(), seen
    finally:
        handle.remove()


# ---------------------------------------------------------------- the decoder may not see the answer


@pytest.mark.parametrize("tokenizer", [EIGHTHS, PLAIN], ids=["hold", "plain"])
@pytest.mark.parametrize("scheduled", [False, True], ids=["teacher", "scheduled"])
def test_a_token_changes_only_the_logits_after_it(tokenizer: TokenizerConfig, scheduled: bool) -> None:
    """Guards against an input that is not shifted: the decoder copies the answer and ignores z."""
    vae = with_fixed_z(awake_vae(tokenizer), randn(B, TINY.z_size))
    tokens = some_tokens(tokenizer)
    off = torch.zeros(B, tokenizer.steps, dtype=torch.bool)
    draws = Draws(from_model=off, uniform=torch.rand(B, tokenizer.steps, 1)) if scheduled else Draws()
    before = vae(tokens, draws)[0]
    for t in (0, 5, tokenizer.steps - 2, tokenizer.steps - 1):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 7) % tokenizer.vocab_size
        difference = (vae(changed, draws)[0] - before).abs().amax(dim=(0, 2))  # [T]
        assert difference[: t + 1].max() <= 1e-6, t
        if t + 1 < tokenizer.steps:
            assert difference[t + 1] > 1e-3, t


def test_logits_have_no_gradient_towards_later_inputs() -> None:
    """The same by gradients, through the decoder alone: exactly zero, not merely small."""
    vae, tokens = awake_vae(), some_tokens()
    z = randn(B, TINY.z_size)
    for t in (0, 7, EIGHTHS.steps - 1):
        logits, (inputs,) = embedded(vae, lambda: vae.decoder(z, vae.decoder.shown(tokens)))
        (gradient,) = torch.autograd.grad(logits[:, t].sum(), inputs)
        assert gradient[:, t + 1 :].abs().sum() == 0
        assert gradient[:, t].abs().sum() > 0


def test_decoder_inputs_are_the_target_behind_a_start_token() -> None:
    """Guards against a shift by a wrong amount, and a word dropout that hides the wrong step."""
    vae, tokens = new_vae(), some_tokens()
    inputs = vae.decoder.shown(tokens)
    assert inputs[:, 0].tolist() == [EIGHTHS.vocab_size] * B
    assert torch.equal(inputs[:, 1:], tokens[:, :-1])
    keep = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    hidden = vae.decoder.shown(tokens, keep)
    assert torch.equal(hidden[keep], inputs[keep])
    assert (hidden[~keep] == EIGHTHS.vocab_size).all()


# ---------------------------------------------------------------- examples of a batch may not mix


def test_encoding_alone_equals_encoding_in_a_batch() -> None:
    """Guards against a bidirectional state that is reshaped without a transpose."""
    vae, tokens = awake_vae(), some_tokens()
    together = vae.encoder(tokens)
    for i in range(B):
        for one, all_ in zip(vae.encoder(tokens[i : i + 1]), together, strict=True):
            assert_close(one[0], all_[i], atol=1e-5, rtol=1e-5)


def test_an_example_depends_on_no_other_example() -> None:
    """The same by gradients: zero towards every other example's embeddings, in the encoder and in the whole model."""
    vae, tokens = awake_vae(), some_tokens()
    noise = randn(B, TINY.z_size)
    for run in (lambda: torch.cat(vae.encoder(tokens), dim=1), lambda: vae(tokens, Draws(noise=noise))[0]):
        for i in range(B):
            output, seen = embedded(vae, run)
            gradients = torch.autograd.grad(output[i].square().sum(), seen)
            for gradient in gradients:
                reach = gradient.abs().sum(dim=(1, 2))  # [B]
                assert reach[i] > 0
                assert reach.sum() == reach[i]


def test_encoder_hears_every_step() -> None:
    """Guards against a state read from the wrong end, or a mask that cuts the riff short."""
    vae, tokens = awake_vae(), some_tokens()
    mu, (inputs,) = embedded(vae, lambda: vae.encoder(tokens)[0])
    (gradient,) = torch.autograd.grad(mu.square().sum(), inputs)
    assert (gradient.abs().sum(dim=2) > 0).all()


# ---------------------------------------------------------------- two ways to decode are one


@pytest.mark.parametrize("tokenizer", [EIGHTHS, PLAIN], ids=["hold", "plain"])
def test_steps_in_a_chain_equal_forward(tokenizer: TokenizerConfig) -> None:
    """Guards against a hand-written GRU step that drifts from the one that was trained."""
    vae, tokens = awake_vae(tokenizer), some_tokens(tokenizer)
    z = randn(B, TINY.z_size)
    inputs = vae.decoder.shown(tokens)
    whole = vae.decoder(z, inputs)
    assert_close(step_by_step(vae.decoder.begin(z), inputs), whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("part", ["embedding", "decoder"])
def test_steps_follow_weights_that_change(part: str) -> None:
    """Guards against laid-out weights that stay as they were: the decoder's own, and the embedding's that it only uses."""
    vae, tokens = awake_vae(), some_tokens()
    z, inputs = randn(B, TINY.z_size), vae.decoder.shown(tokens)
    before = step_by_step(vae.decoder.begin(z), inputs)
    with torch.no_grad():
        for parameter in getattr(vae, part).parameters():
            parameter.mul_(1.5)
    after = step_by_step(vae.decoder.begin(z), inputs)
    assert_close(after, vae.decoder(z, inputs), atol=2e-5, rtol=1e-4)
    assert (after - before).abs().max() > 0.01


@pytest.mark.parametrize("name", ["position_size", "summary_size", "plan_size"])
def test_sizes_of_none_work(name: str) -> None:
    """Guards against an option whose help says 0 means none, and whose 0 crashes."""
    if name not in {field.name for field in dataclasses.fields(VAEConfig)}:
        pytest.skip(f"{name} is no option any more")
    vae, tokens = awake_vae(config=dataclasses.replace(TINY, **{name: 0})), some_tokens()
    logits, mu, _ = vae(tokens)
    inputs = vae.decoder.shown(tokens)
    assert_close(step_by_step(vae.decoder.begin(mu), inputs), logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("keep", [None, "half", "half, and dropout"])
def test_scheduled_sampling_that_samples_nothing_equals_teacher_forcing(keep: str | None) -> None:
    """Guards against a second decoding path that trains another model, or leaves the dropout out."""
    vae, tokens = awake_vae(), some_tokens()
    rng = torch.Generator().manual_seed(3)
    draws = Draws(noise=randn(B, TINY.z_size), keep=None if keep is None else torch.rand(tokens.shape, generator=rng) < 0.5)
    if keep == "half, and dropout":
        sizes = (vae.embedding.size, vae.embedding.size, vae.decoder.output.in_features)
        masks = [2.0 * (torch.rand(*tokens.shape, size, generator=rng) < 0.5) for size in sizes]
        assert not torch.allclose(vae(tokens, draws)[0], vae(tokens, dataclasses.replace(draws, output_mask=masks[2]))[0])
        draws = dataclasses.replace(draws, encoder_mask=masks[0], decoder_mask=masks[1], output_mask=masks[2])
    plain = vae(tokens, draws)
    never = torch.zeros(tokens.shape, dtype=torch.bool)
    scheduled = vae(tokens, dataclasses.replace(draws, from_model=never, uniform=torch.rand(*tokens.shape, 1)))
    for one, other in zip(plain, scheduled, strict=True):
        assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_scheduled_sampling_that_samples_everything_never_sees_the_target() -> None:
    """Guards against a share that is applied upside down."""
    vae = with_fixed_z(awake_vae(), randn(B, TINY.z_size))
    always = torch.ones(B, EIGHTHS.steps, dtype=torch.bool)
    uniform = torch.rand(B, EIGHTHS.steps, 1, generator=torch.Generator().manual_seed(4))
    one, other = (vae(some_tokens(seed=seed), Draws(from_model=always, uniform=uniform))[0] for seed in (1, 2))
    assert torch.equal(one, other)


# ---------------------------------------------------------------- everything is trained, from a sane start


def test_every_parameter_of_the_vae_gets_a_gradient() -> None:
    """Guards against a part that is built and forgotten; checked at the real initial weights."""
    vae, tokens = new_vae(), some_tokens()
    draws = Draws(noise=randn(B, TINY.z_size))
    logits, mu, logvar = vae(tokens, draws)
    (vae.reconstruction_nats(logits, tokens).mean() + kl_nats(mu, logvar).sum(dim=1).mean()).backward()
    dead = [name for name, p in vae.named_parameters() if p.numel() and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert dead == []


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_every_parameter_of_the_denoiser_gets_a_gradient(prediction_type: str) -> None:
    """The same; its blocks start as the identity, so the weights are random here."""
    model = awake(LatentDiffusion(5, DiffusionConfig(hidden_size=8, blocks=2, num_timesteps=20, prediction_type=prediction_type)))  # type: ignore[arg-type]
    model(randn(8, 5), torch.arange(8), randn(8, 5, seed=3)).mean().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("tokenizer", [EIGHTHS, PLAIN], ids=["hold", "plain"])
def test_loss_starts_at_ln_v_per_token(tokenizer: TokenizerConfig) -> None:
    """Guards against logits that start far out, and a reconstruction that is not summed over steps. KL starts at zero."""
    vae, tokens = new_vae(tokenizer), some_tokens(tokenizer, batch=32)
    logits, mu, logvar = vae(tokens, Draws(noise=randn(32, TINY.z_size)))
    per_token = vae.reconstruction_nats(logits, tokens) / tokenizer.steps
    assert per_token.shape == (32,)
    assert_close(per_token.mean().item(), math.log(tokenizer.vocab_size), atol=0.05, rtol=0)
    assert kl_nats(mu, logvar).sum(dim=1).max() < 0.01


def test_reconstruction_is_the_log_likelihood_of_each_riff() -> None:
    """Guards against a mean over tokens beside a summed KL, which makes beta many times what it says."""
    tokens = some_tokens()
    logits = 3 * randn(B, EIGHTHS.steps, EIGHTHS.vocab_size)
    expected = -torch.distributions.Categorical(logits=logits.double()).log_prob(tokens).sum(dim=1)
    assert_close(new_vae().reconstruction_nats(logits, tokens), expected.float(), atol=1e-3, rtol=1e-5)


def test_z_changes_the_first_logits() -> None:
    """Guards against a decoder that does not use z: at the first step there is nothing else to go by."""
    vae, tokens = awake_vae(), some_tokens()
    one, other = (vae.decoder(z, vae.decoder.shown(tokens))[:, 0] for z in (randn(B, TINY.z_size), randn(B, TINY.z_size, seed=9)))
    assert ((one - other).abs().amax(dim=1) > 0.1).all()


def test_noise_is_scaled_by_sigma() -> None:
    """Guards against a reparametrisation with the variance, or the log variance, in place of the standard deviation."""
    vae, tokens = awake_vae(), some_tokens()
    mu, logvar = vae.encoder(tokens)
    noise = randn(B, TINY.z_size)
    expected = vae.decoder(mu + logvar.exp().sqrt() * noise, vae.decoder.shown(tokens))
    assert_close(vae(tokens, Draws(noise=noise))[0], expected, atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- KL and free bits


def test_kl_equals_torch_distributions() -> None:
    """Guards against a sign or a half lost in the closed form, and a sum over the batch."""
    mu, logvar = 2 * randn(B, 7), randn(B, 7, seed=3)
    posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1))
    assert_close(kl_nats(mu, logvar), expected, atol=1e-5, rtol=1e-5)


def test_free_bits_are_bits_and_cost_nothing() -> None:
    """Guards against free nats, free bits by dimension, and a gradient below the threshold."""
    mu = torch.tensor([[1.0, 0.0], [3.0, 1.0]], requires_grad=True)
    kl = kl_nats(mu, torch.zeros_like(mu))  # 0.5 and 5 nats
    cost = kl_cost(kl, free_bits=2.0)
    assert_close(cost, torch.tensor([0.0, 5 - 2 * math.log(2)]))
    cost.sum().backward()
    assert mu.grad is not None
    assert mu.grad[0].abs().sum() == 0
    assert_close(mu.grad[1], torch.tensor([3.0, 1.0]))
    assert_close(kl_cost(kl.detach(), 0.0), kl.detach().sum(dim=1))


# ---------------------------------------------------------------- drawing tokens


def drawn_by_hand(probabilities: np.ndarray, u: float) -> int:
    """The first token at which the summed probability exceeds u."""
    total = 0.0
    goal = u * probabilities.astype(float).sum()
    for token, p in enumerate(probabilities.astype(float)):
        total += p
        if p > 0 and total > goal:
            return token
    return int(np.flatnonzero(probabilities)[-1])


def inverse_cdf(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    return drawn_at(probabilities, uniform.double().unsqueeze(-1))


JUST_UNDER_1 = float(np.nextafter(np.float32(1), np.float32(0)))


def test_inverse_cdf_equals_brute_force() -> None:
    """Guards against an off-by-one at the edges of the intervals; u = 0 and u just under 1 included."""
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(300, 9, generator=generator)).softmax(dim=-1)
    probabilities = probabilities * (torch.rand(300, 9, generator=generator) < 0.5)
    probabilities[:, 4] += 0.01
    probabilities /= probabilities.sum(dim=-1, keepdim=True)
    for u in (0.0, 1e-30, JUST_UNDER_1, None):
        uniform = torch.rand(300, generator=generator) if u is None else torch.full((300,), u)
        drawn = inverse_cdf(probabilities, uniform)
        assert (probabilities.gather(1, drawn.unsqueeze(1)) > 0).all()
        expected = [drawn_by_hand(p, x) for p, x in zip(probabilities.numpy(), uniform.tolist(), strict=True)]
        assert drawn.tolist() == expected


@pytest.mark.parametrize("u", [0.0, 0.5, JUST_UNDER_1])
def test_inverse_cdf_never_draws_what_has_no_probability(u: float) -> None:
    """Guards against drawing forbidden tokens before the first, or after the last, that is allowed."""
    rows = torch.tensor([[0, 0, 0.3, 0, 0.7, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1.0], [1, 0, 0, 0, 0, 0, 0]])
    short = rows * (1 - 1e-6)  # rounding may leave the sum below 1
    for probabilities in (rows, short):
        drawn = inverse_cdf(probabilities, torch.full((4,), u))
        assert drawn.tolist() == [2 if u < 0.3 else 4, 1, 6, 0]


def test_inverse_cdf_draws_at_the_given_rates() -> None:
    """Evenly spaced numbers give each token its share, to one part in the number of draws."""
    probabilities = torch.tensor([0.5, 0.0, 0.125, 0.375])
    uniform = (torch.arange(800) + 0.5) / 800
    counts = inverse_cdf(probabilities.expand(800, -1), uniform).bincount(minlength=4)
    assert counts.tolist() == [400, 0, 100, 300]


# ---------------------------------------------------------------- it can learn


def test_memorises_16_riffs_exactly() -> None:
    """Guards against everything at once: no dropout, no augmentation, 16 riffs come back exactly, free-running."""
    rng = np.random.default_rng(5)
    riffs = rng.choice([REST, HOLD, 40, 43, 45, 47, 50], size=(16, EIGHTHS.steps), p=[0.15, 0.25, 0.2, 0.1, 0.1, 0.1, 0.1])
    for t in range(EIGHTHS.steps):  # no hold at the start or after a rest
        loose = (riffs[:, t] == HOLD) & ((riffs[:, t - 1] == REST) if t else True)
        riffs[loose, t] = 40
    tokens = torch.from_numpy(riffs)
    train = VAETrainConfig(dropout=0.0, word_dropout=0.0, scheduled_sampling=0.0, free_bits=0.0)
    torch.manual_seed(0)
    vae = MusicVAE(dataclasses.replace(TINY, embed_size=24, encoder_size=32, decoder_size=48, z_size=16), EIGHTHS)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    for step in range(400):
        loss, _ = training_loss(vae, vae, tokens, make_draws(vae, 16, step, train, seed=0), beta=0.01, free_bits=0.0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 19 and (reconstruct(vae, tokens) == tokens).all():
            break
    assert (reconstruct(vae, tokens) == tokens).all(dim=1).sum() == 16
    other = reconstruct(vae, tokens, z=vae.encoder(tokens)[0].detach().roll(1, dims=0))
    assert torch.equal(other, tokens.roll(1, dims=0))  # it is z that carries them


# ---------------------------------------------------------------- noise schedule


def reference_alphas_cumprod(num_timesteps: int, schedule: str) -> np.ndarray:
    """Nichol & Dhariwal 2021, eq. 17, and Ho et al. 2020, section 4, scaled to the number of steps; written out in float64."""
    result, product = [], 1.0
    for t in range(1, num_timesteps + 1):
        if schedule == "cosine":
            f = [math.cos((s / num_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (t, t - 1)]
            beta = 1 - f[0] / f[1]
        else:
            beta = (1e-4 + (0.02 - 1e-4) * (t - 1) / (num_timesteps - 1)) * 1000 / num_timesteps
        product *= 1 - min(beta, 0.999)
        result.append(product)
    return np.array(result)


def ends_in_noise(alphas_cumprod: np.ndarray) -> bool:
    """Whether less than 3 % of the signal's amplitude is left at the last step."""
    return bool(alphas_cumprod[-1] < 1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("num_timesteps", [50, 200, 1000])
def test_schedule_equals_the_reference_and_ends_in_noise(schedule: str, num_timesteps: int) -> None:
    """Guards against betas meant for 1000 steps used at 200: sampling would start from noise the model never saw."""
    abar = NoiseSchedule(num_timesteps, schedule).alphas_cumprod.double().numpy()
    np.testing.assert_allclose(abar, reference_alphas_cumprod(num_timesteps, schedule), rtol=1e-6, atol=1e-30)
    assert ends_in_noise(abar)
    assert abar[0] > 0.99
    assert (np.diff(abar) < 0).all()


def test_unscaled_betas_at_200_steps_would_be_caught() -> None:
    """The check above can fail: the published 200-step schedule ends with 36 % of the signal's amplitude left."""
    published = np.cumprod(1 - np.linspace(1e-4, 0.02, 200))
    assert not ends_in_noise(published)
    assert published[-1] > 0.1


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_shortest_schedule_is_finite(schedule: str) -> None:
    """Guards against a division by zero where the config allows few steps."""
    table = NoiseSchedule(10, schedule)
    t = torch.arange(10)
    x_0, eps = x0_and_eps("eps", randn(10, 3), randn(10, 3, seed=3), *table.coefficients(t))
    assert x_0.isfinite().all() and eps.isfinite().all()


def test_unknown_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="choose cosine or linear"):
        NoiseSchedule(50, "sigmoid")


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_q_sample_keeps_the_variance(schedule: str) -> None:
    """Guards against abar in place of its root: signal and noise scales squared sum to 1, and the scales are the formula's."""
    table = NoiseSchedule(200, schedule)
    t = torch.arange(200)
    abar = torch.from_numpy(reference_alphas_cumprod(200, schedule))
    one, zero = torch.ones(200, 1), torch.zeros(200, 1)
    signal, noise = table.q_sample(one, t, zero)[:, 0].double(), table.q_sample(zero, t, one)[:, 0].double()
    assert_close(signal.square(), abar, atol=1e-6, rtol=0)
    assert_close(noise.square(), 1 - abar, atol=1e-6, rtol=0)
    x = table.q_sample(randn(20_000, 1), torch.full((20_000,), 100), randn(20_000, 1, seed=3))
    assert abs(x.var().item() - 1) < 0.04  # four standard errors


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_the_true_target_gives_back_x0_and_eps(prediction_type: str) -> None:
    """Guards against a target and its inverse that do not belong together."""
    table = NoiseSchedule(200)
    x_0, eps = randn(20, 6), randn(20, 6, seed=3)
    for time in (30, 100, 150):
        t = torch.full((20,), time)
        x_t = table.q_sample(x_0, t, eps)
        found = x0_and_eps(prediction_type, table.target(prediction_type, x_0, t, eps), x_t, *table.coefficients(t))
        assert_close(found[0], x_0, atol=1e-4, rtol=0)
        assert_close(found[1], eps, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_x0_and_eps_make_x_t_even_where_x0_is_held(prediction_type: str) -> None:
    """Guards against an eps that is left as it was when x_0 is clamped, and a clamp that does not hold at the last step."""
    table = NoiseSchedule(200)
    t = torch.arange(200)
    x_t, prediction = randn(200, 6), 30 * randn(200, 6, seed=3)
    signal, noise = table.coefficients(t)
    x_0, eps = x0_and_eps(prediction_type, prediction, x_t, signal, noise)
    assert x_0.abs().max() == 6
    assert_close(signal * x_0 + noise * eps, x_t, atol=1e-5, rtol=1e-5)


def test_prediction_targets_are_the_papers() -> None:
    """Guards against v with its sign or its terms exchanged."""
    table = NoiseSchedule(50)
    t = torch.arange(50)
    x_0, eps = randn(50, 3), randn(50, 3, seed=3)
    abar = torch.from_numpy(reference_alphas_cumprod(50, "cosine")).unsqueeze(1)
    assert torch.equal(table.target("eps", x_0, t, eps), eps)
    assert torch.equal(table.target("x0", x_0, t, eps), x_0)
    assert_close(table.target("v", x_0, t, eps).double(), abar.sqrt() * eps - (1 - abar).sqrt() * x_0, atol=1e-5, rtol=0)


# ---------------------------------------------------------------- denoiser


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_diffusion_loss_is_the_error_of_the_prediction_by_example(prediction_type: str) -> None:
    """Guards against a loss towards another target than the config names, and a loss that mixes examples."""
    config = DiffusionConfig(hidden_size=8, blocks=1, num_timesteps=20, prediction_type=prediction_type)  # type: ignore[arg-type]
    model = awake(LatentDiffusion(3, config))
    assert isinstance(model, LatentDiffusion)
    x_0, eps, t = randn(6, 3), randn(6, 3, seed=3), torch.tensor([0, 3, 7, 11, 15, 19])
    losses = model(x_0, t, eps)
    assert losses.shape == (6,)
    for i in range(6):
        x_t = model.schedule.q_sample(x_0[i : i + 1], t[i : i + 1], eps[i : i + 1])
        target = model.schedule.target(prediction_type, x_0[i : i + 1], t[i : i + 1], eps[i : i + 1])
        assert_close(losses[i], ((model.denoiser(x_t, t[i : i + 1]) - target) ** 2).mean(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("conditions", ["", "density,rests"])
def test_a_denoiser_at_known_times_is_the_denoiser(conditions: str) -> None:
    """Guards against a time or a wish that is heard at another step, and weights from before that are multiplied by."""
    model = awake(LatentDiffusion(3, DiffusionConfig(hidden_size=16, blocks=2, num_timesteps=50, conditions=conditions)))
    assert isinstance(model, LatentDiffusion)
    told = [None] + ([torch.tensor([[1.5, math.nan]]), torch.full((1, 2), math.nan)] if conditions else [])
    for asked in told:
        for rows in (1, 9):
            x, times = randn(rows, 3), [49, 20, 0]
            quick = denoiser_at_times(model.denoiser, torch.tensor(times), rows, asked)
            for i, t in enumerate(times):
                plain = model.denoiser(x, torch.full((rows,), t), None if asked is None else asked.expand(rows, -1))
                assert_close(predicted(quick, i, x), plain.detach(), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        model.denoiser.leave.weight.mul_(2)
    again = denoiser_at_times(model.denoiser, torch.tensor(times), rows, asked)
    assert_close(predicted(again, 2, x), model.denoiser(x, torch.zeros(1, dtype=torch.int64), asked).detach(), atol=1e-5, rtol=1e-4)


def test_the_denoiser_hears_the_time() -> None:
    """Guards against a time embedding that never arrives, or that cannot tell neighbouring times apart."""
    model = awake(LatentDiffusion(3, DiffusionConfig(hidden_size=16, blocks=1, num_timesteps=50)))
    assert isinstance(model, LatentDiffusion)
    output = model.denoiser(torch.ones(50, 3), torch.arange(50))
    distance = torch.cdist(output, output) + torch.eye(50)
    assert distance.min() > 1e-3


def test_normalising_and_back() -> None:
    """Guards against a variance in place of a standard deviation."""
    model = LatentDiffusion(2, DiffusionConfig(hidden_size=2, blocks=1, num_timesteps=10))
    model.latent_mean, model.latent_std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0])
    z = torch.tensor([[2.0, 2.0]])
    assert_close(model.normalize(z), torch.tensor([[2.0, 1.0]]))
    assert_close(model.denormalize(model.normalize(z)), z)
