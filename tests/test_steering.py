"""What a player asks for: keys, attributes, and every mode's guarantee over hundreds of seeds, with models that never learnt to keep it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from conftest import SmallRun
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sampling import TINY, awake
from torch import Tensor

from checkpoints import load_diffusion, load_vae
from config import ATTRIBUTES, DIFFUSION_FILE, HOLD, REST, VAE_FILE, DiffusionConfig, SampleConfig, SteerConfig, TokenizerConfig, UserError
from denoising import x0_and_eps, x0_and_eps_at
from diffusion import LatentDiffusion
from measures.metrics import metric_weights, onset_mask, syncopation
from midi_utils import is_legal
from models import MusicVAE
from sampling import reconstruct, sample_riffs
from steering import from_riff
from steering.arranging import arrange, leaps, parse_form
from steering.attributes import measure, measure_all
from steering.directions import direction, parse_changes
from steering.drawing import Wish, draw, transposed_to_key
from steering.from_riff import JOIN, continuations, draw_rhythms, interpolate, parse_steps
from steering.keys import SCALES, estimate_key, parse_key, parse_one_pitch, parse_pitches
from steering.picking import BY, pick, qualities
from steering.requests import parse_onsets, settled, wish_of
from steering.rules import Demands, RiffRules
from steering.ways import slerp
from train_diffusion import shown_conditions

torch.set_num_threads(1)
T = TokenizerConfig()
SEEDS = range(200)
WILD = SampleConfig(temperature=1.5)  # far from what a model would do by itself
RIFF = np.array([40, HOLD, REST, 43] * 4 + [45, 45, HOLD, REST] * 2 + [47, HOLD, 52, 40, REST, REST, 43, HOLD])
MELODY = [int(pitch) for pitch in RIFF if pitch not in (REST, HOLD)]


@pytest.fixture(scope="module")
def vae() -> MusicVAE:
    model = awake(MusicVAE(TINY, T), 0.3)
    assert isinstance(model, MusicVAE)
    return model


@pytest.fixture(scope="module")
def diffusion() -> LatentDiffusion:
    config = DiffusionConfig(hidden_size=16, blocks=1, num_timesteps=20, conditions="density,rests")
    model = awake(LatentDiffusion(TINY.z_size, config))
    assert isinstance(model, LatentDiffusion)
    model.condition_mean, model.condition_std = torch.tensor([9.0, 0.2]), torch.tensor([1.0, 0.05])
    return model


def wish(demands: Demands | None = None, **more: object) -> Wish:
    return Wish(RiffRules(T, demands or Demands(28, 76)), **more)  # type: ignore[arg-type]


def pitches(riff: np.ndarray) -> list[int]:
    return [int(token) for token in riff if token not in (REST, HOLD)]


SAMPLES = dataclasses.replace(WILD, sampling_steps=5)


# ---------------------------------------------------------------- keys and pitches


@pytest.mark.parametrize(
    ("text", "scale", "name", "classes"),
    [
        ("E minor", "", "E minor", {4, 6, 7, 9, 11, 0, 2}),
        ("Em", "", "E minor", {4, 6, 7, 9, 11, 0, 2}),
        ("f#m", "", "F# minor", {6, 8, 9, 11, 1, 2, 4}),
        ("Bb", "", "A# major", {10, 0, 2, 3, 5, 7, 9}),
        ("EM", "", "E major", {4, 6, 8, 9, 11, 1, 3}),
        ("a Minor Pentatonic", "", "A minor-pentatonic", {9, 0, 2, 4, 7}),
        ("E", "phrygian_dominant", "E phrygian-dominant", {4, 5, 8, 9, 11, 0, 2}),
        ("D", "blues", "D blues", {2, 5, 7, 8, 9, 0}),
    ],
)
def test_keys_are_read(text: str, scale: str, name: str, classes: set[int]) -> None:
    key = parse_key(text, scale)
    assert key.name == name and key.classes == classes


@pytest.mark.parametrize("text", ["", "X minor", "E foo", "Em7", "minor", "E" * 500, "4"])
def test_what_is_no_key_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--key") as error:
        parse_key(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_pitches_are_read() -> None:
    assert parse_pitches("--start-note", "E2") == {40} and parse_pitches("--start-note", "Bb2,45") == {46, 45}
    assert (
        parse_pitches("--end-note", "c") == set(range(12, 128, 12))
        and parse_one_pitch("--low", "40") == parse_one_pitch("--low", "e2") == 40
    )
    for text in ("", "E99", "0", "128", "x", "E2,"):
        with pytest.raises(UserError, match="--low"):
            parse_pitches("--low", text)
    with pytest.raises(UserError, match="--low E"):
        parse_one_pitch("--low", "E")


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize("scale", ["major", "minor"])
def test_a_scale_up_and_down_is_in_its_key(tonic: int, scale: str) -> None:
    steps = [*SCALES[scale], 12, *reversed(SCALES[scale])]
    riff = np.array([token for step in steps for token in (40 + tonic + step, HOLD)] + [HOLD] * (32 - 2 * len(steps)))
    key = estimate_key(riff, T)
    assert (key.tonic, key.scale) == ((40 + tonic) % 12, scale) and not key.extra


def test_a_riffs_own_notes_are_always_in_its_own_key() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        riff = rng.choice([REST, *range(40, 60)], size=32)
        assert {pitch % 12 for pitch in pitches(riff)} <= estimate_key(riff, T).classes
    assert estimate_key(np.zeros(32, dtype=int), T).scale == "chromatic"


def test_a_riff_moves_to_a_key_by_the_shortest_way() -> None:
    moved = transposed_to_key(RIFF, parse_key("F minor"), T, 28, 80)
    shift = set((moved - RIFF)[(RIFF != REST) & (RIFF != HOLD)].tolist())
    assert shift == {1} and ((moved == RIFF) | (RIFF > 0) & (RIFF != HOLD)).all()
    assert np.array_equal(transposed_to_key(RIFF, estimate_key(RIFF, T), T, 28, 80), RIFF)
    assert np.array_equal(transposed_to_key(np.zeros(32, dtype=int), parse_key("F minor"), T, 28, 80), np.zeros(32, dtype=int))
    for pitch, expected in ((40, 40), (39, 38)):  # where many shifts fit as well, the nearest; of two as near, the lower
        moved = transposed_to_key(np.full(32, pitch), parse_key("C major"), T, 38, 80)
        assert (moved == expected).all()


# ---------------------------------------------------------------- attributes


def test_metric_weights_of_a_bar() -> None:
    assert metric_weights(T)[:16].tolist() == [0, -4, -3, -4, -2, -4, -3, -4, -1, -4, -3, -4, -2, -4, -3, -4]
    triplets = metric_weights(TokenizerConfig(bars=1, steps_per_beat=3)).tolist()
    assert triplets == [0, -3, -3, -2, -3, -3, -1, -3, -3, -2, -3, -3]


def test_syncopation_of_known_bars() -> None:
    """On the beat there is none; an eighth before a beat that is held over it adds how much stronger the beat is."""

    def bar(*onsets: int) -> np.ndarray:
        riff = np.full(32, HOLD)
        riff[: onsets[0]] = REST
        riff[list(onsets)] = 40
        return riff

    beats = bar(0, 4, 8, 12, 16, 20, 24, 28)
    assert syncopation(beats[None], T)[0] == 0
    anticipated = bar(0, 4, 6, 12, 16, 20, 24, 28)  # step 6 (-3) is held over step 8 (-1): 2, over two bars
    assert syncopation(anticipated[None], T)[0] == 1
    over_the_bar_line = bar(0, 4, 8, 15, 20, 24, 28)  # step 15 (-4) over step 16 (0): 4
    assert syncopation(over_the_bar_line[None], T)[0] == 2
    rested = over_the_bar_line.copy()
    rested[16:20] = REST  # silence on the strong place counts as a hold does
    assert syncopation(rested[None], T)[0] == 2
    assert syncopation(np.zeros((1, 32), dtype=int), T)[0] == 0


def test_attributes_are_finite_for_any_riff() -> None:
    riffs = np.stack([RIFF, np.zeros(32, dtype=int), np.full(32, 40)])
    values = measure_all(riffs, T)
    assert values.shape == (3, len(ATTRIBUTES)) and np.isfinite(values).all()
    assert values[:, 0].tolist() == [len(MELODY) / 2, 0, 16] and values[1, 3] == 0


def test_half_of_what_is_told_is_hidden_and_all_of_some() -> None:
    values = torch.zeros(20_000, 4)
    shown = shown_conditions(values, 3, 0.3, 0).isfinite()
    none = (~shown).all(dim=1).float().mean()
    assert abs(none - (0.3 + 0.7 / 16)) < 0.015
    assert abs(shown.float().mean() - 0.35) < 0.01
    assert torch.equal(shown, shown_conditions(values, 3, 0.3, 0).isfinite()) and not torch.equal(
        shown, shown_conditions(values, 4, 0.3, 0).isfinite()
    )
    assert not shown_conditions(values, 3, 1.0, 0).isfinite().any()


def test_guidance_goes_from_unheard_to_exaggerated(diffusion: LatentDiffusion) -> None:
    """0 is the unconditional prediction, 1 the conditional one, and in between and beyond lies the straight line through both."""
    x = torch.randn(5, TINY.z_size, generator=torch.Generator().manual_seed(0))
    told = diffusion.conditions({"density": 11.0})

    def prediction(scale: float, conditions: Tensor | None) -> Tensor:
        with torch.no_grad():
            return x0_and_eps_at(diffusion.guided([3, 10], len(x), conditions, scale), 1, x)[0]

    free, conditional = prediction(1.0, None), prediction(1.0, told)
    assert not torch.allclose(free, conditional, atol=1e-3)
    assert torch.allclose(prediction(0.0, told), free, atol=1e-5)
    t = torch.full((5,), 10)
    raw_free, raw_told = diffusion.denoiser(x, t).detach(), diffusion.denoiser(x, t, told.expand(5, -1)).detach()
    guided = x0_and_eps("v", raw_free + 3 * (raw_told - raw_free), x, *diffusion.schedule.coefficients(t))[0]
    assert torch.allclose(prediction(3.0, told), guided, atol=1e-5)


def test_nothing_asked_is_nothing_told(diffusion: LatentDiffusion) -> None:
    x, t = torch.zeros(1, TINY.z_size), torch.zeros(1, dtype=torch.int64)
    assert torch.equal(diffusion.denoiser(x, t), diffusion.denoiser(x, t, diffusion.conditions({})))
    assert diffusion.conditions({"rests": 0.25})[0].isfinite().tolist() == [False, True]
    assert diffusion.conditions({"rests": 0.25})[0, 1] == pytest.approx(1.0)
    assert diffusion.conditions({"density": 1e9})[0, 0] == 3  # no further than the training riffs reach


def test_candidates_come_nearer_to_what_is_asked(vae: MusicVAE) -> None:
    """Best of N, where no prior can be told: asked for what few riffs have, 32 candidates come nearer than one."""

    def densities(**more: object) -> np.ndarray:
        return measure("density", draw(vae, None, range(60), SAMPLES, wish(**more)).tokens, T)

    free = densities()
    for value in np.quantile(free, [0.1, 0.9]):
        asked = {"asked": {"density": float(value)}, "spread": {"density": float(free.std())}}
        one, many = (np.abs(densities(candidates=n, **asked) - value).mean() for n in (1, 32))
        assert many < 0.5 * one


def test_changes_are_read() -> None:
    assert parse_changes("density=+1, rests=-0.5") == {"density": 1.0, "rests": -0.5} and parse_changes("") == {}
    for text in ("density", "loudness=1", "density=x", "density=1,density=2", "density=99", "=1"):
        with pytest.raises(UserError, match="--attribute"):
            parse_changes(text)


def test_a_direction_brings_what_is_asked_by_the_way_the_decoder_answers(vae: MusicVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a direction of the wrong sign or length: with a decoder whose density is known to grow by 3 with z's first number."""
    rng = np.random.default_rng(0)
    known = np.stack([from_riff.legalized(riff, T) for riff in rng.choice([REST, HOLD, 40, 43, 45, 50], size=(64, 32))])
    scale = float(torch.stack([from_riff.mean_latent(vae, riff) for riff in known])[:, 0].std())

    def dense_by_z(vae: MusicVAE, z: Tensor, *_: object) -> Tensor:
        onsets = (16 + 6 * (z[:, :1] - z[:, :1].mean()) / scale).round()
        return torch.where(torch.arange(32) < onsets, 40, REST)

    monkeypatch.setattr("steering.directions.decode", dense_by_z)
    step = direction(vae, "density", known)
    assert float(step[0]) / scale * 3 == pytest.approx(measure("density", known, T).std(), rel=0.05)
    assert torch.equal(step, direction(vae, "density", known))
    with pytest.raises(UserError, match="whatever z is"):
        direction(vae, "range", np.stack([RIFF, known[0] * 0 + 40, *known]))
    with pytest.raises(UserError, match="all have the same of it"):
        direction(vae, "density", np.stack([RIFF, RIFF]))


