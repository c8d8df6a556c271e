"""What the riff modes of generate.py do: the riff that is given, the wish of a mode, verses, ways, files.

New riffs themselves are in generate.py; here is more of a riff, and what both share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import BASE_NAME, training_riffs
from config import HOLD, REST, DataConfig, SteerConfig, TokenizerConfig, UserError
from dataset import plural, read_file_riffs
from files import require_file, sha256
from measures.novelty import Nearest, TrainingRiffs
from midi_utils import MidiError, Riff, pitch_name, program_name
from models import MusicVAE
from output.outputs import report_redrawn
from output.riff_models import RiffModel
from output.riff_output import Output, as_riffs, kinds_written, print_table, say_guitar, write_outputs
from presets import Answer, Arrange, Continue, FromRiff, Generate, Infill, Interpolate, Reconstruct, Vary
from sampling import MAX_ATTEMPTS, draw_original
from steering import from_riff
from steering.arranging import Part, arrange, leaps, parse_form
from steering.attributes import UNITS, measure
from steering.drawing import Wish, transposed_to_key
from steering.keys import Key, estimate_key
from steering.requests import ANY, OWN, plain, remarks, settled, wish_of
from steering.rules import Demands

# ---------------------------------------------------------------- what all modes share


def record_of(options: Generate, model: RiffModel, wish: Wish, given: Sequence[Given] = ()) -> dict[str, Any]:
    """How the files of a call are made, for their JSON."""
    data = model.content["data"]
    return {
        "mode": options.MODE,
        "options": options_given(options),
        "settings": {**dataclasses.asdict(options.sample), "max_copy": options.max_copy},
        "steering": plain(wish),
        "given": [one.facts() for one in given],
        "bpm": options.bpm or round(given[0].riff.bpm if given else data["bpm"], 3),
        "program": options.program if options.program >= 0 else given[0].riff.program if given else data["program"],
        "pitch_range": model.pitch_range,
        "tuning": model.board.notes,
        "capo": model.board.capo,
        "tokenizer": dataclasses.asdict(model.tokenizer),
        **model.hashes,
    }


def options_given(options: Generate) -> dict[str, Any]:
    """The mode's own options, and those of steering that are not left as they are."""
    shared = {field.name for field in dataclasses.fields(Generate)} | {"files"}
    own = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if field.name not in shared}
    steer = {field.name: getattr(options.steer, field.name) for field in dataclasses.fields(options.steer)}
    return own | {name: value for name, value in steer.items() if value != getattr(SteerConfig, name)}


def known_names(nearest: Nearest, known: TrainingRiffs) -> list[str]:
    """The nearest riffs' names, for the table."""
    return ["(the base model's)" if known.names[i].startswith(BASE_NAME) else known.names[i] for i in nearest.index]


def say_asked_and_got(options: Generate, tokens: np.ndarray, tokenizer: TokenizerConfig) -> None:
    """What riffs have of the attributes that were asked for. tokens: int [riffs, T]"""
    for name, value in options.steer.asked.items():
        got = measure(name, tokens, tokenizer)
        print(f"--{name} {value:g}, {UNITS[name]}: got {got.mean():.3g} ({got.min():.3g} to {got.max():.3g})")


def say_remarks(options: Generate, model: RiffModel) -> None:
    for remark in remarks(options.steer, model.diffusion, model.known_tokens, model.tokenizer):
        print(remark)


def say_long(long: Output, made_with: dict[str, Any], tokenizer: TokenizerConfig) -> None:
    bars = len(long.tokens) * tokenizer.bars
    what = f"a verse, {long.facts['form']}," if "form" in long.facts else f"{plural(len(long.tokens), 'riff')} in a row,"
    print(f"{long.path}: {what} {bars} bars at {made_with['bpm']:g} bpm, {program_name(made_with['program'])}")


# ---------------------------------------------------------------- a verse


def write_verse(
    options: Generate,
    model: RiffModel,
    idea: np.ndarray,
    form: tuple[list[str], int],
    seed: int,
    known: TrainingRiffs,
    strength: float,
) -> list[Part]:
    """The riffs of a verse made of one idea; first and last notes are not demanded of every riff of it."""
    assert model.vae is not None
    steer = dataclasses.replace(options.steer, start_note="", end_note="")
    loose = wish_of(steer, model.vae, model.tokenizer, model.pitch_range, model.known_tokens, idea, keep_key=True)
    loose = settled(dataclasses.replace(loose, strength=strength), steer, more_comes=True)

    def too_close(tokens: np.ndarray) -> np.ndarray:
        return known.nearest(tokens).too_close(options.max_copy)

    return arrange(model.vae, model.diffusion, idea, *form, seed, options.sample, loose, too_close)


