"""The networks: riff VAE, latent denoiser with its noise schedule, and their losses.

No device choice, no printing, no file access in here. Dimensions: B batch, T steps, E embedding, P position, H hidden,
S summary, C plan, Z latent, V vocabulary. Run `python models.py` to see parameter counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import MAX_PITCH, REST, DiffusionConfig, TokenizerConfig, VAEConfig

LN2 = math.log(2.0)


# ---------------------------------------------------------------- riff VAE


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training batch, made by the caller, so that a step is a function of (seed, step).

    What is None is left out; Draws() takes the posterior mean and drops nothing.
    """

    noise: Tensor | None = None  # [B, Z], standard normal: z = mu + sigma * noise
    keep: Tensor | None = None  # bool [B, T]: where False, word dropout hides the decoder's input
    encoder_mask: Tensor | None = None  # [B, T, E + P], dropout on the encoder's inputs: 0 or 1 / (1 - p)
    decoder_mask: Tensor | None = None  # [B, T, E + P], the same on the decoder's inputs
    output_mask: Tensor | None = None  # [B, T, H], the same on the decoder's outputs
    from_model: Tensor | None = None  # bool [B, T]: steps whose tokens the model draws itself (scheduled sampling, Bengio et al. 2015)
    uniform: Tensor | None = None  # [B, T] in 0..1, for those draws

    def map(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """The same with a function applied to every tensor: a share of the rows, another device."""
        return Draws(*(None if (x := getattr(self, f.name)) is None else function(x) for f in dataclasses.fields(self)))


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


class StepEmbedding(nn.Module):
    """A token and its place in the bar and in the riff, as one vector. Index V is the start token.

    The start token stands before the first step, and in place of tokens that word dropout hides. A pitch is the sum of a
    vector of its own, one of its pitch class and one of its octave: what is learned of one E helps with the others.
    """

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        tokens = torch.arange(tokenizer.vocab_size + 1)
        is_pitch = (tokens > REST) & (tokens <= MAX_PITCH)
        self.register_buffer("pitch_class_of", torch.where(is_pitch, tokens % 12, 12), persistent=False)
        self.register_buffer("octave_of", torch.where(is_pitch, tokens // 12, MAX_PITCH // 12 + 1), persistent=False)
        self.token = nn.Embedding(len(tokens), model.embed_size)
        self.pitch_class = nn.Embedding(13, model.embed_size)
        self.octave = nn.Embedding(MAX_PITCH // 12 + 2, model.embed_size)
        self.in_bar = nn.Embedding(tokenizer.steps_per_bar, model.position_size)
        self.bar = nn.Embedding(tokenizer.bars, model.position_size)
        place = torch.arange(tokenizer.steps)
        self.register_buffer("place_in_bar", place % tokenizer.steps_per_bar, persistent=False)
        self.register_buffer("place_bar", place // tokenizer.steps_per_bar, persistent=False)
        self.size = model.embed_size + model.position_size

    def table(self) -> Tensor:
        """The vectors of all tokens. [V + 1, E]"""
        return self.token.weight + self.pitch_class(self.pitch_class_of) + self.octave(self.octave_of)

    def positions(self) -> Tensor:
        return self.in_bar(self.place_in_bar) + self.bar(self.place_bar)  # [T, P]

    def forward(self, tokens: Tensor) -> Tensor:
        positions = self.positions().expand(len(tokens), -1, -1)  # [B, T, P]
        return torch.cat([F.embedding(tokens, self.table()), positions], dim=-1)  # [B, T, E + P]


def share(module: nn.Module, embedding: StepEmbedding) -> None:
    """Let a part use the embedding that the whole owns, without owning it too: it stands once in the checkpoint."""
    object.__setattr__(module, "embedding", embedding)


class Encoder(nn.Module):
    """q(z|x): a bidirectional GRU; mean and log variance are read from its two last states and from every step's summary.

    The summaries keep their place: with only the last states, what stood where has to be carried through the whole riff,
    and few riffs do not teach a GRU to do that (held-out onset accuracy .24 instead of .61).
    """

    embedding: StepEmbedding

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig, embedding: StepEmbedding) -> None:
        super().__init__()
        share(self, embedding)
        self.gru = nn.GRU(embedding.size, model.encoder_size, batch_first=True, bidirectional=True)
        self.summary = nn.Linear(2 * model.encoder_size, model.summary_size)
        size = 2 * model.encoder_size + tokenizer.steps * model.summary_size
        self.mu = nn.Linear(size, model.z_size)
        self.logvar = nn.Linear(size, model.z_size)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """tokens: int64 [B, T]; mask: see Draws.encoder_mask -> mu, logvar: [B, Z]"""
        output, last = self.gru(masked(self.embedding(tokens), mask))  # [B, T, 2H], [2, B, H]
        both = last.transpose(0, 1).flatten(1)  # [B, 2H]; transposed first, or examples of the batch would mix
        features = torch.cat([both, self.summary(output).flatten(1)], dim=1)  # [B, 2H + T * S]
        return self.mu(features), self.logvar(features)


class Decoder(nn.Module):
    """p(x|z): a GRU that starts from z and sees, at every step, the token before, its place, z, and a plan of z for that step.

    The plan is a linear map of z of its own for each step, the counterpart of the encoder's summaries.

    `forward` runs over whole riffs with known inputs; `start` and `step` run one step at a time and give the same logits.
    For them all products that do not depend on the state (token, place and z into the gates) are computed once. The
    output layer shares the token vectors of the input (Press & Wolf 2017): with few riffs it learns several times faster.
    """

    embedding: StepEmbedding

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig, embedding: StepEmbedding) -> None:
        super().__init__()
        share(self, embedding)
        self.start_token, self.steps = tokenizer.vocab_size, tokenizer.steps
        self.first_state = nn.Linear(model.z_size, model.decoder_size)
        self.plan = nn.Linear(model.z_size, tokenizer.steps * model.plan_size)
        self.gru = nn.GRU(embedding.size + model.z_size + model.plan_size, model.decoder_size, batch_first=True)
        self.output = nn.Linear(model.decoder_size, model.embed_size)
        self.output_bias = nn.Parameter(torch.zeros(tokenizer.vocab_size))

    def latent_inputs(self, z: Tensor) -> Tensor:
        """z, and its plan for each step. z: [B, Z] -> [B, T, Z + C]"""
        plan = self.plan(z).unflatten(1, (self.steps, -1))  # [B, T, C]
        return torch.cat([z.unsqueeze(1).expand(-1, plan.shape[1], -1), plan], dim=-1)

    def forward(self, z: Tensor, inputs: Tensor, input_mask: Tensor | None = None, output_mask: Tensor | None = None) -> Tensor:
        """z: [B, Z]; inputs: int64 [B, T], the tokens before each step; masks: see Draws -> logits: [B, T, V]"""
        steps = masked(self.embedding(inputs), input_mask)  # [B, T, E + P]
        state = torch.tanh(self.first_state(z)).unsqueeze(0)  # [1, B, H]
        output, _ = self.gru(torch.cat([steps, self.latent_inputs(z)], dim=-1), state)  # [B, T, H]
        return F.linear(self.output(masked(output, output_mask)), self.embedding.table()[:-1], self.output_bias)  # [B, T, V]

    def start(self, z: Tensor) -> tuple[Tensor, StepShares]:
        """The first state [B, H], and what every `step` shares."""
        latent = self.latent_inputs(z)  # [B, T, Z + C]
        split = [self.embedding.token.embedding_dim, self.embedding.in_bar.embedding_dim, latent.shape[2]]
        gates: Any = self.gru  # its weights are set by name, which type checkers cannot see
        w_token, w_place, w_latent = gates.weight_ih_l0.split(split, dim=1)  # [3H, E], [3H, P], [3H, Z + C]
        table = self.embedding.table()  # [V + 1, E]
        shares = StepShares(
            from_token=F.linear(table, w_token, gates.bias_ih_l0),
            from_place=F.linear(self.embedding.positions(), w_place),
            from_z=F.linear(latent.transpose(0, 1), w_latent),
            w_output=table[:-1] @ self.output.weight,
            b_output=table[:-1] @ self.output.bias + self.output_bias,
        )
        return torch.tanh(self.first_state(z)), shares

    def step(self, t: int, before: Tensor, state: Tensor, shares: StepShares) -> tuple[Tensor, Tensor]:
        """One step of the GRU.

        Args:
            t: which step, from 0.
            before: int64 [B], the token before it.
            state: [B, H], from `start` or the step before.

        Returns:
            logits [B, V] and the new state [B, H]
        """
        from_input = shares.from_token[before] + shares.from_place[t] + shares.from_z[t]  # [B, 3H]
        gates: Any = self.gru
        from_state = F.linear(state, gates.weight_hh_l0, gates.bias_hh_l0)  # [B, 3H]
        reset_i, update_i, new_i = from_input.chunk(3, dim=1)
        reset_s, update_s, new_s = from_state.chunk(3, dim=1)
        update = torch.sigmoid(update_i + update_s)
        new = torch.tanh(new_i + torch.sigmoid(reset_i + reset_s) * new_s)
        state = new + update * (state - new)  # [B, H]
        return F.linear(state, shares.w_output, shares.b_output), state


class StepShares(NamedTuple):
    """What does not change from step to step while decoding."""

    from_token: Tensor  # [V + 1, 3H], each token's share of the gates
    from_place: Tensor  # [T, 3H], each place's
    from_z: Tensor  # [T, B, 3H], z's
    w_output: Tensor  # [V, H], from state to logits
    b_output: Tensor  # [V]


class RiffVAE(nn.Module):
    """Variational autoencoder over two-bar riffs (after MusicVAE: Roberts et al. 2018, arXiv:1803.05428)."""

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config, self.tokenizer = model, tokenizer
        self.embedding = StepEmbedding(model, tokenizer)
        self.encoder = Encoder(model, tokenizer, self.embedding)
        self.decoder = Decoder(model, tokenizer, self.embedding)
        self.initialize()

    def initialize(self) -> None:
        """Small posterior heads, so that z starts as N(0, I), and small output weights, so that the loss starts at ln V per token."""
        embedding = self.embedding
        for table in (embedding.token, embedding.pitch_class, embedding.octave, embedding.in_bar, embedding.bar):
            nn.init.normal_(table.weight, std=0.3)
        for head in (self.encoder.mu, self.encoder.logvar):
            nn.init.normal_(head.weight, std=0.001)
            nn.init.zeros_(head.bias)
        nn.init.normal_(self.decoder.output.weight, std=0.02)
        nn.init.zeros_(self.decoder.output.bias)
        for gru in (self.encoder.gru, self.decoder.gru):
            for name, weight in gru.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in weight.data.chunk(3):  # type: ignore[union-attr]
                        nn.init.orthogonal_(gate)

    def decoder_inputs(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """The target shifted right behind a start token; where `keep` is False, the start token hides what was there.

        Args:
            tokens: int64 [B, T]
            keep: bool [B, T] or None for all.
        """
        start = torch.full_like(tokens[:, :1], self.decoder.start_token)
        inputs = torch.cat([start, tokens[:, :-1]], dim=1)  # [B, T]
        return inputs if keep is None else torch.where(keep, inputs, self.decoder.start_token)

    def forward(self, tokens: Tensor, draws: Draws | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw z, and decode with the known tokens as input (teacher forcing).

        Args:
            tokens: int64 [B, T]
            draws: the random numbers; None takes the posterior mean and drops nothing.

        Returns:
            logits [B, T, V]; mu, logvar [B, Z]
        """
        draws = draws or Draws()
        mu, logvar = self.encoder(tokens, draws.encoder_mask)
        z = mu if draws.noise is None else mu + torch.exp(0.5 * logvar) * draws.noise
        if draws.from_model is not None:
            return self._decode_scheduled(tokens, z, draws), mu, logvar
        return self.decoder(z, self.decoder_inputs(tokens, draws.keep), draws.decoder_mask, draws.output_mask), mu, logvar

    def _decode_scheduled(self, tokens: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """Decode step by step, some inputs being the model's own draws, with dropout as in Decoder.forward. -> logits [B, T, V]"""
        assert draws.from_model is not None and draws.uniform is not None
        decoder = self.decoder
        state, latent, table = torch.tanh(decoder.first_state(z)).unsqueeze(0), decoder.latent_inputs(z), self.embedding.table()
        places = self.embedding.positions()
        before = torch.full_like(tokens[:, 0], self.decoder.start_token)
        outputs = []
        for t in range(tokens.shape[1]):
            seen = before if draws.keep is None else torch.where(draws.keep[:, t], before, self.decoder.start_token)
            step = torch.cat([F.embedding(seen, table), places[t].expand(len(z), -1)], dim=-1)  # [B, E + P]
            step = masked(step, None if draws.decoder_mask is None else draws.decoder_mask[:, t])
            output, state = decoder.gru(torch.cat([step, latent[:, t]], dim=-1).unsqueeze(1), state)  # [B, 1, H]
            output = masked(output[:, 0], None if draws.output_mask is None else draws.output_mask[:, t])
            logits = F.linear(decoder.output(output), table[:-1], decoder.output_bias)  # [B, V]
            outputs.append(logits)
            drawn = inverse_cdf(logits.detach().softmax(dim=-1), draws.uniform[:, t])
            before = torch.where(draws.from_model[:, t], drawn, tokens[:, t])
        return torch.stack(outputs, dim=1)


def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw from categorical distributions with given uniform numbers.

    Args:
        probabilities: [B, V], each row summing to 1 up to rounding.
        uniform: [B] in 0..1 (1 excluded).

    Returns:
        int64 [B], never a token of probability 0.
    """
    cumulative = probabilities.double().cumsum(dim=-1)
    target = uniform.double().unsqueeze(-1) * cumulative[:, -1:]  # rounding may leave the sum off 1
    return (cumulative <= target).sum(dim=-1)


def reconstruction_nats(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of each riff, summed over its steps. logits [B, T, V], tokens [B, T] -> [B], nats per riff"""
    return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").sum(dim=1)


def kl_nats(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) by latent dimension (Kingma & Welling 2014, appendix B). mu, logvar [B, Z] -> [B, Z], nats"""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def kl_cost(kl: Tensor, free_bits: float) -> Tensor:
    """What the loss charges for: KL beyond the free bits, on the total as in MusicVAE. kl [B, Z], free_bits in bits -> [B], nats"""
    return (kl.sum(dim=1) - free_bits * LN2).clamp(min=0)


# ---------------------------------------------------------------- latent diffusion


class NoiseSchedule(nn.Module):
    """Variances of the forward process q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I), t = 0..T - 1.

    Both shapes end with abar near zero at every T: sampling starts from pure noise, so the model must have seen it. The
    linear shape therefore scales its betas by 1000 / T (with 1e-4..0.02 as they are, T = 200 would end at abar = 0.13).
    """

    alphas_cumprod: Tensor

    def __init__(self, num_timesteps: int, schedule: str = "cosine") -> None:
        super().__init__()
        steps = torch.arange(num_timesteps + 1, dtype=torch.float64)
        if schedule == "cosine":  # Nichol & Dhariwal 2021, eq. 17
            curve = torch.cos((steps / num_timesteps + 0.008) / 1.008 * math.pi / 2).square()
            betas = 1 - curve[1:] / curve[:-1]
        elif schedule == "linear":  # Ho et al. 2020, section 4
            betas = torch.linspace(1e-4, 0.02, num_timesteps, dtype=torch.float64) * (1000 / num_timesteps)
        else:
            raise ValueError(f"schedule {schedule!r}: choose cosine or linear")
        alphas_cumprod = torch.cumprod(1 - betas.clamp(max=0.999), dim=0)
        self.register_buffer("alphas_cumprod", alphas_cumprod.float())  # [T]; computed in float64, kept in float32

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise scales at time t. t: int64 [B] -> sqrt(abar), sqrt(1 - abar): [B, 1]"""
        abar = self.alphas_cumprod[t].unsqueeze(-1)
        return abar.sqrt(), (1 - abar).sqrt()

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t for a given noise (Ho et al. 2020, eq. 4). x_0, eps: [B, Z]; t: int64 [B]"""
        signal, noise = self.coefficients(t)
        return signal * x_0 + noise * eps

    def target(self, prediction_type: str, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the denoiser should say: eps, x_0, or v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022, appendix D). [B, Z]"""
        signal, noise = self.coefficients(t)
        return {"eps": eps, "x0": x_0, "v": signal * eps - noise * x_0}[prediction_type]

    def x0_and_eps(self, prediction_type: str, prediction: Tensor, x_t: Tensor, t: Tensor, limit: float = 6.0) -> tuple[Tensor, Tensor]:
        """Read a prediction as x_0 and eps, with x_0 held within +-limit: at t = T - 1 an eps prediction says little of x_0.

        Returns:
            x_0 and eps, each [B, Z], that together make x_t.
        """
        signal, noise = self.coefficients(t)
        if prediction_type == "eps":
            x_0 = (x_t - noise * prediction) / signal
        elif prediction_type == "x0":
            x_0 = prediction
        else:
            x_0 = signal * x_t - noise * prediction
        x_0 = x_0.clamp(-limit, limit)
        return x_0, (x_t - signal * x_0) / noise


class ResidualBlock(nn.Module):
    """An MLP block whose normalised input is scaled and shifted by the time embedding; starts as the identity."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.condition = nn.Linear(hidden_size, 2 * hidden_size)
        self.up = nn.Linear(hidden_size, 2 * hidden_size)
        self.down = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.condition(time).chunk(2, dim=-1)  # [B, H] each
        return x + self.down(F.silu(self.up(self.norm(x) * (1 + scale) + shift)))


class Denoiser(nn.Module):
    """Residual MLP that predicts eps, x_0 or v from a noisy latent and its time, and from what was asked for, if anything was."""

    frequencies: Tensor

    def __init__(self, z_size: int, model: DiffusionConfig) -> None:
        super().__init__()
        hidden = model.hidden_size
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * torch.arange(hidden // 2) / (hidden // 2)), persistent=False)
        self.time = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.time_scale = 1000 / model.num_timesteps
        self.enter = nn.Linear(z_size, hidden)
        self.blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(model.blocks))
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, z_size)
        conditions = len(model.condition_names)
        self.condition = nn.Sequential(nn.Linear(2 * conditions, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) if conditions else None
        for block in self.blocks:
            nn.init.zeros_(block.down.weight)  # type: ignore[union-attr,arg-type]
            nn.init.zeros_(block.down.bias)  # type: ignore[union-attr,arg-type]
        nn.init.normal_(self.leave.weight, std=0.02)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x_t: Tensor, t: Tensor, conditions: Tensor | None = None) -> Tensor:
        """x_t: [B, Z]; t: int64 [B]; conditions: [B, A], normalised, NaN where nothing is asked, or None for nothing -> [B, Z]"""
        angles = t.unsqueeze(-1) * self.time_scale * self.frequencies  # [B, H / 2]
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))  # [B, H]
        if self.condition is not None:
            asked = x_t.new_zeros(len(x_t), self.condition[0].in_features // 2) if conditions is None else conditions.isfinite().to(x_t)
            values = asked if conditions is None else conditions.nan_to_num(0.0)
            time = time + self.condition(torch.cat([values, asked], dim=-1))
        x = self.enter(x_t)  # [B, H]
        for block in self.blocks:
            x = block(x, time)
        return self.leave(self.norm(x))


class LatentDiffusion(nn.Module):
    """A diffusion model over the latents of one VAE, normalised by the mean and standard deviation it carries."""

    latent_mean: Tensor
    latent_std: Tensor
    condition_mean: Tensor
    condition_std: Tensor

    def __init__(self, z_size: int, model: DiffusionConfig) -> None:
        super().__init__()
        self.config, self.z_size = model, z_size
        self.denoiser = Denoiser(z_size, model)
        self.schedule = NoiseSchedule(model.num_timesteps, model.schedule)
        self.register_buffer("latent_mean", torch.zeros(z_size))
        self.register_buffer("latent_std", torch.ones(z_size))
        if names := model.condition_names:
            self.register_buffer("condition_mean", torch.zeros(len(names)))
            self.register_buffer("condition_std", torch.ones(len(names)))

    def forward(self, x_0: Tensor, t: Tensor, eps: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Squared error of the prediction, mean over dimensions.

        Args:
            x_0, eps: [B, Z], normalised.
            t: int64 [B]
            conditions: see Denoiser.

        Returns:
            [B]
        """
        prediction = self.denoiser(self.schedule.q_sample(x_0, t, eps), t, conditions)
        return (prediction - self.schedule.target(self.config.prediction_type, x_0, t, eps)).square().mean(dim=1)

    def x0_and_eps(
        self, x_t: Tensor, t: Tensor, conditions: Tensor | None = None, guidance_scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The denoiser's view of x_t, with classifier-free guidance (Ho & Salimans 2022, eq. 6, where 1 + w is our scale).

        Args:
            x_t: [B, Z]
            t: int64 [B]
            conditions: see Denoiser.
            guidance_scale: 1 follows the conditions as trained, more exaggerates them, 0 does not listen.

        Returns:
            x_0, eps: [B, Z]
        """
        prediction = self.denoiser(x_t, t, conditions)
        if conditions is not None and guidance_scale != 1:
            free = self.denoiser(x_t, t)
            prediction = free + guidance_scale * (prediction - free)  # eps, x_0 and v are linear in each other at one x_t
        return self.schedule.x0_and_eps(self.config.prediction_type, prediction, x_t, t)

    def conditions(self, asked: Mapping[str, float]) -> Tensor:
        """What was asked for, as the denoiser is told: normalised, held within three standard deviations, NaN for the rest.

        Args:
            asked: by attribute, in its unit; all of them among the config's conditions.

        Returns:
            [1, A]
        """
        values = [asked.get(name, math.nan) for name in self.config.condition_names]
        row = torch.tensor([values], dtype=torch.float32, device=self.latent_mean.device)
        return self.normalize_conditions(row)

    def normalize_conditions(self, values: Tensor) -> Tensor:
        """Attributes in the training riffs' standard deviations, held within three of them; NaN stays NaN. [B, A]"""
        return ((values - self.condition_mean) / self.condition_std).clamp(-3, 3)

    def normalize(self, z: Tensor) -> Tensor:
        return (z - self.latent_mean) / self.latent_std

    def denormalize(self, x: Tensor) -> Tensor:
        return x * self.latent_std + self.latent_mean


if __name__ == "__main__":
    from presets import PRESETS, TrainDiffusion, TrainVAE, is_language_model, preset_options

    for preset in PRESETS:
        if is_language_model(preset):
            continue
        options = preset_options(TrainVAE, preset)
        vae = RiffVAE(options.model, options.tokenizer)
        diffusion = LatentDiffusion(options.model.z_size, preset_options(TrainDiffusion, preset).model)
        counts = [sum(p.numel() for p in part.parameters()) for part in (vae, vae.encoder, vae.decoder, diffusion)]
        print(f"{preset:18s} VAE {counts[0]:,} (encoder {counts[1]:,}, decoder {counts[2]:,}), denoiser {counts[3]:,} parameters")