# ---------------------------------------------------------------- every mode's guarantee, over hundreds of seeds


def test_nothing_asked_gives_the_riffs_of_ever(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    rules = RiffRules(T, Demands(28, 76))
    for prior in (diffusion, None):
        ours = draw(vae, prior, range(70), SAMPLES, Wish(rules))
        tokens, z = sample_riffs(vae, prior, range(70), SAMPLES, rules)
        assert np.array_equal(ours.tokens, tokens) and np.array_equal(ours.z, z)


def test_a_seed_gives_the_same_riff_in_any_company(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    asked = wish(Demands(28, 76, last=frozenset({40})), candidates=5, asked={"density": 9.0}, spread={"density": 1.0}, guidance_scale=2.0)
    together = draw(vae, diffusion, range(30), SAMPLES, asked).tokens
    assert np.array_equal(together[[7, 3]], draw(vae, diffusion, [7, 3], SAMPLES, asked).tokens)
    assert not np.array_equal(together, draw(vae, diffusion, range(30), SAMPLES, asked, attempt=1).tokens)


def test_hard_demands_are_met_by_every_riff(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    key = parse_key("E minor")
    demands = Demands(40, 64, key.classes, frozenset({40, 52}), 0, frozenset({47, 40}))
    for riff in draw(vae, diffusion, SEEDS, SAMPLES, wish(demands, key=key, candidates=4)).tokens:
        notes = pitches(riff)
        assert is_legal(riff, T) and notes[0] in (40, 52) and notes[-1] in (40, 47)
        assert min(notes) >= 40 and max(notes) <= 64 and {note % 12 for note in notes} <= key.classes
    onsets = parse_onsets("x..x..x.x..x..x.", T)
    steer = SteerConfig(onsets="x..x..x.x..x..x.", low="E2", high="E4", key="A", scale="blues")
    asked = wish_of(steer, vae, T, (28, 76), np.stack([RIFF, RIFF]))
    for riff in draw(vae, diffusion, SEEDS, SAMPLES, settled(asked, SteerConfig(candidates=2))).tokens:
        assert np.array_equal(onset_mask(riff[None], T)[0], onsets) and is_legal(riff, T)
        assert {note % 12 for note in pitches(riff)} <= parse_key("A", "blues").classes


def test_a_demanded_end_stands_where_the_riff_ends_anyway(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    """Guards against an end that is bolted on at the last step."""
    free = draw(vae, diffusion, SEEDS, SAMPLES, wish()).tokens
    ended = draw(vae, diffusion, SEEDS, SAMPLES, wish(Demands(28, 76, last=frozenset({40, 52})))).tokens
    assert all(pitches(riff)[-1] in (40, 52) for riff in ended)
    sound = np.array([bool(pitches(riff)) for riff in free])
    assert sound.any() and np.array_equal(onset_mask(free[sound], T), onset_mask(ended[sound], T))
    alone = draw(vae, diffusion, [7], SAMPLES, wish(Demands(28, 76, last=frozenset({40, 52})))).tokens
    assert np.array_equal(ended[[7]], alone)


def test_strength_0_is_the_reconstruction_and_1_a_fresh_riff(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    for prior in (diffusion, None):
        none = draw(vae, prior, SEEDS, SAMPLES, from_riff.vary(vae, RIFF, Wish(RiffRules(T)), 0.0)).tokens
        expected = reconstruct(vae, torch.from_numpy(RIFF[None]))[0].numpy()
        assert (none == expected).all()
        all_of_it = draw(vae, prior, SEEDS, SAMPLES, from_riff.vary(vae, RIFF, Wish(RiffRules(T)), 1.0)).tokens
        assert np.array_equal(all_of_it, sample_riffs(vae, prior, SEEDS, SAMPLES)[0])


def test_distance_grows_with_strength(small_run: SmallRun) -> None:
    vae, content = load_vae(small_run.folder / VAE_FILE)
    diffusion, _ = load_diffusion(small_run.folder / DIFFUSION_FILE, vae)
    riff = content["known"]["tokens"].numpy().astype(np.int64)[0]
    start = from_riff.mean_latent(vae, riff).numpy()
    distance = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn = draw(vae, diffusion, SEEDS, SampleConfig(), from_riff.vary(vae, riff, Wish(RiffRules(T)), strength))
        distance.append(np.linalg.norm(drawn.z - start, axis=1).mean())
    assert distance[0] == 0 and all(a < b for a, b in itertools.pairwise(distance))


def test_kept_rhythm_stays_with_new_pitches(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    found = draw(vae, diffusion, SEEDS, SAMPLES, from_riff.vary(vae, RIFF, wish(candidates=2), 0.7, keep_rhythm=True)).tokens
    silent, held = RIFF == REST, RIFF == HOLD
    assert ((found == REST) == silent).all() and ((found == HOLD) == held).all()
    assert (found != RIFF).any(axis=1).mean() > 0.9


def test_kept_pitches_stay_with_new_rhythms(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    asked = from_riff.vary(vae, RIFF, wish(candidates=2), 0.7, keep_pitches=True)
    found = draw_rhythms(vae, diffusion, SEEDS, SAMPLES, asked)
    assert all(pitches(riff) == MELODY for riff in found) and len(np.unique(found, axis=0)) > 150
    assert all(is_legal(riff, T) for riff in found)
    assert np.array_equal(found[[7]], draw_rhythms(vae, diffusion, [7], SAMPLES, asked))
    walked = draw(vae, diffusion, SEEDS, SAMPLES, asked).tokens  # what is done where no rhythm comes
    assert all(pitches(riff) == MELODY for riff in walked)
    for mode in ({"keep_rhythm": True}, {"keep_pitches": True}):
        with pytest.raises(UserError, match="silent"):
            from_riff.vary(vae, np.zeros(32, dtype=int), wish(), 0.5, **mode)


@given(keep=st.lists(st.booleans(), min_size=32, max_size=32).filter(lambda keep: not all(keep)), start=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_infill_keeps_what_is_kept_whatever_the_mask(keep: list[bool], start: int) -> None:
    model = awake(MusicVAE(TINY, T), 0.3)
    assert isinstance(model, MusicVAE)
    mask = np.array(keep)
    found = draw(model, None, range(start, start + 5), SAMPLES, from_riff.infill(model, RIFF, mask, wish(Demands(50, 60)), 0.6)).tokens
    assert (found[:, mask] == RIFF[mask]).all() and all(is_legal(riff, T) for riff in found)
    free = found[:, ~mask]
    assert ((free == REST) | (free == HOLD) | (free >= 50) & (free <= 60)).all()


def test_gaps_are_first_looked_for_in_the_other_bar() -> None:
    keep = parse_steps("1", T, "--keep-bars", 16)
    assert keep[:16].all() and not keep[16:].any()
    filled = from_riff.likely_fill(RIFF, keep, T)
    assert np.array_equal(filled[16:], RIFF[:16]) and is_legal(filled, T)
    assert is_legal(from_riff.likely_fill(RIFF, parse_steps("2-3,18", T), T), T)
    for text in ("0", "33", "5-4", "x", "", "1-", "1,,2"):
        with pytest.raises(UserError, match="--keep"):
            parse_steps(text, T)


def test_what_comes_next_follows_without_a_leap(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    found = continuations(vae, diffusion, RIFF, SEEDS, SAMPLES, wish(strength=0.6))
    joins = 0
    for riff in found:
        assert is_legal(riff, T) and riff[0] != HOLD and riff[16] != HOLD
        first, second = pitches(riff[:16]), pitches(riff[16:])
        assert not first or abs(first[0] - MELODY[-1]) <= JOIN
        joins += bool(first and second and abs(second[0] - first[-1]) <= JOIN)
    assert joins == sum(bool(pitches(riff[:16]) and pitches(riff[16:])) for riff in found)
    assert np.array_equal(found[[4]], continuations(vae, diffusion, RIFF, [4], SAMPLES, wish(strength=0.6)))


@pytest.mark.parametrize("shift", [0, -3])
def test_an_answer_begins_as_the_riff_and_ends_elsewhere(shift: int, vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    riff = np.where((RIFF != REST) & (RIFF != HOLD), RIFF + shift, RIFF)
    home, ending = estimate_key(riff, T).tonic, pitches(riff)[-1] % 12
    for found in draw(vae, diffusion, SEEDS, SAMPLES, from_riff.answer(vae, riff, wish(candidates=2), 0.6)).tokens:
        assert (found == riff)[:16].all()
        assert ((found == REST) == (riff == REST))[:24].all() and ((found == HOLD) == (riff == HOLD))[:24].all()
        last = pitches(found)[-1] % 12
        assert last != ending and (ending == home or last == home)


def test_a_way_has_both_ends_and_legal_riffs_between(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    other = np.where((RIFF != REST) & (RIFF != HOLD), RIFF + 7, RIFF)[::-1].copy()
    other = from_riff.legalized(other, T)
    ends = reconstruct(vae, torch.from_numpy(np.stack([RIFF, other]))).numpy()
    for seed in range(100):
        for strength in (0.0, 0.5):
            riffs = interpolate(vae, diffusion, (RIFF, other), 6, strength, seed, SAMPLES, RiffRules(T))
            assert np.array_equal(riffs[[0, -1]], ends) and all(is_legal(riff, T) for riff in riffs)
    same = interpolate(vae, diffusion, (RIFF, RIFF), 4, 0.0, 0, SAMPLES, RiffRules(T))
    assert (same == ends[0]).all()


def test_slerp_keeps_to_the_arc_and_is_never_nan() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 32, generator=rng)
    shares = torch.linspace(0, 1, 11)
    way = slerp(a, b, shares)
    assert torch.equal(way[0], a) and torch.equal(way[-1], b)
    lengths = way.norm(dim=1)
    assert torch.allclose(lengths, a.norm() + (b.norm() - a.norm()) * shares, atol=1e-4)
    steps = torch.arccos((way[1:] * way[:-1]).sum(dim=1) / (lengths[1:] * lengths[:-1]))
    assert steps.std() < 1e-3
    for x, y in ((a, a), (a, -a), (a, torch.zeros(32)), (torch.zeros(32), torch.zeros(32)), (a, a * 2)):
        found = slerp(x, y, shares)
        assert found.isfinite().all() and torch.equal(found[0], x) and torch.equal(found[-1], y)
    assert torch.equal(slerp(a, a, shares), a.expand(11, -1))


def test_tokens_without_hold_are_steered_too(diffusion: LatentDiffusion) -> None:
    """All but what asks for onsets, which these tokens do not tell."""
    plain = TokenizerConfig(hold_token=False)
    model = awake(MusicVAE(TINY, plain), 0.3)
    assert isinstance(model, MusicVAE)
    riff = np.where(RIFF == HOLD, REST, RIFF)
    free = Wish(RiffRules(plain, Demands(28, 76)))
    keep = parse_steps("1-8", plain)
    for asked in (from_riff.vary(model, riff, free, 0.5), from_riff.infill(model, riff, keep, free, 0.5)):
        assert all(is_legal(found, plain) for found in draw(model, diffusion, range(50), SAMPLES, asked).tokens)
    assert (draw(model, diffusion, range(50), SAMPLES, from_riff.infill(model, riff, keep, free, 0.5)).tokens[:, keep] == riff[keep]).all()
    assert continuations(model, diffusion, riff, range(10), SAMPLES, dataclasses.replace(free, strength=0.6)).shape == (10, 32)
    assert interpolate(model, diffusion, (riff, riff[::-1].copy()), 5, 0.4, 0, SAMPLES, free.rules).shape == (5, 32)
    sections, each = parse_form("AB", 8, 2)
    asked = dataclasses.replace(free, strength=0.3)
    assert len(arrange(model, diffusion, riff, sections, each, 0, SAMPLES, asked, never_too_close)) == 4
    for refused in (lambda: from_riff.answer(model, riff, free, 0.5), lambda: from_riff.vary(model, riff, free, 0.5, keep_rhythm=True)):
        with pytest.raises(UserError, match="without hold tokens"):
            refused()


# ---------------------------------------------------------------- verses


def never_too_close(tokens: np.ndarray) -> np.ndarray:
    return np.zeros(len(tokens), dtype=bool)


def test_a_verse_keeps_its_form_key_and_joins(vae: MusicVAE, diffusion: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.arranging.CONTRASTS", 4)
    sections, each = parse_form("aaba", 16, 2)
    assert (sections, each) == (list("AAAABBAA"), 2)
    key = estimate_key(RIFF, T)
    for seed in range(30):
        asked = wish(Demands(28, 76, classes=key.classes), key=key, strength=0.35)
        verse = arrange(vae, diffusion, RIFF, sections, each, seed, SAMPLES, asked, never_too_close)
        assert "".join(part.letter for part in verse) == "AAAABBAA" and np.array_equal(verse[0].tokens, RIFF)
        assert [part.made for part in verse] == [
            "the idea",
            *(f"variation of riff {n}" for n in (1, 1, 2)),
            "contrast",
            *(f"variation of riff {n}" for n in (5, 3, 4)),
        ]
        for part in verse[1:]:
            assert is_legal(part.tokens, T) and {note % 12 for note in pitches(part.tokens)} <= key.classes
        assert max(leaps(verse)) <= JOIN and pitches(verse[-1].tokens)[-1] % 12 == key.tonic
        assert len({part.tokens.tobytes() for part in verse}) == len(verse)


def test_what_copies_is_not_written_into_a_verse(vae: MusicVAE, diffusion: LatentDiffusion) -> None:
    sections, each = parse_form("AB", 4, 2)
    verse = arrange(vae, diffusion, RIFF, sections, each, 0, SAMPLES, wish(strength=0.35), never_too_close)
    banned = verse[1].tokens

    def too_close(tokens: np.ndarray) -> np.ndarray:
        return (tokens == banned).all(axis=1)

    other = arrange(vae, diffusion, RIFF, sections, each, 0, SAMPLES, wish(strength=0.35), too_close)
    assert not np.array_equal(other[1].tokens, banned)
    with pytest.raises(UserError, match="copied more than --max-copy"):
        arrange(vae, diffusion, RIFF, sections, each, 0, SAMPLES, wish(strength=0.35), lambda tokens: np.ones(len(tokens), dtype=bool))


@pytest.mark.parametrize(
    ("form", "bars"), [("", 16), ("A1", 16), ("AABA", 12), ("AABA", 0), ("AABA", -8), ("A", 4096), ("AÄ", 4), ("A" * 65, 130)]
)
def test_what_is_no_form_is_one_line(form: str, bars: int) -> None:
    with pytest.raises(UserError, match=r"--form|--bars"):
        parse_form(form, bars, 2)


# ---------------------------------------------------------------- picking


def test_a_picked_set_is_good_and_varied() -> None:
    """Guards against taking the best alone, which may be one riff many times, and against variety alone, which takes noise."""
    rng = np.random.default_rng(0)
    good = np.stack([RIFF] * 20)
    good[np.arange(20), 0] = 40 + np.arange(20) % 3
    bad = rng.choice([REST, *range(40, 60)], size=(20, 32))
    tokens = np.concatenate([good, bad])
    quality = np.concatenate([np.linspace(0.8, 1, 20), np.linspace(0, 0.2, 20)])
    taken = pick(quality, tokens, 6, T)
    assert len(set(taken.tolist())) == 6 and taken[0] == 19
    assert 1 <= (taken >= 20).sum() <= 5
    assert sorted(pick(quality, tokens, 40, T).tolist()) == list(range(40)) and len(pick(quality, tokens, 99, T)) == 40


def test_riffs_are_picked_by_what_is_said() -> None:
    rng = np.random.default_rng(0)
    known = np.stack([np.roll(RIFF, 0)] * 6)
    tokens = np.concatenate([RIFF[None], rng.choice([REST, HOLD, *range(30, 80)], size=(5, 32))])
    tokens = np.stack([from_riff.legalized(riff, T) for riff in tokens])
    assert qualities("typicality", tokens, known, np.zeros(6), T).argmax() == 0
    assert qualities("novelty", tokens, known, np.arange(6.0), T).argmax() == 5
    for name in ATTRIBUTES:
        assert np.array_equal(qualities(name, tokens, known, np.zeros(6), T), measure(name, tokens, T))
    assert set(BY) == {"novelty", "typicality", *ATTRIBUTES}


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize("text", ["", "x", "x" * 15, "x..y" * 4, "x" * 33])
def test_what_is_no_onset_mask_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--onsets"):
        parse_onsets(text, T)


@pytest.mark.parametrize(
    ("steer", "text"),
    [
        (SteerConfig(scale="dorian"), "give the tonic too"),
        (SteerConfig(key="own"), "no riff to take it from"),
        (SteerConfig(key="A minor pentatonic", scale="dorian"), "name two scales"),
        (SteerConfig(key="Am", scale="dorian"), "name two scales"),
        (SteerConfig(low="E5", high="E2"), "--low E5 --high E2: the lowest pitch is above the highest"),
        (SteerConfig(low="C8"), "--low C8: model and guitar go from E1 to E5"),
        (SteerConfig(high="C1"), "--high C1: model and guitar go from E1 to E5"),
        (SteerConfig(onsets="." * 16), "asks for silence"),
        (SteerConfig(key="E minor", low="F2", high="F2"), "no pitch of the key"),
        (SteerConfig(start_note="C#3", key="E minor"), "without --start-note, or without --key"),
        (SteerConfig(end_note="E2", low="G2"), "without --end-note, or without the range"),
    ],
)
def test_impossible_requests_are_one_line(steer: SteerConfig, text: str, vae: MusicVAE) -> None:
    with pytest.raises(UserError, match=text) as error:
        wish_of(steer, vae, T, (28, 76), np.stack([RIFF, RIFF]))
    assert "\n" not in str(error.value)


def test_a_riffs_own_key_is_kept_where_the_mode_says_so(vae: MusicVAE) -> None:
    known = np.stack([RIFF, RIFF])
    own = estimate_key(RIFF, T)
    for steer, keep, classes in (
        (SteerConfig(), True, own.classes),
        (SteerConfig(), False, None),
        (SteerConfig(key="own"), False, own.classes),
        (SteerConfig(key="any"), True, None),
        (SteerConfig(key="C major"), True, parse_key("C").classes),
    ):
        assert wish_of(steer, vae, T, (28, 76), known, RIFF, keep).rules.demands.classes == classes


def test_a_language_model_takes_demands_alone() -> None:
    known = np.stack([RIFF, RIFF])
    assert wish_of(SteerConfig(key="E minor"), None, T, (28, 76), known).rules.demands.classes is not None
    for steer, flag in (
        (SteerConfig(density=9.0), "--density"),
        (SteerConfig(attribute="rests=1"), "--attribute"),
        (SteerConfig(candidates=4), "--candidates"),
    ):
        with pytest.raises(UserError, match=f"{flag}: has no effect on a language model"):
            wish_of(steer, None, T, (28, 76), known)
