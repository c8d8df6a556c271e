"""The VAE over every representation and with every decoder: what must hold whatever the preset."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from conftest import step_by_step
from torch import Tensor
from torch.testing import assert_close

import graphs
import products
import recurrent
import stepwise
from config import DRUM_CLASSES, GROOVE_SIZE, HOLD, REST, SampleConfig, TokenizerConfig, UserError, VAEConfig
from experiments.wrong_loss import wrong_loss
from family.presets import FAMILY
from heads import GrooveEmbedding, StepEmbedding, normal_nats
from models import Draws, MusicVAE, kl_nats
from presets import TrainVAE, preset_options
from recurrent import Recurrent, joined, run_layers, side_by_side
from sampling import decode, decode_steps, decode_weighed, reconstruct
from steering.rules import RiffRules
from stepwise import Chances, draw_step, logits_at, play_groove, take_step, where_steps

B = 5
SIZES = VAEConfig(
    embed_size=6, encoder_size=7, decoder_size=9, z_size=4, position_size=3, summary_size=0, plan_size=0, conductor_size=8, cell="lstm"
)
KINDS = {kind: TokenizerConfig(bars=1, representation=kind) for kind in ("mono", "drums", "groove", "trio")}  # type: ignore[arg-type]
DECODERS: dict[str, dict[str, Any]] = {
    "flat": {},
    "flat gru, three layers, plan": {"cell": "gru", "decoder_layers": 3, "plan_size": 2, "summary_size": 2},
    "flat, two layers": {"decoder_layers": 2, "encoder_layers": 2},
    "hierarchical": {"level_lengths": "4,4"},
    "hierarchical gru, plan": {"level_lengths": "2,8", "cell": "gru", "plan_size": 3},
    "hierarchical, feedback": {"level_lengths": "4,4", "segment_feedback": True, "decoder_layers": 2},
    "hierarchical, feedback, plan": {"level_lengths": "4,4", "segment_feedback": True, "plan_size": 2},
}
EACH_KIND = pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
EACH_DECODER = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def music(tokenizer: TokenizerConfig, batch: int = B, seed: int = 0) -> Tensor:
    """Random steps of a representation."""
    rng = torch.Generator().manual_seed(seed)
    if tokenizer.representation == "groove":
        hits = (torch.rand(batch, tokenizer.steps, 9, generator=rng) < 0.3).float()
        loud, late = torch.rand(hits.shape, generator=rng), 2 * torch.rand(hits.shape, generator=rng) - 1
        return torch.cat([hits, hits * loud, hits * late], dim=-1)
    parts = [torch.randint(size, (batch, tokenizer.steps), generator=rng) for size in tokenizer.vocab_sizes]
    return torch.stack(parts, dim=-1) if len(parts) > 1 else parts[0]


def make(tokenizer: TokenizerConfig, decoder: dict[str, Any], seed: int = 0, awake: bool = True) -> MusicVAE:
    torch.manual_seed(seed)
    vae = MusicVAE(dataclasses.replace(SIZES, **decoder), tokenizer)
    if awake:  # random weights everywhere, so that nothing is hidden by a zero
        with torch.no_grad():
            for i, parameter in enumerate(vae.parameters()):
                parameter.copy_(0.3 * randn(*parameter.shape, seed=i))
    return vae.eval()


def drawn(embedding: StepEmbedding, logits: Tensor, uniform: Tensor) -> Tensor:
    """A step of each row, at temperature 1."""
    numbers = embedding.step_numbers(uniform.unsqueeze(1))[0]
    return draw_step(logits, embedding.start(len(logits)), numbers, None, embedding.step_draws(Chances()))


# ---------------------------------------------------------------- one decoder, two ways to run it


@EACH_KIND
@EACH_DECODER
def test_decoding_step_by_step_equals_decoding_at_once(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    vae, steps, z = make(tokenizer, decoder), music(tokenizer), randn(B, SIZES.z_size)
    inputs = vae.decoder.shown(steps)
    expected = vae.decoder(z, inputs)
    assert_close(step_by_step(vae.decoder.begin(z), inputs), expected, atol=2e-5, rtol=1e-4)


@EACH_KIND
@EACH_DECODER
def test_scheduled_sampling_that_samples_nothing_equals_teacher_forcing(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    vae, steps = make(tokenizer, decoder), music(tokenizer)
    rng = torch.Generator().manual_seed(3)
    sizes = (vae.embedding.size, vae.embedding.size, SIZES.decoder_size)
    masks = [2.0 * (torch.rand(B, tokenizer.steps, size, generator=rng) < 0.5) for size in sizes]
    keep = torch.rand(B, tokenizer.steps, generator=rng) < 0.5
    draws = Draws(randn(B, SIZES.z_size), keep, *masks)
    never, uniform = torch.zeros(B, tokenizer.steps, dtype=torch.bool), torch.rand(B, tokenizer.steps, vae.embedding.draws)
    scheduled = vae(steps, dataclasses.replace(draws, from_model=never, uniform=uniform))
    for one, other in zip(vae(steps, draws), scheduled, strict=True):
        assert_close(one, other, atol=2e-5, rtol=1e-4)


@EACH_KIND
def test_scheduled_sampling_that_samples_everything_never_sees_the_target(tokenizer: TokenizerConfig) -> None:
    vae, z = make(tokenizer, {}), randn(B, SIZES.z_size)
    always, uniform = torch.ones(B, tokenizer.steps, dtype=torch.bool), torch.rand(B, tokenizer.steps, vae.embedding.draws)
    one, other = (vae._own_inputs(music(tokenizer, seed=seed), z, Draws(from_model=always, uniform=uniform)) for seed in (1, 2))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("gru", 2), ("lstm", 1), ("lstm", 3)])
def test_a_recurrent_state_goes_on_where_it_was(cell: str, layers: int) -> None:
    """Guards against layers or cells that change places between the two ways of running."""
    part = Recurrent(cell, 3, 5, layers).requires_grad_(False)
    x, state = randn(B, 6, 3), randn(B, part.state_size, seed=1)
    stepping = part.stepping()
    states = stepping.begin(state)
    whole, last = part(x, state)
    first, middle = part(x[:, :4], state)
    second, end = part(x[:, 4:], middle)
    assert_close(torch.cat([first, second], dim=1), whole)
    assert_close(end, last)
    for t in range(6):
        states.gates.copy_(torch.nn.functional.linear(x[:, t], stepping.input_weight, stepping.input_bias))
        output = take_step(states)
        assert_close(output, whole[:, t], atol=1e-5, rtol=1e-5)
    assert_close(joined(states), last, atol=1e-5, rtol=1e-5)
    assert torch.equal(state, randn(B, part.state_size, seed=1)), "the state that was given was overwritten"


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_states_go_when_nobody_needs_them(cell: str) -> None:
    """Guards against a circle, which would keep the rooms of every walk until Python looks for circles; it knows nothing of their size."""
    part = Recurrent(cell, 3, 5, 2).requires_grad_(False)
    gc.disable()
    try:
        states = part.stepping().begin(randn(B, part.state_size))
        watched = weakref.ref(states.outputs[0])
        del states
        assert watched() is None
    finally:
        gc.enable()


def test_groove_is_written_without_a_graph_wherever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against weights that are laid out as the parameters they are, so that what is written could not be fed back."""
    vae = make(KINDS["groove"], {})
    monkeypatch.setattr(products, "onednn_multiplies", lambda device, precision: False)
    decoder, before = vae.decoder.begin(randn(2, SIZES.z_size)), vae.embedding.start(2)
    for t in range(3):
        before = drawn(vae.embedding, logits_at(decoder.walk, t, t, before), torch.rand(2, vae.embedding.draws))
        assert not before.requires_grad


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("inputs", [1, 6, 7])
@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_a_zero_more_changes_nothing(kind: type, inputs: int, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in half precision, but computed in double precision, so that it is seen to be exact: outputs, last state, all gradients."""
    monkeypatch.setattr(recurrent, "layer_precision", lambda x: x.dtype)
    rnn = kind(inputs, 5, num_layers=2, bidirectional=True, batch_first=True).double()
    first = torch.stack([randn(B, 5, seed=i) for i in range(4)]).double() if given else None
    state = (first, first) if given and kind is torch.nn.LSTM else first
    found = []
    for run in (rnn, partial(run_layers, rnn)):
        x = randn(B, 6, inputs, seed=9).double().requires_grad_()
        output, last = run(side_by_side(x) if run is not rnn else x, state)
        rnn.zero_grad()
        last = last if isinstance(last, tuple) else (last,)
        (output.square().sum() + sum(part.sum() for part in last)).backward()
        found.append([output, *last, x.grad, *(weight.grad for weight in rnn.parameters())])
    assert side_by_side(x).shape[-1] == inputs + inputs % 2
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.skipif(not graphs.SCRIPTS, reason="no TorchScript here")
@EACH_KIND
@EACH_DECODER
def test_a_loop_without_python_is_the_same_to_the_bit(
    tokenizer: TokenizerConfig, decoder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against what TorchScript reads otherwise than Python, and against machines without it that write something else."""
    vae, steps, rules = make(tokenizer, decoder), music(tokenizer, 6), RiffRules(TokenizerConfig(bars=1))
    some = torch.Generator().manual_seed(1)
    uniform, z = torch.rand(6, tokenizer.steps, vae.embedding.draws, generator=some), randn(6, SIZES.z_size)
    kept = torch.rand(6, tokenizer.steps, generator=some) < 0.7
    draws = Draws(randn(6, SIZES.z_size), kept, from_model=~kept, uniform=uniform)
    hits = torch.rand(6, tokenizer.steps, 9, generator=some) < 0.3
    samples: list[dict[str, Any]] = [{}, {"temperature": 0}, {"temperature": 0.7, "top_k": 3, "top_p": 0.8, "rest_penalty": 1}]
    samples.append({"precision": "bfloat16"})
    found = []
    for scripts in (True, False):
        monkeypatch.setattr("graphs.SCRIPTS", scripts)
        assert (graphs.looped(stepwise.write_steps, z.device) is stepwise.write_steps) != scripts
        made = [vae._own_inputs(steps, z, draws)]
        for rows in (1, 3, 6):
            for options in samples:
                sample = SampleConfig(**{"temperature": 1.0, **options})
                made.append(decode_steps(vae, z[:rows], uniform[:rows], sample))
                if tokenizer.representation == "groove":
                    made.append(decode_steps(vae, z[:rows], uniform[:rows], sample, hits[:rows]))
                if tokenizer.representation == "mono":
                    made += decode_weighed(vae, z[:rows], uniform[:rows, :, 0], sample, rules)
                    assert torch.equal(made[-2], decode(vae, z[:rows], uniform[:rows, :, 0], sample, rules))
        found.append(made)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_half_precision_and_other_products_give_nearly_the_same(monkeypatch: pytest.MonkeyPatch, cell: str, packed: bool) -> None:
    """Guards against a path for other processors, or for quick sampling, that nobody runs here."""
    if not packed:
        monkeypatch.setattr(products, "onednn_multiplies", lambda device, precision: False)
    vae, z = make(KINDS["mono"], {"cell": cell, "decoder_layers": 2}), randn(B, SIZES.z_size)
    inputs = vae.decoder.shown(music(KINDS["mono"]))
    whole = vae.decoder(z, inputs)
    assert_close(step_by_step(vae.decoder.begin(z), inputs), whole, atol=2e-5, rtol=1e-4)
    assert_close(step_by_step(vae.decoder.begin(z, torch.bfloat16), inputs), whole, atol=0.15, rtol=0.02)


@EACH_KIND
def test_many_windows_are_those_that_few_are(tokenizer: TokenizerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against random numbers, or given hits, that go to another window where many are decoded in parts."""
    vae, z = make(tokenizer, {}), randn(5, SIZES.z_size)
    uniform = torch.rand(5, tokenizer.steps, vae.embedding.draws, generator=torch.Generator().manual_seed(1))
    for hits in (None, torch.rand(5, tokenizer.steps, 9) < 0.3):
        if hits is not None and tokenizer.representation != "groove":
            continue
        whole = decode_steps(vae, z, uniform, SampleConfig(temperature=1.0), hits)
        monkeypatch.setattr("products.FITTING", 2)
        assert_close(decode_steps(vae, z, uniform, SampleConfig(temperature=1.0), hits), whole, atol=1e-4, rtol=1e-4)
        monkeypatch.undo()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_scheduled_sampling_in_parts_is_that_of_the_whole(threads: int, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against threads that compute gradients, or in half precision, or draw with another's numbers."""
    vae, steps = make(KINDS["trio"], {"decoder_layers": 2}), music(KINDS["trio"])
    shape = (B, vae.tokenizer.steps)
    draws = Draws(randn(B, SIZES.z_size), torch.rand(shape) < 0.7, None, None, None, torch.rand(shape) < 0.7, torch.rand(*shape, 3))
    z, before, found = randn(B, SIZES.z_size, seed=1).requires_grad_(), torch.get_num_threads(), []
    monkeypatch.setattr("products.LEAST", 1)
    torch.set_num_threads(threads)
    try:
        for fitting in (512, 2):
            monkeypatch.setattr("products.FITTING", fitting)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                found.append(vae._own_inputs(steps, z, draws))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found) and not found[0].equal(vae.decoder.shown(steps, draws.keep))


SOME_PRESETS = [*(name for name in FAMILY if "small" in name), "melody_2bar", "drums_4bar_hier_v3", "groove_4bar"]


@pytest.mark.parametrize("preset", SOME_PRESETS)
def test_every_weight_that_wants_a_gradient_gets_one(preset: str) -> None:
    """Guards against training by several processes that wait for a gradient which never comes."""
    options = preset_options(TrainVAE, preset)
    sizes = {"encoder_size": 6, "decoder_size": 8, "z_size": 4, **({"conductor_size": 6} if options.model.levels else {})}
    vae = MusicVAE(dataclasses.replace(options.model, **sizes), options.tokenizer)
    steps = music(options.tokenizer, 2)
    logits, mu, logvar = vae(steps, Draws(randn(2, 4)))
    (vae.reconstruction_nats(logits, steps).mean() + kl_nats(mu, logvar).sum()).backward()
    assert [name for name, weight in vae.named_parameters() if weight.requires_grad and weight.grad is None] == []


@EACH_KIND
@EACH_DECODER
def test_scheduled_sampling_shows_what_the_model_writes(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    """Guards against draws that do not follow from the steps shown, and weights that learn from other steps than were shown."""
    vae, steps, z = make(tokenizer, decoder), music(tokenizer), randn(B, SIZES.z_size)
    rng = torch.Generator().manual_seed(3)
    draws = Draws(
        from_model=torch.rand(B, tokenizer.steps, generator=rng) < 0.5, uniform=torch.rand(B, tokenizer.steps, vae.embedding.draws)
    )
    assert draws.from_model is not None and draws.uniform is not None
    inputs = vae._own_inputs(steps, z, draws)
    logits = vae.decoder(z, inputs)
    by_hand = [
        where_steps(draws.from_model[:, t], drawn(vae.embedding, logits[:, t], draws.uniform[:, t]), steps[:, t])
        for t in range(tokenizer.steps)
    ]
    assert_close(inputs, vae.decoder.shown(torch.stack(by_hand, dim=1)), atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- what may depend on what


@EACH_KIND
@EACH_DECODER
def test_a_step_changes_only_what_comes_after_it(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    """Without feedback, a segment besides depends on no other."""
    vae, z, steps = make(tokenizer, decoder), randn(B, SIZES.z_size), music(tokenizer)
    before = vae.decoder(z, vae.decoder.shown(steps))
    for t in (0, 5, 14):
        changed = torch.where(
            (torch.arange(tokenizer.steps) == t).reshape(1, -1, *[1] * (steps.dim() - 2)), music(tokenizer, seed=9), steps
        )
        difference = (vae.decoder(z, vae.decoder.shown(changed)) - before).abs().amax(dim=(0, 2))  # [T]
        assert difference[: t + 1].max() == 0, t
        levels = vae.config.levels
        end = (t // levels[1] + 1) * levels[1] if levels and not vae.config.segment_feedback else tokenizer.steps
        assert difference[end:].sum() == 0, t
        assert t + 1 == end or difference[t + 1] > 1e-6, t


@EACH_KIND
@EACH_DECODER
def test_examples_of_a_batch_do_not_mix(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    vae, steps = make(tokenizer, decoder), music(tokenizer)
    together, alone = vae(steps), [vae(steps[i : i + 1]) for i in range(B)]
    for part, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert_close(part, torch.cat(parts), atol=2e-5, rtol=1e-4)


@EACH_KIND
@EACH_DECODER
def test_every_parameter_gets_a_gradient(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    vae, steps = make(tokenizer, decoder, awake=False), music(tokenizer)
    logits, mu, logvar = vae(steps, Draws(noise=randn(B, SIZES.z_size)))
    (vae.reconstruction_nats(logits, steps).mean() + kl_nats(mu, logvar).sum(dim=1).mean()).backward()
    dead = [name for name, p in vae.named_parameters() if p.numel() and (p.grad is None or not p.grad.abs().sum() > 0)]
    quiet = {"decoder.conductor.rnn.weight_ih_l0"} if vae.config.levels and not vae.config.segment_feedback else set()  # it sees zeros
    assert set(dead) <= quiet


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("kind", ["mono", "drums", "trio"])
def test_loss_starts_at_ln_v(kind: str) -> None:
    tokenizer = KINDS[kind]
    vae, steps = make(tokenizer, {}, awake=False), music(tokenizer, batch=32)
    nats = vae.reconstruction_nats(vae(steps)[0], steps) / tokenizer.steps
    assert_close(nats.mean().item(), sum(map(math.log, tokenizer.vocab_sizes)), atol=0.05 * len(tokenizer.vocab_sizes), rtol=0)


def test_a_trio_is_the_sum_of_its_parts() -> None:
    vae, steps = make(KINDS["trio"], {}), music(KINDS["trio"])
    logits = randn(B, 16, sum(KINDS["trio"].vocab_sizes))
    expected = sum(
        torch.nn.functional.cross_entropy(part.transpose(1, 2), steps[..., i], reduction="none")
        for i, part in enumerate(logits.split(KINDS["trio"].vocab_sizes, dim=-1))
    )
    assert_close(vae.embedding.nats(logits, steps), expected)
    wrong = steps.clone()
    wrong[0, 3, 2] = (wrong[0, 3, 2] + 1) % 512
    assert vae.embedding.right(wrong, steps).sum() == B * 16 - 1


def test_groove_loss_is_hits_velocities_and_offsets() -> None:
    """Against numbers worked out by hand: one hit of nine, predicted at a half, half as loud, on time."""
    vae = make(KINDS["groove"], {})
    assert isinstance(vae.embedding, GrooveEmbedding)
    step = torch.zeros(1, 1, GROOVE_SIZE)
    step[0, 0, 0], step[0, 0, 9], step[0, 0, 18] = 1.0, 0.9, -0.5
    hits, velocities, offsets = (float(x) for x in vae.embedding.part_nats(torch.zeros(1, 1, GROOVE_SIZE), step))
    assert hits == pytest.approx(9 * math.log(2))
    assert velocities == pytest.approx((0.9 - 0.5) ** 2 + 8 * 0.5**2)
    assert offsets == pytest.approx(0.25)


def test_the_likeliest_groove_is_in_range_and_silent_where_nothing_is_struck() -> None:
    vae = make(KINDS["groove"], {})
    made = vae.embedding.likeliest(5 * randn(3, 16, GROOVE_SIZE))
    hits, velocity, offset = made.split(len(DRUM_CLASSES), dim=-1)
    assert set(hits.unique().tolist()) == {0.0, 1.0}
    assert (velocity[hits == 0] == 0).all() and (offset[hits == 0] == 0).all()
    assert velocity[hits == 1].min() > 0 and velocity.max() <= 1 and offset.abs().max() <= 1


def test_hits_are_drawn_at_their_rates() -> None:
    vae = make(KINDS["groove"], {})
    logits = torch.zeros(4000, GROOVE_SIZE)
    logits[:, 0] = math.log(0.2 / 0.8)
    made = drawn(vae.embedding, logits, torch.rand(4000, 9, generator=torch.Generator().manual_seed(0)))
    assert made[:, 0].mean().item() == pytest.approx(0.2, abs=0.03)
    assert made[:, 1:9].mean().item() == pytest.approx(0.5, abs=0.02)


# ---------------------------------------------------------------- writing music


@EACH_KIND
@EACH_DECODER
def test_decoding_feeds_back_what_it_drew(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    """At temperature 0, what is written is the likeliest step given what was written before."""
    vae, z = make(tokenizer, decoder), randn(B, SIZES.z_size)
    made = decode_steps(vae, z, torch.zeros(B, tokenizer.steps, vae.embedding.draws), SampleConfig(temperature=0))
    assert made.shape == music(tokenizer).shape and made.dtype == music(tokenizer).dtype
    again = vae.embedding.likeliest(vae.decoder(z, vae.decoder.shown(made)))
    if tokenizer.representation not in ("mono", "trio"):
        torch.testing.assert_close(again, made, atol=1e-4, rtol=0)
        return
    for i, line in enumerate([made] if tokenizer.representation == "mono" else made.unbind(dim=-1)):
        likeliest = again if tokenizer.representation == "mono" else again[..., i]
        before = torch.cat([torch.zeros(B, 1, dtype=torch.int64), line[:, :-1]], dim=1)
        nothing_to_hold = (likeliest == HOLD) & (before == REST) & (i < 2)  # such a hold is not allowed, the next likeliest is written
        assert torch.equal(likeliest[~nothing_to_hold], line[~nothing_to_hold])
        assert (~nothing_to_hold).float().mean() > 0.5


@pytest.mark.parametrize("kind", ["mono", "trio"])
def test_lines_are_legal_at_any_temperature(kind: str) -> None:
    tokenizer = KINDS[kind]
    vae = make(tokenizer, {})
    with torch.no_grad():
        vae.decoder.output_bias[128] += 6  # type: ignore[index]  # it would hold all the time
    for temperature in (0.0, 0.7, 3.0):
        uniform = torch.rand(50, tokenizer.steps, vae.embedding.draws, generator=torch.Generator().manual_seed(1))
        made = decode_steps(vae, randn(50, SIZES.z_size), uniform, SampleConfig(temperature=temperature))
        for line in [made] if kind == "mono" else made.unbind(dim=-1)[:2]:
            before = torch.cat([torch.zeros(50, 1, dtype=torch.int64), line[:, :-1]], dim=1)
            assert not ((line == 128) & (before == 0)).any()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("spread", [False, True])
def test_given_hits_are_played_as_they_are(spread: bool, temperature: float) -> None:
    vae, steps = make(KINDS["groove"], {"groove_spread": spread}), music(KINDS["groove"])
    hits = steps[..., :9] > 0.5
    uniform = torch.rand(B, 16, vae.embedding.draws, generator=torch.Generator().manual_seed(0))
    z, sample = randn(B, SIZES.z_size), SampleConfig(temperature=temperature)
    made = decode_steps(vae, z, uniform, sample, hits)
    assert torch.equal(made[..., :9] > 0.5, hits) and not made[..., 9:][~torch.cat([hits, hits], dim=-1)].any()
    velocity, offset = made[..., 9:18][hits], made[..., 18:][hits]
    assert velocity.min() > 0 and velocity.max() <= 1 and offset.abs().max() <= 1
    again = decode_steps(vae, z, uniform.roll(1, dims=0), sample, hits)
    assert torch.equal(again, made) != (spread and temperature > 0)  # then, and only then, is playing drawn


def test_spread_is_the_density_of_a_normal_distribution() -> None:
    """Of what is struck alone, with an error of each class and one that a step shares."""
    rng = torch.Generator().manual_seed(0)
    errors, struck = torch.randn(6, 9, generator=rng), torch.rand(6, 9, generator=rng) < 0.4
    struck[0] = False
    log_spread = 0.5 * torch.randn(10, generator=rng)
    for row, (error, which) in enumerate(zip(errors, struck, strict=True)):
        covariance = torch.diag((2 * log_spread[:-1]).exp()) + (2 * log_spread[-1]).exp()
        normal = torch.distributions.MultivariateNormal(torch.zeros(int(which.sum())), covariance[which][:, which]) if which.any() else None
        expected = -normal.log_prob(error[which]) if normal else torch.tensor(0.0)
        assert_close(normal_nats(errors, struck.float(), log_spread)[row], expected)


def test_what_is_drawn_spreads_as_it_was_learnt() -> None:
    embedding = make(KINDS["groove"], {"groove_spread": True}).embedding
    assert isinstance(embedding, GrooveEmbedding) and embedding.log_spread is not None
    with torch.no_grad():
        embedding.log_spread.copy_(torch.linspace(0.02, 0.08, 20).reshape(2, 10).log())
    uniform = torch.rand(20_000, embedding.draws, generator=torch.Generator().manual_seed(0))
    spread = embedding.step_draws(Chances()).spread
    made = play_groove(torch.zeros(20_000, 27), torch.ones(20_000, 9, dtype=torch.bool), uniform, 0.5, spread)
    for part, spread in zip(made[:, 9:].split(9, dim=1), embedding.log_spread.exp(), strict=True):
        covariance = 0.25 * (torch.diag(spread[:-1].square()) + spread[-1].square())
        assert_close(part.T.cov(), covariance, atol=1e-4, rtol=0.1)


@EACH_KIND
@pytest.mark.parametrize(
    "decoder", [DECODERS["flat"], DECODERS["hierarchical"], DECODERS["hierarchical, feedback"]], ids=["flat", "hier", "fed"]
)
def test_memorises_a_batch_exactly(tokenizer: TokenizerConfig, decoder: dict[str, Any]) -> None:
    """The whole chain learns: what is decoded freely from z is what went in."""
    torch.manual_seed(0)
    sizes = dataclasses.replace(
        SIZES, embed_size=24, encoder_size=32, decoder_size=48, z_size=16, conductor_size=32, summary_size=4, **decoder
    )
    vae, steps = MusicVAE(sizes, tokenizer), music(tokenizer, batch=6)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    for _ in range(300):
        logits, mu, logvar = vae(steps)
        loss = vae.reconstruction_nats(logits, steps).mean() + 1e-4 * kl_nats(mu, logvar).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if loss < 0.15:
            break
    vae.eval()
    right = vae.embedding.right(reconstruct(vae, steps), steps).float().mean().item()
    others = vae.encoder(steps)[0].detach().roll(1, dims=0)
    other = vae.embedding.right(reconstruct(vae, steps, z=others), steps).float().mean().item()
    legal = 0.85 if tokenizer.representation in ("mono", "trio") else 0.99  # random lines hold notes that are not there
    assert right > legal and other < 0.5


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_wrong_loss_writes_as_it_says(temperature: float) -> None:
    """One class of a softmax at most, and nothing of how it is played; and afterwards all is as before."""
    vae = make(KINDS["groove"], {})
    uniform = torch.rand(B, 16, vae.embedding.draws, generator=torch.Generator().manual_seed(0))
    work = lambda: decode_steps(vae, randn(B, SIZES.z_size), uniform, SampleConfig(temperature=temperature))  # noqa: E731
    right = work()
    with wrong_loss():
        wrong = work()
    assert (wrong[..., :9].sum(dim=-1) <= 1).all() and wrong[..., :9].any() and not wrong[..., 9:].any()
    assert torch.equal(work(), right) and (right[..., :9].sum(dim=-1) > 1).any()


def test_spread_has_a_floor() -> None:
    """Of drums that are exactly on the grid a density would have no upper bound."""
    embedding = make(KINDS["groove"], {"groove_spread": True}).embedding
    assert isinstance(embedding, GrooveEmbedding) and embedding.log_spread is not None
    logits, steps = torch.zeros(1, 16, 27), torch.zeros(1, 16, 27)
    steps[..., :9], steps[..., 9:18] = 1, 0.5  # as predicted
    found = []
    for spread in (0.1, 1 / 127, 1e-3, 1e-6):
        with torch.no_grad():
            embedding.log_spread.fill_(math.log(spread))
        found.append(embedding.nats(logits, steps).sum().item())
    assert found[0] > found[1] == found[2] == found[3]


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize("preset", FAMILY)
def test_every_preset_is_a_model_of_its_kind(preset: str) -> None:
    """Its options fit together, and its sizes are the published ones where it is no small one (checked without making the weights)."""
    options = preset_options(TrainVAE, preset)
    with torch.device("meta"):
        vae = MusicVAE(options.model, options.tokenizer)
    bars = int(next(word for word in preset.split("_") if word.endswith("bar")).removesuffix("bar"))
    assert options.tokenizer.bars == bars
    assert ("hier" in preset) == (options.model.levels is not None) or preset.startswith("trio")
    assert options.tokenizer.representation == {"melody": "mono"}.get(preset.split("_")[0], preset.split("_")[0])
    if preset.endswith("_small"):
        assert sum(p.numel() for p in vae.parameters()) < 4e6
    else:
        assert (options.train.beta, options.train.lr, options.train.grad_clip) == (0.5 if preset == "melody_2bar_big" else 0.2, 1e-3, 1.0)


def test_published_sizes() -> None:
    """The 2-bar melody model has the 4.4 million parameters of the original, but for the smaller input layer."""
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in MusicVAE(o.model, o.tokenizer).parameters()) for name, o in
                  ((name, preset_options(TrainVAE, name)) for name in ("melody_2bar", "groove_4bar"))}  # fmt: skip
    assert 4.0e6 < counts["melody_2bar"] < 4.7e6
    assert 3.8e6 < counts["groove_4bar"] < 4.5e6


def test_segments_must_add_up() -> None:
    with pytest.raises(UserError, match=r"make 64 steps, here there are 32"):
        MusicVAE(dataclasses.replace(SIZES, level_lengths="8,8"), TokenizerConfig())
    for wrong in ("8", "8,0", "a,b", "8,8,8"):
        with pytest.raises(UserError, match="--level-lengths"):
            VAEConfig(level_lengths=wrong)
