"""A player's words as a wish: what the options of generate.py ask for, checked against each other and the model."""

from __future__ import annotations

import dataclasses

import numpy as np

from config import ATTRIBUTES, SteerConfig, TokenizerConfig, UserError
from diffusion import LatentDiffusion
from midi_utils import pitch_name
from models import MusicVAE
from steering.attributes import measure
from steering.directions import direction, parse_changes
from steering.drawing import Wish
from steering.keys import Key, estimate_key, parse_key, parse_one_pitch, parse_pitches
from steering.rules import Demands, given_onsets, riff_rules

CANDIDATES = 16  # where something is asked
OWN, ANY = "own", "any"  # keys that are not named


def parse_onsets(text: str, tokenizer: TokenizerConfig) -> np.ndarray:
    """Read `x..x..x.x..x..x.`: x where a note starts, . or - where none does; blanks and | do not count. A bar stands for all bars.

    Returns:
        bool [T]

    Raises:
        UserError: other signs, or neither a bar nor a riff of them.
    """
    signs = [sign for sign in text.lower() if not sign.isspace() and sign != "|"]
    if set(signs) - set("x.-") or len(signs) not in (tokenizer.steps_per_bar, tokenizer.steps):
        raise UserError(
            f"--onsets {text[:70]}: give x and . for the {tokenizer.steps_per_bar} steps of a bar or the {tokenizer.steps} of the riff; "
            f"there are {len(signs)}"
        )
    if "x" not in signs:
        raise UserError("--onsets: asks for silence; give an x where a note starts")
    return np.resize(np.array([sign == "x" for sign in signs]), tokenizer.steps)


def asked_key(steer: SteerConfig, given: np.ndarray | None, tokenizer: TokenizerConfig, keep: bool) -> Key | None:
    """The key that is asked for.

    Args:
        given: int [T], the riff that the call is about, or None.
        keep: the mode keeps that riff's key, unless something else is asked.

    Raises:
        UserError: no such key, or the riff's own without a riff.
    """
    word = steer.key.strip().lower()
    if steer.scale and word in ("", OWN, ANY):
        raise UserError(f"--scale {steer.scale[:40]}: give the tonic too, such as --key E")
    if word == OWN and given is None:
        raise UserError("--key own: there is no riff to take it from; give a key such as 'E minor'")
    if word == ANY or (not word and (given is None or not keep)):
        return None
    return estimate_key(given, tokenizer) if word in ("", OWN) and given is not None else parse_key(steer.key, steer.scale)


def demands_of(steer: SteerConfig, tokenizer: TokenizerConfig, pitch_range: tuple[int, int], key: Key | None) -> Demands:
    """What every riff must obey.

    Args:
        pitch_range: of the model and the guitar, MIDI pitches.

    Raises:
        UserError: something cannot be read, or the range asked for is not the instrument's.
    """
    low = parse_one_pitch("--low", steer.low) if steer.low else pitch_range[0]
    high = parse_one_pitch("--high", steer.high) if steer.high else pitch_range[1]
    names = f"{pitch_name(pitch_range[0])} to {pitch_name(pitch_range[1])}"
    if steer.low and steer.high and low > high:
        raise UserError(f"--low {steer.low} --high {steer.high}: the lowest pitch is above the highest; change them over")
    for flag, text, outside in (("low", steer.low, low > pitch_range[1]), ("high", steer.high, high < pitch_range[0])):
        if outside:
            raise UserError(f"--{flag} {text}: model and guitar go from {names}; give a pitch of those")
    return Demands(
        low=max(low, pitch_range[0]),
        high=min(high, pitch_range[1]),
        classes=key.classes if key else None,
        first=parse_pitches("--start-note", steer.start_note) if steer.start_note else None,
        last=parse_pitches("--end-note", steer.end_note) if steer.end_note else None,
        kinds=given_onsets(parse_onsets(steer.onsets, tokenizer).tolist()) if steer.onsets else None,
    )


def wish_of(
    steer: SteerConfig,
    vae: MusicVAE | None,
    tokenizer: TokenizerConfig,
    pitch_range: tuple[int, int],
    known: np.ndarray,
    given: np.ndarray | None = None,
    keep_key: bool = False,
) -> Wish:
    """The wish of a call, but for what its mode adds.

    Args:
        vae: None for a language model, which takes demands alone.
        known: int [riffs, T], the training riffs.
        given, keep_key: see asked_key.

    Raises:
        UserError: the demands cannot be met together, or never, or the model has no z to steer.
    """
    key = asked_key(steer, given, tokenizer, keep_key)
    rules = riff_rules(tokenizer, demands_of(steer, tokenizer, pitch_range, key))
    changes = parse_changes(steer.attribute)
    if vae is None:
        if steer.asked or changes or steer.candidates:
            flag = [*steer.asked, *(["attribute"] if changes else []), *(["candidates"] if steer.candidates else [])][0]
            raise UserError(f"--{flag}: has no effect on a language model; give the preset of a VAE, such as riff_2bar")
        return Wish(rules)
    if steer.asked.get("density", 0) > tokenizer.steps_per_bar:
        most = tokenizer.steps_per_bar
        raise UserError(f"--density {steer.asked['density']:g}: a bar has {most} steps, each for one note; give 0 to {most}")
    shift = None
    for name, amount in changes.items():
        step = amount * direction(vae, name, known)
        shift = step if shift is None else shift + step
    spread = {name: max(1e-3, float(measure(name, known, tokenizer).std())) for name in ATTRIBUTES}
    return Wish(rules, asked=steer.asked, spread=spread, guidance_scale=steer.guidance_scale, shift=shift, key=key)


def settled(wish: Wish, steer: SteerConfig, more_comes: bool = False) -> Wish:
    """A wish to which its mode has added all it adds, with the number of candidates that it takes.

    Args:
        more_comes: demands are added riff by riff (joins).
    """
    anything = more_comes or bool(wish.asked) or wish.rules.demands.demanding
    return dataclasses.replace(wish, candidates=steer.candidates or (CANDIDATES if anything else 1))


def remarks(steer: SteerConfig, diffusion: LatentDiffusion | None, known: np.ndarray, tokenizer: TokenizerConfig) -> list[str]:
    """What a player should know about what was asked: numbers that the training riffs do not have, a prior that was not told."""
    told = diffusion.config.condition_names if diffusion is not None else ()
    said = []
    for name, value in steer.asked.items():
        values = measure(name, known, tokenizer)
        if not values.min() <= value <= values.max():
            band = f"{values.min():.3g} to {values.max():.3g}"
            said.append(f"--{name} {value:g}: the training riffs have {band}; further out the model has to guess")
        if name not in told:
            said.append(f"--{name}: this prior cannot be told; of the candidates drawn for each seed, one that comes near is taken")
    return said


def plain(wish: Wish) -> dict[str, object]:
    """A wish as plain values, for the record."""
    d = wish.rules.demands
    return {
        "low": d.low,
        "high": d.high,
        "key": wish.key.name if wish.key else None,
        "pitch_classes": sorted(d.classes) if d.classes is not None else None,
        "first": sorted(d.first) if d.first is not None else None,
        "last": sorted(d.last) if d.last is not None else None,
        "asked": dict(wish.asked),
        "guidance_scale": wish.guidance_scale,
        "candidates": wish.candidates,
        "strength": wish.strength if wish.start is not None else None,
    }
