"""The VAE: encoder, flat and hierarchical decoder, and its losses (after MusicVAE: Roberts et al. 2018, arXiv:1803.05428).

No device choice, no printing, no file access in here. Dimensions: B batch, T steps, E embedding, P position, H hidden, S state (all that
a recurrent part carries from step to step, as one vector), G gates, F features of an encoder's step, C plan, Z latent, V logits; K segments
of L steps. What stands on a step depends on the representation, see heads.py. Run `python models.py` to see parameter counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import TokenizerConfig, VAEConfig
from graphs import looped
from heads import StepEmbedding, step_embedding
from products import Product, in_parts, prepared
from recurrent import Recurrent, joined, layer_precision, linear, run_layers, side_by_side, state_size
from stepwise import Chances, Walk, take_step, where_steps, write_among

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


def share(module: nn.Module, embedding: StepEmbedding) -> None:
    """Let a part use the embedding that the whole owns, without owning it too: it stands once in the checkpoint."""
    object.__setattr__(module, "embedding", embedding)


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
        self.summary.requires_grad_(bool(model.summary_size))  # what is not used has no gradient that several processes could wait for
        size = both + tokenizer.steps * model.summary_size
        self.mu = nn.Linear(size, model.z_size)
        self.logvar = nn.Linear(size, model.z_size)

    def forward(self, steps: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """steps: [B, T], [B, T, 3] or [B, T, 27]; mask: see Draws.encoder_mask -> mu, logvar: [B, Z]"""
        output, last = run_layers(self.rnn, side_by_side(masked(self.embedding(steps), mask)))  # [B, T, 2H]
        last = last[0] if self.is_lstm else last  # [2 * layers, B, H], the last layer's two directions last
        both = last[-2:].transpose(0, 1).flatten(1)  # [B, 2H]; transposed first, or examples of the batch would mix
        with in_full(both):
            features = both.float()
            if self.summary.out_features:
                features = torch.cat([features, self.summary(output.float()).flatten(1)], dim=1)  # [B, 2H + T * F]
            return self.mu(features), self.logvar(features)


# ---------------------------------------------------------------- decoders


class Decoder(nn.Module):
    """p(x|z): recurrent layers that start from z and see, at every step, the step before, its place, z, and a plan of z for that step.

    The plan is a linear map of z of its own for each step, the counterpart of the encoder's summaries. Inside a hierarchical decoder the
    same writes one segment, and what stands here as z is the conductor's output for it.

    `forward` runs over whole sequences with known inputs; `begin` gives the same logits one step at a time.
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

    def latent_inputs(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z, at each step, and its plan. z: [B, Z] -> [B, T, Z], [B, T, C]"""
        plan = self.plan(z).unflatten(1, (self.steps, -1))  # [B, T, C]
        return z.to(layer_precision(z)).unsqueeze(1).expand(-1, plan.shape[1], -1), plan

    def forward(self, z: Tensor, inputs: Tensor, input_mask: Tensor | None = None, output_mask: Tensor | None = None) -> Tensor:
        """z: [B, Z]; inputs: see `shown`; masks: see Draws -> logits: [B, T, V]"""
        output, _ = self.run(z, masked(self.embedding(inputs), input_mask))
        return self.logits(masked(output, output_mask))

    def run(self, z: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """z: [B, Z]; inputs: [B, T, E + P] -> outputs [B, T, H], last state [B, S]"""
        return self.layers(side_by_side(inputs, *self.latent_inputs(z)), torch.tanh(self.first_state(z)))

    def logits(self, output: Tensor) -> Tensor:
        """outputs [..., H] -> [..., V]"""
        with in_full(output):
            return self.embedding.logits(self.output(output.float()), self.output_bias)

    def begin(self, z: Tensor, precision: torch.dtype = torch.float32) -> StepByStep:
        """Decode step by step. z: [B, Z]; precision: of the recurrent products"""
        return StepByStep(self, z, precision)


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

    def begin(self, z: Tensor, precision: torch.dtype = torch.float32) -> SegmentBySegment:
        """As Decoder.begin."""
        return SegmentBySegment(self, z, precision)


# ---------------------------------------------------------------- decoders, step by step


class DecoderWeights:
    """A decoder's weights, laid out: what each step before and each place add to the gates is computed once."""

    def __init__(self, decoder: Decoder, precision: torch.dtype) -> None:
        self.embedding = decoder.embedding
        self.layers = decoder.layers.stepping(precision)
        places = self.embedding.positions()  # [T, P]
        sizes = [self.embedding.vector_size, places.shape[1], decoder.z_size, decoder.plan.out_features // decoder.steps]
        w_before, w_place, w_z, w_plan = self.layers.input_weight.split(sizes, dim=1)
        self.w_z = w_z.contiguous()
        self.tables = self.embedding.gate_tables(w_before, self.layers.input_bias)
        self.from_place = list(F.linear(places, w_place).unbind()) if w_place.shape[1] else []  # T of [G]
        self.w_plan = w_plan.t() if w_plan.shape[1] else None
        self.output = Product(*self.embedding.output_weights(decoder.output.weight, decoder.output.bias, decoder.output_bias))


class StepByStep:
    """A decoder on its way, without gradients; stepwise.logits_at gives the logits of each step, the same as Decoder.forward's.

    Args:
        z: [B, Z]
    """

    begins_anew = True  # whether each stretch is written without sight of the one before

    def __init__(self, decoder: Decoder, z: Tensor, precision: torch.dtype) -> None:
        self.decoder, self.weights = decoder, prepared(decoder, DecoderWeights, precision, decoder.embedding)
        self.begin(z)

    @torch.no_grad()
    def begin(self, z: Tensor) -> None:
        """Begin anew. z's share of the gates is computed once; its plan's, step by step, is small. z: [B, Z]"""
        decoder, weights, plan = self.decoder, self.weights, []
        if weights.w_plan is not None:
            plan = list(decoder.plan(z).unflatten(1, (decoder.steps, -1)).transpose(0, 1).contiguous().unbind())
        self.walk = Walk(
            states=weights.layers.begin(torch.tanh(decoder.first_state(z))),
            tables=weights.tables,
            from_z=F.linear(z, weights.w_z),
            from_place=weights.from_place,
            plan=plan,
            w_plan=weights.w_plan,
            output=weights.output.laid(len(z)),
        )

    def stretches(self) -> Iterator[tuple[Walk, range]]:
        """What is written in one loop, and which steps that is. Once: the decoder is on its way afterwards, until it begins anew."""
        yield self.walk, range(self.decoder.steps)


class SegmentBySegment:
    """A hierarchical decoder on its way, as StepByStep."""

    @torch.no_grad()
    def __init__(self, decoder: HierarchicalDecoder, z: Tensor, precision: torch.dtype) -> None:
        self.decoder, self.z, self.precision, self.begins_anew = decoder, z, precision, not decoder.feedback
        self.conductor = prepared(decoder.conductor, Recurrent.stepping, precision)
        self.states = self.conductor.begin(torch.tanh(decoder.conductor_state(z)))
        self.core: StepByStep | None = None

    def stretches(self) -> Iterator[tuple[Walk, range]]:
        """As StepByStep.stretches, each when the one before is written."""
        for segment in range(self.decoder.segments):
            self.core = self._next_core(segment)
            first = segment * self.decoder.length
            yield self.core.walk, range(first, first + self.decoder.length)

    @torch.no_grad()
    def _next_core(self, segment: int) -> StepByStep:
        decoder, core = self.decoder, self.core
        ended = joined(core.walk.states) if core else self.z.new_zeros(len(self.z), decoder.core.layers.state_size)
        told = decoder.told(self.z, ended, segment)
        self.states.gates.copy_(F.linear(told, self.conductor.input_weight, self.conductor.input_bias))
        embedding = take_step(self.states)
        if core is None:
            return decoder.core.begin(embedding, self.precision)
        core.begin(embedding)
        return core


Write = Callable[[Walk, Tensor, Tensor, range], list[Tensor]]


def written(decoder: StepByStep | SegmentBySegment, start: Tensor, write: Write) -> list[Tensor]:
    """Steps, stretch by stretch.

    Args:
        start: what stands before the first.
        write: writes a stretch, given a decoder on its way, the step before, what is seen of it, and which steps to write; maybe fewer.

    Returns:
        [B] and more, of each step.
    """
    made: list[Tensor] = []
    for walk, places in decoder.stretches():
        before = made[-1] if made else start
        made += write(walk, before, start if decoder.begins_anew else before, places)
    return made


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
        inputs = self.decoder.shown(steps, draws.keep) if draws.from_model is None else self._own_inputs(steps, z, draws)
        return self.decoder(z, inputs, draws.decoder_mask, draws.output_mask), mu, logvar

    def _own_inputs(self, steps: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """Decoder inputs of scheduled sampling: some steps are the model's own draws, written without dropout, each with those before it in
        sight. What is drawn has no gradient, so decoding can run over the whole sequence once it is known."""
        z, precision = z.detach(), layer_precision(z)

        def write(part: slice) -> Tensor:
            with torch.no_grad(), in_full(z):  # each thread has modes of its own
                return self._written(steps[part], z[part], draws.map(lambda x: x[part]), precision)

        return self.decoder.shown(in_parts(write, len(z), z.device), draws.keep)

    def _written(self, steps: Tensor, z: Tensor, draws: Draws, precision: torch.dtype) -> Tensor:
        """The steps, some of them drawn by the model. -> as steps"""
        assert draws.from_model is not None and draws.uniform is not None
        decoder, start = self.decoder.begin(z, precision), self.embedding.start(len(z))
        among, steps_drawn = looped(write_among, z.device), self.embedding.step_draws(Chances())
        numbers, known = self.embedding.step_numbers(draws.uniform), list(steps[:, :-1].unbind(dim=1))  # the last is shown to nobody
        from_model, keep = list(draws.from_model.unbind(dim=1)), [] if draws.keep is None else list(draws.keep.unbind(dim=1))

        def write(walk: Walk, before: Tensor, shown: Tensor, places: range) -> list[Tensor]:
            some = slice(places.start, places.stop)
            return among(walk, steps_drawn, before, shown, numbers[some], places.start, known[some], from_model[some], keep[some], start)

        return torch.stack([*written(decoder, start, write), steps[:, -1]], dim=1)

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
