"""The VAE: encoder, flat and hierarchical decoder, and its losses (after MusicVAE: Roberts et al. 2018, arXiv:1803.05428).

No device choice, no printing, no file access in here. Dimensions: B batch, T steps, E embedding, P position, H hidden, S state (all that
a recurrent part carries from step to step, as one vector), G gates, F features of an encoder's step, C plan, Z latent, V logits; K segments
of L steps. What stands on a step depends on the representation, see heads.py. Run `python models.py` to see parameter counts.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import TokenizerConfig, VAEConfig
from heads import StepEmbedding, step_embedding

LN2 = math.log(2.0)


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
    uniform: Tensor | None = None  # [B, T, draws of a step] in 0..1, for those draws

    def map(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """The same with a function applied to every tensor: a share of the rows, another device."""
        return Draws(*(None if (x := getattr(self, f.name)) is None else function(x) for f in dataclasses.fields(self)))


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def in_full(x: Tensor) -> torch.autocast:
    """Inside, nothing is computed in half precision, whatever holds outside: posterior and logits are exact."""
    return torch.autocast(x.device.type, enabled=False)


def where_steps(condition: Tensor, steps: Tensor, others: Tensor) -> Tensor:
    """torch.where for steps of any representation. condition: bool [B] or [B, T]; steps and others: one or two dimensions more at most"""
    return torch.where(condition.reshape(*condition.shape, *[1] * (steps.dim() - condition.dim())), steps, others)


# ---------------------------------------------------------------- recurrent layers


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map, to nothing as well."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs)


def state_size(cell: str, hidden_size: int, layers: int) -> int:
    """S, of a Recurrent's state."""
    return hidden_size * layers * (2 if cell == "lstm" else 1)


class Recurrent(nn.Module):
    """Recurrent layers whose first state is read off a vector, by the whole sequence or step by step.

    A state is one vector of all layers, [B, S]: an LSTM's outputs before its cells. Computing step by step is for inputs whose share of the
    first layer's gates is known beforehand.
    """

    def __init__(self, cell: str, input_size: int, hidden_size: int, layers: int) -> None:
        super().__init__()
        self.is_lstm, self.layers = cell == "lstm", layers
        self.state_size = state_size(cell, hidden_size, layers)
        self.rnn = (nn.LSTM if self.is_lstm else nn.GRU)(input_size, hidden_size, num_layers=layers, batch_first=True)

    @property
    def weights(self) -> Any:
        """The layers' weights, which are set by name: type checkers cannot see them."""
        return self.rnn

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs: [B, T, I]; state: [B, S] -> outputs [B, T, H] and the last state [B, S]"""
        parts = tuple(part.unflatten(1, (self.layers, -1)).transpose(0, 1).contiguous() for part in self._parts(state))
        output, last = self.rnn(inputs, parts if self.is_lstm else parts[0])  # [B, T, H], [layers, B, H]
        return output, torch.cat([part.transpose(0, 1).flatten(1) for part in (last if self.is_lstm else (last,))], dim=1)

    def step(self, gates: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step. gates: [B, G], what the input adds to the first layer's, its bias included; state: [B, S] -> output [B, H], state"""
        hidden, *cells = (part.chunk(self.layers, dim=1) for part in self._parts(state))
        outputs, new_cells = [], []
        for layer in range(self.layers):
            weight_hh, bias_hh = getattr(self.weights, f"weight_hh_l{layer}"), getattr(self.weights, f"bias_hh_l{layer}")
            if layer:
                gates = F.linear(outputs[-1], getattr(self.weights, f"weight_ih_l{layer}"), getattr(self.weights, f"bias_ih_l{layer}"))
            from_state = F.linear(hidden[layer], weight_hh, bias_hh)  # [B, G]
            if self.is_lstm:
                enter, forget, new, leave = (gates + from_state).chunk(4, dim=1)
                new_cells.append(torch.sigmoid(forget) * cells[0][layer] + torch.sigmoid(enter) * torch.tanh(new))
                outputs.append(torch.sigmoid(leave) * torch.tanh(new_cells[-1]))
            else:
                reset_i, update_i, new_i = gates.chunk(3, dim=1)
                reset_s, update_s, new_s = from_state.chunk(3, dim=1)
                update = torch.sigmoid(update_i + update_s)
                new = torch.tanh(new_i + torch.sigmoid(reset_i + reset_s) * new_s)
                outputs.append(new + update * (hidden[layer] - new))
        state = torch.cat([*outputs, *new_cells], dim=1) if self.is_lstm or self.layers > 1 else outputs[0]
        return outputs[-1], state

    def _parts(self, state: Tensor) -> tuple[Tensor, ...]:
        """Outputs and, of an LSTM, cells."""
        return state.chunk(2, dim=1) if self.is_lstm else (state,)


