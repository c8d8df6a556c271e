"""Write new riffs, more of a riff, or whole pieces, with a trained run.

    python generate.py [--num-outputs 16] [--seeds 0-15] [--key "E minor"] [--density 10] [--form AABA] ...
    python generate.py vary|infill|continue|answer|reconstruct|arrange RIFF.mid [--strength 0.3] [--keep-bars 1] ...
    python generate.py interpolate A.mid B.mid [--steps 8] ...
    python generate.py --preset events_lstm [--length 4000] [--top-k 50] [--prime FILE.mid --prime-tokens 64] ...

New riffs: generated_riff_long.mid (a verse made of the first one; --form free: all in a row) in the run folder, and one file per riff
in riffs/ beside it, named by seed and tempo. The other modes write to a folder of their own, and all in a row to <mode>_long.mid.
Beside each MIDI file lies a JSON file that says how it was made, and how much of it the nearest training riff has too; what copies
more than --max-copy is drawn again. The same seed gives the same bytes, whatever else is made with it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from presets import answer_early, parse_generate

if __name__ == "__main__":
    answer_early(parse_generate)

from checkpoints import training_riffs
from config import ATTRIBUTES, LONG_FILE, GuitarConfig, SoundConfig, SteerConfig, UserError, run_script
from dataset import plural
from files import require_room
from output.outputs import mention_others, refuse_to_overwrite, report_redrawn
from output.piece_output import write_pieces
from output.riff_models import RiffModel, load_riff_model
from output.riff_modes import (
    known_names,
    record_of,
    say_asked_and_got,
    say_long,
    say_remarks,
    verse_output,
    write_from_riff,
    write_verse,
)
from output.riff_output import Output, as_riffs, kinds_written, print_table, say_guitar, write_outputs
from output.window_modes import write_windows
from presets import (
    Answer,
    Arrange,
    FromRiff,
    Generate,
    Interpolate,
    Sample,
    TrainVAE,
    format_options,
    is_language_model,
    is_of_windows,
    parse_seeds,
    preset_options,
    writes_events,
)
from sampling import MAX_ATTEMPTS, draw_original
from steering.arranging import FREE_FORM, parse_form
from steering.picking import pick, qualities
from steering.requests import settled, wish_of
from training import choose_device, choose_precision, choose_threads

PARTS_FOLDER = "riffs"


# ---------------------------------------------------------------- new riffs


def write_samples(options: Sample, seeds: list[int], model: RiffModel) -> int:
    """New riffs: one file each, and a verse made of the first, or all in a row. -> exit status"""
    tokenizer, content = model.tokenizer, model.content
    wish = settled(wish_of(options.steer, model.vae, tokenizer, model.pitch_range, model.known_tokens), options.steer)
    form = FREE_FORM if model.vae is None else options.form
    sections = None if form.strip().lower() == FREE_FORM else parse_form(form, options.bars, tokenizer.bars)
    made_with = record_of(options, model, wish)
    bpm, program = made_with["bpm"], made_with["program"]
    output_dir = Path(options.output_dir or options.run.run_dir)

    def path_of(seed: int) -> Path:
        return output_dir / PARTS_FOLDER / f"riff_seed{seed:06d}_{bpm:.0f}bpm.mid"

    for path in [output_dir / LONG_FILE, *map(path_of, seeds)]:
        refuse_to_overwrite(path)

    # ---- music
    say_remarks(options, model)
    known = training_riffs(content, tokenizer)
    tokens, attempts, nearest, seeds, refused = draw_original(model.drawing(options.sample, wish), seeds, known.nearest, options.max_copy)
    redrawn = attempts
    if options.pick:
        quality = qualities(options.by, tokens, model.known_tokens, nearest.distance, tokenizer)
        best = pick(quality, tokens, options.pick, tokenizer)
        print(f"picked {len(best)} of {plural(len(seeds), 'riff')} by {options.by}, each different from those before it")
        made_with["picked"] = {"of": len(seeds), "by": options.by}
        tokens, attempts, nearest, seeds = tokens[best], attempts[best], nearest.take(best), [seeds[i] for i in best]
    outputs = [
        Output(path_of(seed), seed, (riff,), (f"seed {seed}",), {"attempt": int(attempt)})
        for seed, riff, attempt in zip(seeds, tokens, attempts, strict=True)
    ]
    parts = [{"seed": output.seed, "file": output.path.relative_to(output_dir).as_posix()} for output in outputs]
    if sections is None:
        long = Output(output_dir / LONG_FILE, seeds[0], tuple(tokens), tuple(f"seed {seed}" for seed in seeds), {"riffs": parts})
    else:
        verse = write_verse(options, model, tokens[0], sections, seeds[0], known, Arrange.strength)
        long = verse_output(output_dir / LONG_FILE, seeds[0], verse, form, model, wish.key)
        long.facts["riffs"] = parts
    write_outputs(options, model, outputs, long, made_with)

    # ---- what was made
    print_table(tokens, [str(seed) for seed in seeds], nearest, known_names(nearest, known), tokenizer)
    say_asked_and_got(options, tokens, tokenizer)
    say_long(long, made_with, tokenizer)
    if sections is not None and (options.steer.start_note or options.steer.end_note):
        print("       (in it, --start-note and --end-note hold for its first riff alone)")
    print(
        f"{output_dir / PARTS_FOLDER}: one file for each riff, how it was made and what it is closest to (.json); "
        f"with {kinds_written(options, tokenizer)}"
    )
    say_guitar(options, model, [riff for output in outputs for riff in as_riffs(output, bpm, program)])
    mention_others(output_dir / PARTS_FOLDER, "riff", [output.path for output in outputs])
    return report_redrawn("riff", redrawn, refused, options.max_copy, MAX_ATTEMPTS)


# ---------------------------------------------------------------- main

# Options that mean nothing to a kind of model, as section.name; "" is the script itself.
RIFFS_ALONE = (
    ".bpm",
    ".form",
    ".bars",
    ".pick",
    ".by",
    *(f"guitar.{f.name}" for f in dataclasses.fields(GuitarConfig)),
    *(f"sound.{f.name}" for f in dataclasses.fields(SoundConfig)),
    *(f"steer.{f.name}" for f in dataclasses.fields(SteerConfig)),
)
DIFFUSION_ALONE = ("sample.prior", "sample.sampling_steps", "sample.eta", "steer.guidance_scale")
WINDOWS_ALONE = (".track", ".kit")
_TOKENS_ALONE = ("sample.rest_penalty", "sample.top_k", "sample.top_p")
IDLE_BY_REPRESENTATION = {
    "mono": (".kit",), "drums": (".program", ".track"), "groove": (".program", ".track", *_TOKENS_ALONE), "trio": (),
}  # fmt: skip
PIECES_ALONE = (".prime", ".prime_tokens", ".length", "sample.grammar")
ASKED = tuple(f"steer.{name}" for name in (*ATTRIBUTES, "guidance_scale", "candidates"))
DRAWN = ("sample.temperature", "sample.top_k", "sample.top_p", ".max_copy")


def refuse_without_effect(options: Generate, seeds: Sequence[int]) -> None:
    """
    Raises:
        UserError: an option was given that would change nothing, or a temperature that makes all pieces the same.
    """
    base = preset_options(type(options), options.preset)
    pieces, lm = writes_events(options.preset), is_language_model(options.preset)
    kind = ("a language model of " if lm else "a model of ") + ("whole pieces (events)" if pieces else "riffs")
    without_verse = () if getattr(options, "form", "") == FREE_FORM else (".form", ".bars")  # a language model makes no verses
    idle = (*PIECES_ALONE, *((*DIFFUSION_ALONE, *without_verse) if lm else ()))
    idle = (*RIFFS_ALONE, "sample.rest_penalty", *DIFFUSION_ALONE) if pieces else idle
    if is_of_windows(options.preset):
        representation = preset_options(TrainVAE, options.preset).tokenizer.representation
        kind, idle = "a model of windows", (*PIECES_ALONE, *RIFFS_ALONE[1:], *IDLE_BY_REPRESENTATION[representation])
    else:
        idle = (*idle, *WINDOWS_ALONE)
    if options.seeds and options.num_outputs not in (base.num_outputs, len(seeds)):
        raise UserError(f"--num-outputs {options.num_outputs}: has no effect beside --seeds {options.seeds}; leave one of them out")
    kept = [f"--{name.replace('_', '-')}" for name in ("keep_rhythm", "keep_pitches") if getattr(options, name, False)]
    if len(kept) > 1:
        raise UserError("--keep-rhythm --keep-pitches: together they leave nothing to write; give one of them")
    mode = " ".join([options.MODE, *kept]) if not isinstance(options, Sample) else "new riffs without --pick"
    alone = (".prime_tokens",) if isinstance(options, Sample) and not options.prime else ()
    for keys, what in ((idle, f"{options.preset}, {kind}"), (idle_in(options), mode), (alone, "new pieces without --prime")):
        for key in keys:
            section, name = key.split(".")
            ours, theirs = ((getattr(part, section) if section else part) for part in (options, base))
            if getattr(ours, name, None) != getattr(theirs, name, None):
                raise UserError(f"--{name.replace('_', '-')}: has no effect on {what}; leave it out")
    same = (options.MODE == "reconstruct" and not plays_anew(options)) or getattr(options, "through", "") == "direct"
    if len(seeds) > 1 and same:
        raise UserError(f"{options.MODE}: makes the same for every seed; leave out --num-outputs and --seeds, or give one")
    if lm and options.sample.temperature == 0 and len(seeds) > 1:
        raise UserError("--temperature 0: makes the same for every seed; give --num-outputs 1, or a temperature above 0")


def plays_anew(options: Generate) -> bool:
    """Whether a model plays a score or taps otherwise for every seed: what it draws is how, or what, is struck."""
    if not is_of_windows(options.preset):
        return False
    trained = preset_options(TrainVAE, options.preset)
    return trained.tokenizer.given == "taps" or (trained.tokenizer.given == "hits" and trained.model.groove_spread)


def idle_in(options: Generate) -> tuple[str, ...]:
    """Options that mean nothing to a mode, as section.name."""
    by_windows = ("sample.rest_penalty", "sample.eta") if is_of_windows(options.preset) else ()  # they decode without rules
    if options.MODE == "reconstruct":
        drawn = tuple(name for name in DRAWN if name != "sample.temperature") if plays_anew(options) else DRAWN
        return (*ASKED, *drawn, *by_windows, *(DIFFUSION_ALONE if by_windows else ()))
    if isinstance(options, Interpolate):
        direct = (".strength",) if options.through == "direct" else ()
        return (*ASKED, *DRAWN, *direct, *by_windows, "steer.attribute", "sample.eta")
    if isinstance(options, Arrange) and options.files:
        return ("steer.start_note", "steer.end_note", "steer.onsets")
    if isinstance(options, Answer):
        return ("steer.onsets",)
    if isinstance(options, Sample):
        return () if options.pick else (".by",)
    if getattr(options, "keep_rhythm", False):
        return ("steer.onsets", "steer.density", "steer.rests", "steer.syncopation")
    return ("steer.density",) if getattr(options, "keep_pitches", False) else ()


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_generate(sys.argv[1:] if argv is None else argv)
    if options.run.dry_run:
        print(format_options(options))
        return 0
    first = options.run.seed
    seeds = parse_seeds(options.seeds) if options.seeds else list(range(first, first + options.num_outputs))
    refuse_without_effect(options, seeds)
    if options.output_dir:
        require_room(Path(options.output_dir))
    device = choose_device(options.run.device)
    choose_threads(options.run.threads)
    if options.sample.precision == "bfloat16" and choose_precision("auto", device).itemsize > 2:
        print("--precision bfloat16: this machine has no arithmetic for it; float32 would be quicker")
    if writes_events(options.preset):
        if not isinstance(options, Sample):
            raise UserError(f"{options.MODE}: needs a VAE of riffs; {options.preset} is a language model of whole pieces")
        return write_pieces(options, seeds, device)
    if is_of_windows(options.preset):
        return write_windows(options, seeds, device)
    model = load_riff_model(options, device)
    if isinstance(options, Sample):
        if options.pick > len(seeds):
            raise UserError(f"--pick {options.pick}: there are {plural(len(seeds), 'seed')}; give that many or fewer")
        return write_samples(options, seeds, model)
    assert isinstance(options, FromRiff)
    return write_from_riff(options, seeds, model)


if __name__ == "__main__":
    run_script(main)