def verse_output(path: Path, seed: int, verse: list[Part], form: str, model: RiffModel, key: Key | None) -> Output:
    """A verse as a file."""
    facts = {
        "form": form.strip().upper(),
        "key": key.name if key else estimate_key(verse[0].tokens, model.tokenizer).name,
        "joins": leaps(verse),
        "parts": [{"section": part.letter, "made": part.made, "tokens": part.tokens.tolist()} for part in verse],
    }
    markers = tuple(f"{part.letter}: {part.made}" for part in verse)
    return Output(path, seed, tuple(part.tokens for part in verse), markers, facts)


# ---------------------------------------------------------------- more of a riff


@dataclass(frozen=True)
class Given:
    """A riff that a call starts from."""

    path: Path
    riff: Riff

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {
            "file": self.path.name,
            "sha256": sha256(self.path.read_bytes()),
            "bar": self.riff.first_bar,
            "tokens": self.riff.tokens.tolist(),
        }


def read_given(file: str, from_bar: int, tokenizer: TokenizerConfig) -> Given:
    """The riff of a file.

    Raises:
        UserError: it holds no riff that can be used, or none at that bar.
    """
    require_file(file)
    try:
        riffs, said = read_file_riffs(file, DataConfig(max_bars=0), tokenizer)
    except MidiError as error:
        raise UserError(f"{file}: {error}; `python check_midi.py {file}` tells more") from None
    bars = [riff.first_bar for riff in riffs]
    if from_bar and from_bar not in bars:
        raise UserError(f"--from-bar {from_bar}: {file} has riffs at bar {', '.join(map(str, bars[:12]))}; give one of them")
    riff = riffs[bars.index(from_bar) if from_bar else 0]
    if len(riffs) > 1 and not from_bar:
        print(f"{file}: holds {plural(len(riffs), 'riff')}; the one from bar {riff.first_bar} is taken (--from-bar takes another)")
    for remark in (*said, riff.note):
        if remark:
            print(f"{file}: {remark}")
    return Given(Path(file), riff)


def moved(tokens: np.ndarray, key: Key | None, model: RiffModel) -> np.ndarray:
    """A given riff in the key that is asked for; says what it did. tokens: int [T] -> int [T]"""
    if key is None:
        return tokens
    found = transposed_to_key(tokens, key, model.tokenizer, *model.pitch_range)
    shift = next(iter(set((found - tokens).tolist()) - {0}), 0)
    way = f"by {plural(abs(shift), 'semitone')} {'up' if shift > 0 else 'down'}" if shift else "nowhere, it lies well there"
    print(f"the riff, in {estimate_key(tokens, model.tokenizer).name}, is moved to {key.name}: {way}")
    return found