def share(module: nn.Module, embedding: StepEmbedding) -> None:
    """Let a part use the embedding that the whole owns, without owning it too: it stands once in the checkpoint."""
    object.__setattr__(module, "embedding", embedding)


# ---------------------------------------------------------------- encoder


class Encoder(nn.Module):
    """q(z|x): bidirectional; mean and log variance are read from its two last states and, if asked for, from every step's summary.

    The summaries keep their place: with only the last states, what stood where has to be carried through the whole riff,
    and few riffs do not teach a GRU to do that (held-out onset accuracy .24 instead of .61).
    """

    embedding: StepEmbedding

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig, embedding: StepEmbedding) -> None:
        super().__init__()
        share(self, embedding)
        self.is_lstm, both = model.cell == "lstm", 2 * model.encoder_size
        kind = nn.LSTM if self.is_lstm else nn.GRU
        self.rnn = kind(embedding.size, model.encoder_size, num_layers=model.encoder_layers, batch_first=True, bidirectional=True)
        self.summary = linear(both, model.summary_size)
        size = both + tokenizer.steps * model.summary_size
        self.mu = nn.Linear(size, model.z_size)
        self.logvar = nn.Linear(size, model.z_size)

    def forward(self, steps: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """steps: [B, T], [B, T, 3] or [B, T, 27]; mask: see Draws.encoder_mask -> mu, logvar: [B, Z]"""
        output, last = self.rnn(masked(self.embedding(steps), mask))  # [B, T, 2H]
        last = last[0] if self.is_lstm else last  # [2 * layers, B, H], the last layer's two directions last
        both = last[-2:].transpose(0, 1).flatten(1)  # [B, 2H]; transposed first, or examples of the batch would mix
        with in_full(both):
            features = torch.cat([both.float(), self.summary(output.float()).flatten(1)], dim=1)  # [B, 2H + T * F]
            return self.mu(features), self.logvar(features)


# ---------------------------------------------------------------- decoders


class StepShares(NamedTuple):
    """What does not change from step to step while decoding."""

    tables: list[Tensor]  # of the step before, see StepEmbedding.gate_tables
    from_place: Tensor  # [T, G], each place's share of the gates
    from_z: Tensor  # [T, B, G], z's; of a hierarchical decoder z itself, [B, Z]
    output: tuple[Tensor, Tensor]  # [V, H] and [V], from outputs to logits


class Decoder(nn.Module):
    """p(x|z): recurrent layers that start from z and see, at every step, the step before, its place, z, and a plan of z for that step.

    The plan is a linear map of z of its own for each step, the counterpart of the encoder's summaries. Inside a hierarchical decoder the
    same writes one segment, and what stands here as z is the conductor's output for it.

    `forward` runs over whole sequences with known inputs; `start` and `step` run one step at a time and give the same logits.
    For them all products that do not depend on the state (the step before, its place and z into the gates) are computed once.
    """

    embedding: StepEmbedding

    def __init__(
        self, model: VAEConfig, tokenizer: TokenizerConfig, embedding: StepEmbedding, z_size: int = 0, steps: int = 0
    ) -> None:  # fmt: skip
        super().__init__()
        share(self, embedding)
        self.z_size, self.steps = z_size or model.z_size, steps or tokenizer.steps
        self.first_state = nn.Linear(self.z_size, state_size(model.cell, model.decoder_size, model.decoder_layers))
        self.plan = linear(self.z_size, self.steps * model.plan_size)
        inputs = embedding.size + self.z_size + model.plan_size
        self.layers = Recurrent(model.cell, inputs, model.decoder_size, model.decoder_layers)
        self.output = nn.Linear(model.decoder_size, embedding.vector_size)
        self.output_bias = nn.Parameter(torch.zeros(embedding.logit_size))

    def shown(self, steps: Tensor, keep: Tensor | None = None) -> Tensor:
        """The decoder's inputs: the target shifted right behind a start token; where `keep` is False, the start token hides what was there.

        Args:
            steps: [B, T] and more.
            keep: bool [B, T] or None for all.
        """
        start = self.embedding.start(len(steps)).unsqueeze(1)
        inputs = torch.cat([start, steps[:, :-1]], dim=1)
        return inputs if keep is None else where_steps(keep, inputs, start)

    def latent_inputs(self, z: Tensor) -> Tensor:
        """z, and its plan for each step. z: [B, Z] -> [B, T, Z + C]"""
        plan = self.plan(z).unflatten(1, (self.steps, -1))  # [B, T, C]
        return torch.cat([z.unsqueeze(1).expand(-1, plan.shape[1], -1), plan], dim=-1)

    def forward(self, z: Tensor, inputs: Tensor, input_mask: Tensor | None = None, output_mask: Tensor | None = None) -> Tensor:
        """z: [B, Z]; inputs: see `shown`; masks: see Draws -> logits: [B, T, V]"""
        output, _ = self.run(z, masked(self.embedding(inputs), input_mask))
        return self.logits(masked(output, output_mask))

    def run(self, z: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """z: [B, Z]; inputs: [B, T, E + P] -> outputs [B, T, H], last state [B, S]"""
        return self.layers(torch.cat([inputs, self.latent_inputs(z)], dim=-1), torch.tanh(self.first_state(z)))

    def logits(self, output: Tensor) -> Tensor:
        """outputs [..., H] -> [..., V]"""
        with in_full(output):
            return self.embedding.logits(self.output(output.float()), self.output_bias)

    def shares(self, from_z: Tensor) -> StepShares:
        w_token, w_place, _ = self._input_weights()
        embedding = self.embedding
        with in_full(from_z):
            output = embedding.output_weights(self.output.weight, self.output.bias, self.output_bias)
        return StepShares(
            tables=embedding.gate_tables(w_token, self.layers.weights.bias_ih_l0),
            from_place=F.linear(embedding.positions(), w_place),
            from_z=from_z,
            output=output,
        )

    def _input_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the first layer's gates: of the step before [G, E], its place [G, P], z and plan [G, Z + C]."""
        weight = self.layers.weights.weight_ih_l0
        sizes = [self.embedding.vector_size, self.embedding.size - self.embedding.vector_size]
        return weight.split([*sizes, weight.shape[1] - sum(sizes)], dim=1)

    def start(self, z: Tensor) -> tuple[Tensor, StepShares]:
        """The first state [B, S], and what every `step` shares."""
        from_z = F.linear(self.latent_inputs(z).transpose(0, 1), self._input_weights()[2])
        return torch.tanh(self.first_state(z)), self.shares(from_z)

    def step(
        self, t: int, before: Tensor, state: Tensor, shares: StepShares, input_mask: Tensor | None = None, output_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            t: which step, from 0.
            before: [B] and more, the step before it.
            state: [B, S], from `start` or the step before.
            input_mask, output_mask: [B, E + P] and [B, H], dropout.

        Returns:
            logits [B, V] and the new state [B, S]
        """
        output, state = self.layers.step(self.input_gates(t, before, shares, input_mask) + shares.from_z[t], state)
        return self.embedded_logits(masked(output, output_mask), shares), state

    def embedded_logits(self, output: Tensor, shares: StepShares) -> Tensor:
        """`logits`, by what steps share."""
        with in_full(output):
            return F.linear(output.float(), *shares.output)

    def latent_gates(self, t: int, z: Tensor) -> Tensor:
        """The share of the gates that z and its plan for one step have. z: [B, Z] -> [B, G]"""
        size = self.plan.out_features // self.steps
        plan = F.linear(z, self.plan.weight[t * size : (t + 1) * size], self.plan.bias[t * size : (t + 1) * size])
        return F.linear(torch.cat([z, plan], dim=-1), self._input_weights()[2])

    def input_gates(self, t: int, before: Tensor, shares: StepShares, mask: Tensor | None) -> Tensor:
        """The share of the gates that the step before and its place have, and the bias. [B, G]"""
        if mask is None:
            return self.embedding.gates(before, shares.tables) + shares.from_place[t]
        places = self.embedding.positions()[t].expand(len(before), -1)
        seen = masked(torch.cat([self.embedding.vectors(before), places], dim=-1), mask)  # [B, E + P]
        return F.linear(seen, torch.cat(self._input_weights()[:2], dim=1), self.layers.weights.bias_ih_l0)


class HierarchicalDecoder(nn.Module):
    """p(x|z) in two levels: a conductor turns z into one vector for each segment, from which alone a core decoder writes the segment.

    Segments then depend on each other through z only, so z has to hold what the whole is about. With feedback the conductor is told the
    state in which the core left the segment before, and the core goes on from its last step. With a plan it is told at each segment what
    a linear map of its own reads off z, and does not have to keep all of z in its state; without either it is told nothing, as published.
    """

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig, embedding: StepEmbedding) -> None:
        super().__init__()
        share(self, embedding)
        assert model.levels is not None
        self.segments, self.length = model.levels
        self.feedback = model.segment_feedback
        self.core = Decoder(model, tokenizer, embedding, model.conductor_size, self.length)
        self.plan = nn.Linear(model.z_size, self.segments * self.length * model.plan_size) if model.plan_size else None
        told = self.length * model.plan_size + (self.core.layers.state_size + model.z_size if self.feedback else 0)
        self.conductor_state = nn.Linear(model.z_size, state_size(model.cell, model.conductor_size, model.decoder_layers))
        self.conductor = Recurrent(model.cell, max(1, told), model.conductor_size, model.decoder_layers)

    def shown(self, steps: Tensor, keep: Tensor | None = None) -> Tensor:
        """As Decoder.shown; without feedback, each segment begins with the start token."""
        inputs = self.core.shown(steps, keep)
        if self.feedback:
            return inputs
        first = torch.arange(steps.shape[1], device=steps.device) % self.length == 0
        return where_steps(first.expand(len(steps), -1), self.core.embedding.start(len(steps)).unsqueeze(1), inputs)

    def told(self, z: Tensor, ended: Tensor, segment: int | slice = slice(None)) -> Tensor:
        """What the conductor is told at a segment, or at all of them. z: [B, Z]; ended: [B, S], the core's state -> [B, (K,) told]"""
        parts = [self.plan(z).unflatten(1, (self.segments, -1))[:, segment]] if self.plan is not None else []
        parts += [ended, z] if self.feedback else []
        shape = (self.segments, 1) if isinstance(segment, slice) else (1,)
        return torch.cat(parts, dim=-1) if parts else z.new_zeros(len(z), *shape)

    def forward(self, z: Tensor, inputs: Tensor, input_mask: Tensor | None = None, output_mask: Tensor | None = None) -> Tensor:
        """As Decoder.forward."""
        steps = masked(self.core.embedding(inputs), input_mask).unflatten(1, (self.segments, self.length))  # [B, K, L, E + P]
        state = torch.tanh(self.conductor_state(z))
        if not self.feedback:
            embeddings, _ = self.conductor(self.told(z, state), state)  # [B, K, conductor's H]
            outputs, _ = self.core.run(embeddings.flatten(0, 1), steps.flatten(0, 1))  # [B * K, L, H]
            output = outputs.unflatten(0, (len(z), self.segments)).flatten(1, 2)  # [B, T, H]
            return self.core.logits(masked(output, output_mask))
        ended, outputs = z.new_zeros(len(z), self.core.layers.state_size), []
        for segment in range(self.segments):
            embedding, state = self.conductor(self.told(z, ended, segment).unsqueeze(1), state)
            some, ended = self.core.run(embedding[:, 0], steps[:, segment])
            outputs.append(some)
        return self.core.logits(masked(torch.cat(outputs, dim=1), output_mask))

    def start(self, z: Tensor) -> tuple[Tensor, StepShares]:
        """As Decoder.start. The state holds the core's, the conductor's, and the segment's embedding."""
        core = z.new_zeros(len(z), self.core.layers.state_size)
        conductor = torch.tanh(self.conductor_state(z))
        return torch.cat([core, conductor, z.new_zeros(len(z), self.core.z_size)], dim=1), self.core.shares(z)

    def step(
        self, t: int, before: Tensor, state: Tensor, shares: StepShares, input_mask: Tensor | None = None, output_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As Decoder.step."""
        core, conductor, embedding = state.split([self.core.layers.state_size, self.conductor.state_size, self.core.z_size], dim=1)
        if t % self.length == 0:
            weights = self.conductor.weights
            told = self.told(shares.from_z, core, t // self.length)
            embedding, conductor = self.conductor.step(F.linear(told, weights.weight_ih_l0, weights.bias_ih_l0), conductor)
            core = torch.tanh(self.core.first_state(embedding))
            if not self.feedback:
                before = self.core.embedding.start(len(before))
        gates = self.core.input_gates(t, before, shares, input_mask) + self.core.latent_gates(t % self.length, embedding)
        output, core = self.core.layers.step(gates, core)
        return self.core.embedded_logits(masked(output, output_mask), shares), torch.cat([core, conductor, embedding], dim=1)


# ---------------------------------------------------------------- the whole


class MusicVAE(nn.Module):
    """Variational autoencoder over some bars of music, of any representation; the riff VAE is one of its presets."""

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        model.require_fit(tokenizer)
        self.config, self.tokenizer = model, tokenizer
        self.embedding = step_embedding(model, tokenizer)
        self.encoder = Encoder(model, tokenizer, self.embedding)
        self.decoder = (HierarchicalDecoder if model.levels else Decoder)(model, tokenizer, self.embedding)
        self.initialize()

    def initialize(self) -> None:
        """Small posterior heads, so that z starts as N(0, I), and small output weights, so that the loss starts at ln V per token."""
        for part in self.embedding.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.3)
        for head in (self.encoder.mu, self.encoder.logvar):
            nn.init.normal_(head.weight, std=0.001)
            nn.init.zeros_(head.bias)
        output = (self.decoder if isinstance(self.decoder, Decoder) else self.decoder.core).output
        nn.init.normal_(output.weight, std=0.02)
        nn.init.zeros_(output.bias)
        for name, weight in self.named_parameters():
            if ".weight_hh" in name:
                for gate in weight.data.split(weight.shape[1]):
                    nn.init.orthogonal_(gate)
            if self.config.cell == "lstm" and (".bias_ih" in name or ".bias_hh" in name):
                nn.init.zeros_(weight)
                if ".bias_ih" in name:  # an LSTM that begins by keeping what it holds learns longer spans (Jozefowicz et al. 2015)
                    nn.init.ones_(weight.data.chunk(4)[1])

    def forward(self, steps: Tensor, draws: Draws | None = None, given: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw z, and decode with the known steps as input (teacher forcing).

        Args:
            steps: [B, T] and more, what is to be decoded.
            draws: the random numbers; None takes the posterior mean and drops nothing.
            given: what is encoded, if not the same.

        Returns:
            logits [B, T, V]; mu, logvar [B, Z]
        """
        draws = draws or Draws()
        mu, logvar = self.encoder(steps if given is None else given, draws.encoder_mask)
        z = mu if draws.noise is None else mu + torch.exp(0.5 * logvar) * draws.noise
        if draws.from_model is not None:
            return self._decode_scheduled(steps, z, draws), mu, logvar
        return self.decoder(z, self.decoder.shown(steps, draws.keep), draws.decoder_mask, draws.output_mask), mu, logvar

    def _decode_scheduled(self, steps: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """Decode step by step, some inputs being the model's own draws, with dropout as in Decoder.forward. -> logits [B, T, V]"""
        assert draws.from_model is not None and draws.uniform is not None
        state, shares = self.decoder.start(z)
        start = self.embedding.start(len(z))
        before, outputs = start, []
        for t in range(steps.shape[1]):
            seen = before if draws.keep is None else where_steps(draws.keep[:, t], before, start)
            masks = (None if mask is None else mask[:, t] for mask in (draws.decoder_mask, draws.output_mask))
            logits, state = self.decoder.step(t, seen, state, shares, *masks)
            outputs.append(logits)
            drawn = self.embedding.draw(logits.detach(), draws.uniform[:, t])
            before = where_steps(draws.from_model[:, t], drawn, steps[:, t])
        return torch.stack(outputs, dim=1)

    def reconstruction_nats(self, logits: Tensor, steps: Tensor) -> Tensor:
        """Reconstruction loss of each example, summed over its steps. logits: [B, T, V] -> [B], nats (groove: see GrooveEmbedding)"""
        return self.embedding.nats(logits, steps).sum(dim=1)


def kl_nats(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) by latent dimension (Kingma & Welling 2014, appendix B). mu, logvar [B, Z] -> [B, Z], nats"""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def kl_cost(kl: Tensor, free_bits: float) -> Tensor:
    """What the loss charges for: KL beyond the free bits, on the total as in MusicVAE. kl [B, Z], free_bits in bits -> [B], nats"""
    return (kl.sum(dim=1) - free_bits * LN2).clamp(min=0)


if __name__ == "__main__":
    from diffusion import LatentDiffusion
    from presets import PRESETS, TrainDiffusion, TrainVAE, is_language_model, preset_options

    for preset in PRESETS:
        if is_language_model(preset):
            continue
        options = preset_options(TrainVAE, preset)
        with torch.device("meta"):  # counted without being made
            vae = MusicVAE(options.model, options.tokenizer)
            diffusion = LatentDiffusion(options.model.z_size, preset_options(TrainDiffusion, preset).model)
        counts = [sum(p.numel() for p in part.parameters()) for part in (vae, vae.encoder, vae.decoder, diffusion)]
        print(f"{preset:26s} VAE {counts[0]:,} (encoder {counts[1]:,}, decoder {counts[2]:,}), denoiser {counts[3]:,} parameters")