def wish_of_mode(options: FromRiff, vae: MusicVAE, tokens: np.ndarray, wish: Wish) -> Wish:
    """What a mode adds to a wish. tokens: int [T], the riff it starts from"""
    if isinstance(options, Vary):
        return from_riff.vary(vae, tokens, wish, options.strength, options.keep_rhythm, options.keep_pitches)
    if isinstance(options, Reconstruct):
        return from_riff.vary(vae, tokens, wish, 0.0)
    if isinstance(options, Infill):
        keep = kept_steps(options, vae.tokenizer)
        say_exempt(tokens[keep], wish.rules.demands)
        return from_riff.infill(vae, tokens, keep, wish, options.strength)
    if isinstance(options, Answer):
        say_exempt(tokens[: len(tokens) // 2], wish.rules.demands)
        return from_riff.answer(vae, tokens, wish, options.strength)
    assert isinstance(options, Continue)
    return dataclasses.replace(wish, strength=options.strength)


def kept_steps(options: Infill, tokenizer: TokenizerConfig) -> np.ndarray:
    """What stays of a riff. bool [T]

    Raises:
        UserError: nothing is said, or nothing is left to write.
    """
    if not options.keep and not options.keep_bars:
        raise UserError("infill: say what stays: --keep 1-8,17-32 (steps) or --keep-bars 1")
    keep = np.zeros(tokenizer.steps, dtype=bool)
    if options.keep:
        keep |= from_riff.parse_steps(options.keep, tokenizer)
    if options.keep_bars:
        keep |= from_riff.parse_steps(options.keep_bars, tokenizer, "--keep-bars", tokenizer.steps_per_bar)
    if keep.all():
        raise UserError(f"infill: all {tokenizer.steps} steps stay; nothing is left to write")
    return keep


def say_exempt(kept: np.ndarray, demands: Demands) -> None:
    """Say that kept notes stay though new ones could not be written. kept: int [kept steps], tokens"""
    outside = sorted({int(token) for token in kept if token not in (REST, HOLD) and not demands.pitches[token]})
    if outside:
        print(f"kept as they are, though outside what is asked of new notes: {', '.join(map(pitch_name, outside))}")


# Modes that keep the given riff's key unless another is asked for.
KEYS_KEPT = (Infill, Continue, Answer, Arrange)
MOVED = (Vary, Reconstruct, Arrange)  # those that move it to that one; the others go on from it as it is


def write_from_riff(options: FromRiff, seeds: list[int], model: RiffModel) -> int:
    """More of a riff: one file for each seed, and all in a row behind the riff itself. -> exit status"""
    if model.vae is None:
        raise UserError(f"{options.MODE}: needs a VAE, which a language model is not; give its preset, such as --preset riff_2bar")
    files = options.required_files()
    tokenizer = model.tokenizer
    given = [read_given(file, options.from_bar, tokenizer) for file in files]
    first = given[0].riff.tokens if given else None
    steer, keep = options.steer, isinstance(options, KEYS_KEPT)
    wish = wish_of(steer, model.vae, tokenizer, model.pitch_range, model.known_tokens, first, keep)
    key = wish.key
    if first is not None and isinstance(options, MOVED) and steer.key.strip().lower() not in ("", OWN, ANY):
        first = moved(first, key, model)
        wish = dataclasses.replace(wish, key=None) if isinstance(options, Vary | Reconstruct) else wish
    if first is not None and not isinstance(options, Interpolate | Arrange):
        wish = wish_of_mode(options, model.vae, first, wish)
    wish = settled(wish, steer, more_comes=isinstance(options, Continue))
    made_with = record_of(options, model, wish, given)
    made_with["steering"]["key"] = key.name if key else None
    folder = Path(options.output_dir or Path(options.run.run_dir) / options.MODE)
    stem = "_to_".join(one.path.stem[:80] for one in given) or "new"

    def path_of(name: str) -> Path:
        return folder / f"{stem}_{name}_{made_with['bpm']:.0f}bpm.mid"

    long_path = folder / f"{stem}_{options.MODE}_long.mid"
    known = training_riffs(model.content, tokenizer)
    say_remarks(options, model)
    refused: list[int] = []
    attempts = np.zeros(len(seeds), dtype=np.int64)
    if isinstance(options, Interpolate):
        outputs = interpolated(options, seeds, model, given, wish, path_of)
    elif isinstance(options, Arrange):
        outputs = verses(options, seeds, model, first, wish, known, path_of)
    else:
        assert first is not None
        tokens, attempts, seeds, refused = more_of(options, seeds, model, first, wish, known)
        outputs = [
            Output(path_of(f"{options.MODE}_seed{seed:06d}"), seed, (riff,), (f"{options.MODE}, seed {seed}",), {"attempt": int(attempt)})
            for seed, riff, attempt in zip(seeds, tokens, attempts, strict=True)
        ]
    long = all_in_a_row(options, long_path, outputs, given)
    write_outputs(options, model, outputs, long, made_with)

    # ---- what was made
    new = np.concatenate([np.stack(output.tokens) for output in outputs])
    names = [text for output in outputs for text in labels_of(options, output)]
    nearest = known.nearest(new)
    changed = None if first is None else TrainingRiffs(first[None], ["given"], tokenizer).nearest(new).distance
    print_table(new, names, nearest, known_names(nearest, known), tokenizer, changed)
    say_asked_and_got(options, new, tokenizer)
    say_long(long, made_with, tokenizer)
    print(f"{folder}: {plural(len(outputs), 'file')}, how they were made (.json), with {kinds_written(options, tokenizer)}")
    say_guitar(options, model, [riff for output in outputs for riff in as_riffs(output, made_with["bpm"], made_with["program"])])
    return report_redrawn("riff", attempts, refused, options.max_copy, MAX_ATTEMPTS)


def labels_of(options: FromRiff, output: Output) -> list[str]:
    """The first column of the table, for each riff of a file."""
    if isinstance(options, Interpolate):
        return [output.markers[0].split()[-1]]
    if len(output.tokens) == 1:
        return [str(output.seed)]
    seed = f"{output.seed} " * (options.num_outputs > 1 or bool(options.seeds))
    return [f"{seed}{part.split(':')[0]}{i + 1}" for i, part in enumerate(output.markers)]


def more_of(
    options: FromRiff, seeds: list[int], model: RiffModel, tokens: np.ndarray, wish: Wish, known: TrainingRiffs
) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """One riff for each seed. -> tokens, attempts, seeds; and the seeds without one"""
    assert model.vae is not None
    vae = model.vae

    def go_on(some: Sequence[int], attempt: int) -> np.ndarray:
        return from_riff.continuations(vae, model.diffusion, tokens, some, options.sample, wish, attempt)

    def new_rhythms(some: Sequence[int], attempt: int) -> np.ndarray:
        return from_riff.draw_rhythms(vae, model.diffusion, some, options.sample, wish, attempt)

    draw = go_on if isinstance(options, Continue) else model.drawing(options.sample, wish)
    draw = new_rhythms if wish.rules.demands.order is not None else draw
    found, attempts, _, seeds, refused = draw_original(draw, seeds, known.nearest, options.max_copy)
    return found, attempts, seeds, refused


def interpolated(
    options: Interpolate, seeds: list[int], model: RiffModel, given: Sequence[Given], wish: Wish, path_of: Callable[[str], Path]
) -> list[Output]:
    """The riffs on the way from one to another, a file each, a way for each seed."""
    assert model.vae is not None
    direct = options.through == "direct" or model.diffusion is None
    outputs = []
    for seed in seeds:
        riffs = from_riff.interpolate(
            model.vae,
            model.diffusion,
            (given[0].riff.tokens, given[1].riff.tokens),
            options.steps,
            0.0 if direct else options.strength,
            seed,
            options.sample,
            wish.rules,
        )
        for i, tokens in enumerate(riffs):
            name, text = f"interpolate_seed{seed:06d}_step{i + 1:03d}", f"seed {seed}, step {i + 1}"
            share = round(i / (options.steps - 1), 4)
            outputs.append(Output(path_of(name), seed, (tokens,), (text,), {"step": i + 1, "share": share, "through": options.through}))
    return outputs


def verses(
    options: Arrange, seeds: list[int], model: RiffModel, idea: np.ndarray | None, wish: Wish, known: TrainingRiffs, path_of: Callable
) -> list[Output]:
    """A verse for each seed, of the riff that was given or of a new one."""
    sections = parse_form(options.form, options.bars, model.tokenizer.bars)
    outputs = []
    for seed in seeds:
        begin = (
            idea if idea is not None else draw_original(model.drawing(options.sample, wish), [seed], known.nearest, options.max_copy)[0][0]
        )
        verse = write_verse(options, model, begin, sections, seed, known, options.strength)
        outputs.append(verse_output(path_of(f"arrange_seed{seed:06d}"), seed, verse, options.form, model, wish.key))
    return outputs


def all_in_a_row(options: FromRiff, path: Path, outputs: Sequence[Output], given: Sequence[Given]) -> Output:
    """All files of a call in one, behind the riff that was given; before each, where it is what comes next."""
    before = given[0].riff.tokens if given else None
    tokens: list[np.ndarray] = []
    markers: list[str] = []
    each = isinstance(options, Continue | Answer)
    for i, output in enumerate(outputs):
        if before is not None and (each or (i == 0 and not isinstance(options, Interpolate | Arrange))):
            tokens.append(before)
            markers.append(f"given: {given[0].path.stem}")
        tokens += output.tokens
        markers += output.markers
    return Output(path, outputs[0].seed, tuple(tokens), tuple(markers), {"riffs": [{"seed": o.seed, "file": o.path.name} for o in outputs]})
