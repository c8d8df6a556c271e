"""The options of each script, the presets, and the command line. Imports no torch.

Precedence: default < preset < flag. Run `python presets.py` to see the presets.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from config import (
    ATTRIBUTES,
    MAX_OUTPUTS,
    DataConfig,
    DiffusionConfig,
    DiffusionTrainConfig,
    EventConfig,
    GuitarConfig,
    LMConfig,
    LMTrainConfig,
    PickBy,
    RunConfig,
    SampleConfig,
    SongConfig,
    SoundConfig,
    SteerConfig,
    TokenizerConfig,
    TrainRunConfig,
    UserError,
    VAEConfig,
    VAETrainConfig,
    require,
    require_finite,
    run_script,
)
from family.presets import FAMILY

Script = TypeVar("Script")

# ---------------------------------------------------------------- one dataclass per script; SECTIONS: where a preset's sections live


# What is said of lines alone when songs are read, as section.name.
LINES_ALONE = (
    *(f"songs.{name}" for name in ("programs", "bass_programs", "track")),
    *(f"dataset.{name}" for name in ("low", "high", "grid_tolerance", "max_off_grid", "transpose", "transpose_low", "transpose_high")),
)


@dataclass(frozen=True)
class TrainVAE:
    """Train the riff VAE on a folder of two-bar riffs. Run the same command again to resume."""

    SECTIONS: ClassVar[dict[str, str]] = {
        "dataset": "dataset",
        "tokenizer": "tokenizer",
        "songs": "songs",
        "model": "model",
        "train_vae": "train",
        "train_run": "run",
    }

    preset: str = "riff_2bar"  # starting point for all other options; `python presets.py` lists them
    run: TrainRunConfig = field(default_factory=TrainRunConfig)
    dataset: DataConfig = field(default_factory=DataConfig)
    songs: SongConfig = field(default_factory=SongConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: VAEConfig = field(default_factory=VAEConfig)
    train: VAETrainConfig = field(default_factory=VAETrainConfig)

    def refuse_without_effect(self, base: TrainVAE) -> None:
        """
        Args:
            base: the options of the preset alone.

        Raises:
            UserError: options that do not go together, or that change nothing where they were given.
        """
        self.model.require_fit(self.tokenizer)
        songs, kind = self.songs.songs, self.tokenizer.representation
        take = "train on whole songs" if base.songs.songs else "train on riffs"
        require(songs == base.songs.songs, f"--{'' if songs else 'no-'}songs: {self.preset} is there to {take}; choose another --preset")
        require(songs or kind == "mono", f"--representation {kind}: is read from whole songs; choose a preset of that kind")
        drums, hier = kind in ("drums", "groove"), self.model.levels is not None
        idle = {
            "riffs": () if songs else tuple(f"songs.{f.name}" for f in dataclasses.fields(SongConfig)),
            "whole songs": ("dataset.mix", "dataset.rotate", "dataset.max_bars", "dataset.min_notes") if songs else (),
            "drums": (*LINES_ALONE, "tokenizer.policy", "tokenizer.hold_token") if drums else (),
            "trios": ("tokenizer.policy",) if kind == "trio" else (),
            "groove vectors": ("model.embed_size",) if kind == "groove" else (),
            "a decoder that is always shown the truth": () if self.train.scheduled_sampling else ("train.sampling_rate",),
            "lines": ("songs.kit", "songs.bass_programs") if kind == "mono" else (),
            "what is not played": () if kind == "groove" else ("model.groove_spread",),
            "a flat decoder": () if hier else ("model.segment_feedback", "model.conductor_size"),
        }
        for what, keys in idle.items():
            for key in keys:
                section, name = key.split(".")
                same = getattr(getattr(self, section), name) == getattr(getattr(base, section), name)
                require(same, f"--{name.replace('_', '-')}: has no effect on {what}; leave it out")


@dataclass(frozen=True)
class TrainDiffusion:
    """Train the latent diffusion model on the latents of the run's VAE. Run the same command again to resume."""

    SECTIONS: ClassVar[dict[str, str]] = {"diffusion": "model", "train_diffusion": "train"}

    preset: str = "riff_2bar"  # starting point for all other options; `python presets.py` lists them
    data: str = ""  # folder of riffs; default: the one the VAE was trained on
    run: TrainRunConfig = field(default_factory=TrainRunConfig)
    model: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: DiffusionTrainConfig = field(default_factory=DiffusionTrainConfig)


@dataclass(frozen=True)
class TrainLM:
    """Train a language model on a folder of pieces, or of riffs. Run the same command again to resume."""

    SECTIONS: ClassVar[dict[str, str]] = {
        "dataset": "dataset",
        "tokenizer": "tokenizer",
        "events": "events",
        "lm": "model",
        "train_lm": "train",
    }

    preset: str = "events_lstm"  # starting point for all other options; `python presets.py` lists them
    run: TrainRunConfig = field(default_factory=TrainRunConfig)
    dataset: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    events: EventConfig = field(default_factory=EventConfig)
    model: LMConfig = field(default_factory=LMConfig)
    train: LMTrainConfig = field(default_factory=LMTrainConfig)

    def __post_init__(self) -> None:
        lag, length = self.model.copy_lag, self.train.seq_len
        require(
            not self.model.copy_size or lag < length, f"--seq-len {length}: nothing is copied within --copy-lag {lag} tokens; give more"
        )


@dataclass(frozen=True)
class Generate:
    """Write new riffs: one MIDI file each, and one long file, a verse made of the first of them."""

    SECTIONS: ClassVar[dict[str, str]] = {"sample": "sample"}
    MODE: ClassVar[str] = "sample"

    preset: str = "riff_2bar"  # which run to use, if --run-dir is not given
    num_outputs: Annotated[int, tyro.conf.arg(aliases=["-n", "--n"])] = 16  # how many riffs, with the seeds --seed, --seed + 1, ...
    seeds: str = ""  # the seeds themselves instead, such as 0-15 or 3,8,20-24; seed 7 is the same riff in any batch
    output_dir: str = ""  # where to write; default: the run folder, and a folder of its own in it for all but new riffs
    max_copy: float = 0.99  # largest share of a riff that one training riff may have too, else it is drawn again; 1 allows copies
    bpm: float = 0.0  # tempo; 0 takes the given riff's, or the median tempo of the training riffs
    program: int = -1  # MIDI program, 0 to 127 (27 clean, 29 overdriven, 30 distortion guitar); -1: the riffs' own
    guitar: GuitarConfig = field(default_factory=GuitarConfig)
    sound: SoundConfig = field(default_factory=SoundConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    steer: SteerConfig = field(default_factory=SteerConfig)

    def __post_init__(self) -> None:
        require_finite(self)
        require(1 <= self.num_outputs <= MAX_OUTPUTS, f"--num-outputs {self.num_outputs}: give 1 to {MAX_OUTPUTS}")
        require(0 <= self.max_copy <= 1, f"--max-copy {self.max_copy}: give a share from 0 to 1 (1 allows copies)")
        require(self.bpm == 0 or 10 <= self.bpm <= 400, f"--bpm {self.bpm}: give 10 to 400, or 0 for the riffs' own tempo")
        require(-1 <= self.program <= 127, f"--program {self.program}: give 0 to 127, or -1 for the riffs' own")
        strength = getattr(self, "strength", 0.0)
        require(0 <= strength <= 1, f"--strength {strength}: give 0 (the riff itself) to 1 (a fresh one)")


@dataclass(frozen=True)
class Sample(Generate):
    """Write new riffs: one MIDI file each, and one long file, a verse made of the first of them.

    Other modes: generate.py vary|infill|continue|answer|reconstruct|interpolate|arrange, each with its own --help.
    """

    form: str = "AABA"  # of the long file: sections of a verse made of the first riff; free: all riffs in a row
    bars: int = 16  # length of that verse
    pick: int = 0  # keep so many of the riffs, a varied best set; 0 keeps all
    by: PickBy = "novelty"  # what they are picked by: novelty, typicality or much of an attribute
    length: int = 4000  # longest piece of an event model, in tokens
    prime: str = ""  # MIDI file whose beginning an event model goes on from
    prime_tokens: int = 64  # how many of its tokens are given

    def __post_init__(self) -> None:
        super().__post_init__()
        enough = bool(self.seeds) or self.pick <= self.num_outputs
        require(self.pick >= 0 and enough, f"--pick {self.pick}: give 0 (all) to --num-outputs, {self.num_outputs}")
        require(2 <= self.length <= 200_000, f"--length {self.length}: give 2 to 200000 tokens, of which the first is none of the music")
        require(1 <= self.prime_tokens <= 200_000, f"--prime-tokens {self.prime_tokens}: give 1 to 200000")


@dataclass(frozen=True)
class FromRiff(Generate):
    """What starts from a riff."""

    files: tyro.conf.Positional[tuple[str, ...]] = ()  # the MIDI file of the riff
    from_bar: int = 0  # where the riff begins in its file, counted from 1; 0: the first riff there
    track: str = ""  # models of windows: the line to read, by number or part of its name; of two files two, with a comma between
    kit: Literal["as_trained", "general", "roland"] = "as_trained"  # models of drums: which drum each pitch of the file is
    num_outputs: Annotated[int, tyro.conf.arg(aliases=["-n", "--n"])] = 8  # how many, with the seeds --seed, --seed + 1, ...
    max_copy: float = 1.0  # largest share of a riff that one training riff may have too, else it is drawn again; 1 allows copies

    def required_files(self) -> tuple[str, ...]:
        """
        Raises:
            UserError: too few or too many for the mode.
        """
        least, most = {"interpolate": (2, 2), "arrange": (0, 1)}.get(self.MODE, (1, 1))
        wanted = {"interpolate": "two MIDI files, A.mid B.mid", "arrange": "one MIDI file, or none for a new riff"}
        right = least <= len(self.files) <= most
        require(right, f"{self.MODE}: give {wanted.get(self.MODE, 'one MIDI file')}; there are {len(self.files)}")
        return self.files


@dataclass(frozen=True)
class Reconstruct(FromRiff):
    """A riff as the model hears it: encoded, and decoded to the likeliest notes. Models of a score or of taps play it."""

    MODE: ClassVar[str] = "reconstruct"

    num_outputs: Annotated[int, tyro.conf.arg(aliases=["-n", "--n"])] = (
        1  # 1: it is the same for every seed, but for models that play a score or taps
    )


@dataclass(frozen=True)
class Vary(FromRiff):
    """Variations of a riff."""

    MODE: ClassVar[str] = "vary"

    strength: float = 0.35  # how far from the riff, 0 to 1: 0 is its reconstruction, 1 a fresh riff
    keep_rhythm: bool = False  # the onsets, holds and rests stay; the pitches are new (goes well with --strength 0.7)
    keep_pitches: bool = False  # the pitches stay, in their order; the rhythm is new (goes well with --strength 0.7)


@dataclass(frozen=True)
class Infill(FromRiff):
    """New music in the gaps of a riff; what is kept comes back token for token."""

    MODE: ClassVar[str] = "infill"

    keep: str = ""  # steps that stay, counted from 1, such as 1-8,17-32
    keep_bars: str = ""  # bars that stay, such as 1
    strength: float = 0.6  # how far the new music goes from what the kept bars suggest, 0 to 1


@dataclass(frozen=True)
class Continue(FromRiff):
    """The bars that come after a riff, as many as it has."""

    MODE: ClassVar[str] = "continue"

    strength: float = 0.4  # how far they go from the riff, 0 to 1


@dataclass(frozen=True)
class Answer(FromRiff):
    """Answers to a riff: they begin as it does, keep its rhythm but for the last half bar, and end elsewhere (home, unless it does)."""

    MODE: ClassVar[str] = "answer"

    strength: float = 0.6  # how far the second half's notes go from the riff's, 0 to 1


@dataclass(frozen=True)
class Interpolate(FromRiff):
    """Riffs on the way from one riff (the first file) to another (the second); both ends' reconstructions included."""

    MODE: ClassVar[str] = "interpolate"

    num_outputs: Annotated[int, tyro.conf.arg(aliases=["-n", "--n"])] = 1  # ways, with the seeds --seed, --seed + 1, ...; direct: one
    steps: int = 8  # riffs on the way, both ends included
    through: Literal["diffusion", "direct"] = "diffusion"  # noise both, join the noised and denoise; or decode what lies between
    strength: float = 0.3  # how far the middle is noised, 0 to 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.steps <= 1000, f"--steps {self.steps}: give 2 to 1000 riffs, the ends included")


@dataclass(frozen=True)
class Arrange(FromRiff):
    """A verse made of one riff, or of a new one: its variations, a part that contrasts, joins that a hand can play, one key."""

    MODE: ClassVar[str] = "arrange"

    num_outputs: Annotated[int, tyro.conf.arg(aliases=["-n", "--n"])] = 1  # verses, with the seeds --seed, --seed + 1, ...
    form: str = "AABA"  # the sections
    bars: int = 16  # length
    strength: float = 0.3  # how far each variation goes from the riff before, 0 to 1
    max_copy: float = 0.99  # largest share of a riff, but the given one, that one training riff may have too


MODES: dict[str, type[Generate]] = {
    mode.MODE: mode for mode in (Sample, Reconstruct, Vary, Infill, Continue, Answer, Interpolate, Arrange)
}  # fmt: skip


# ---------------------------------------------------------------- presets: differences from the defaults, smallest first

CONDITIONS = ",".join(ATTRIBUTES)
PRESETS: dict[str, dict[str, Any]] = {
    "riff_2bar_tiny": {  # for a first look and for the tests: seconds of training, rough riffs
        "train_vae.init_from": "none",
        "model.encoder_size": 48, "model.decoder_size": 64, "train_vae.steps": 150, "train_vae.beta_anneal": 50,
        "diffusion.hidden_size": 64, "diffusion.blocks": 2, "diffusion.conditions": CONDITIONS,
        "train_diffusion.steps": 300, "train_diffusion.latents": 512,
    },
    # the first reference document's tokens: equal neighbours join
    "riff_2bar_plain": {"tokenizer.hold_token": False, "train_vae.init_from": "none", "diffusion.conditions": CONDITIONS},
    "riff_2bar": {"diffusion.conditions": CONDITIONS},
    **FAMILY,
    # the same riffs by a language model: the rival without a latent
    "riff_2bar_lstm": {
        "lm.tokens": "riff", "lm.embed_size": 64, "lm.hidden_size": 256, "train_lm.steps": 1500, "train_lm.batch_size": 64,
        "train_lm.lr": 1e-3, "train_lm.dropout": 0.5, "train_lm.patience": 400,
        "sample.temperature": 0.8,
    },
    # the fifth reference document's music model: whole pieces as events
    "events_lstm_tiny": {
        "lm.tokens": "events", "lm.embed_size": 32, "lm.hidden_size": 64, "lm.layers": 1, "train_lm.steps": 150, "train_lm.lr": 3e-3,
        "dataset.transpose": 0, "dataset.holdout": 0.1, "sample.temperature": 1.0, "sample.top_k": 50,
    },
    "events_lstm": {
        "lm.tokens": "events", "dataset.transpose": 0, "dataset.holdout": 0.1, "sample.temperature": 1.0, "sample.top_k": 50,
    },
    # the same, able to copy sections and told where it is in the piece
    "events_lstm_copy": {
        "lm.tokens": "events", "lm.copy_size": 128, "lm.copy_lag": 48, "lm.position_buckets": 64,
        "train_lm.steps": 1200, "train_lm.batch_size": 8, "train_lm.seq_len": 1024, "train_lm.lr": 1e-3, "train_lm.dropout": 0.4,
        "dataset.transpose": 0, "dataset.holdout": 0.1, "sample.temperature": 1.0, "sample.top_k": 50, "sample.top_p": 0.98,
    },
}  # fmt: skip

# Presets that this word stands in are language models: train_lm.py trains them.
_LM_WORD = "lm.tokens"

# What starting from trained weights changes, on top of a preset of riffs: less to learn, and more to lose.
FINE_TUNING: dict[str, Any] = {
    "train_vae.steps": 300, "train_vae.lr": 2e-4, "train_vae.beta_anneal": 0, "train_vae.word_dropout": 0.4, "train_vae.beta": 1.0,
    "train_run.eval_interval": 25,
}  # fmt: skip


def preset_options(script: type[Script], preset: str, init_from: str = "") -> Script:
    """The options of a script under a preset, before any flag.

    Args:
        script: TrainVAE, TrainDiffusion, ...
        preset: a key of PRESETS.
        init_from: what the VAE will start from, if not what the preset says: trained weights want other options (FINE_TUNING).

    Raises:
        UserError: the preset does not exist.
    """
    require_preset(preset)
    if script in (TrainVAE, TrainDiffusion) and is_language_model(preset):
        raise UserError(f"--preset {preset}: is a language model; train it with train_lm.py")
    if script is TrainLM and not is_language_model(preset):
        raise UserError(f"--preset {preset}: is no language model; train it with train_vae.py and train_diffusion.py")
    options = _with(script(preset=preset), PRESETS[preset])  # type: ignore[call-arg]
    if script is TrainVAE and (init_from or options.train.init_from) != "none" and not is_of_windows(preset):
        options = _with(options, FINE_TUNING)
    return options


def is_language_model(preset: str) -> bool:
    """Whether a preset is trained by train_lm.py."""
    return _LM_WORD in PRESETS[preset]


def is_of_windows(preset: str) -> bool:
    """Whether a preset's music is windows of whole songs, not riffs."""
    return bool(PRESETS[preset].get("songs.songs"))


def writes_events(preset: str) -> bool:
    """Whether a preset's music is whole pieces of events, not riffs."""
    return PRESETS[preset].get(_LM_WORD) == "events"


def require_preset(preset: str) -> None:
    """
    Raises:
        UserError: there is no such preset.
    """
    near = difflib.get_close_matches(preset, PRESETS, n=3, cutoff=0.7)
    meant = f"is it {' or '.join(near)}? There are" if near else "choose from"
    require(preset in PRESETS, f"--preset {preset}: {meant} {', '.join(PRESETS)}")


def _with(options: Script, differences: Mapping[str, Any]) -> Script:
    """The options with some differences, keyed section.name; sections of other scripts are passed over."""
    for key, value in differences.items():
        section, name = key.split(".")
        where = options.SECTIONS.get(section)  # type: ignore[attr-defined]
        if where is not None:
            part = dataclasses.replace(getattr(options, where), **{name: value})
            options = dataclasses.replace(options, **{where: part})  # type: ignore[type-var]
    return options


def parse_options(script: type[Script], argv: Sequence[str] | None = None) -> Script:
    """Read a script's command line: default < preset < what --init-from changes < flag.

    Raises:
        UserError: a value out of its range, or an unknown preset.
        SystemExit: an unknown flag (2, with a suggestion) or --help (0).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    given = {"--preset": script().preset, "--init-from": ""}  # type: ignore[attr-defined]
    for i, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")  # tyro takes both
        if flag in given:
            given[flag] = value if equals else argv[i + 1] if i + 1 < len(argv) else given[flag]
    default = preset_options(script, given["--preset"], given["--init-from"])
    description = (script.__doc__ or "").strip()
    options = tyro.cli(script, args=argv, default=default, config=(tyro.conf.OmitArgPrefixes,), description=description)
    run: RunConfig = options.run  # type: ignore[attr-defined]
    if not run.run_dir:
        run = dataclasses.replace(run, run_dir=str(Path("runs") / options.preset))  # type: ignore[attr-defined]
        options = dataclasses.replace(options, run=run)  # type: ignore[type-var]
    if isinstance(options, TrainVAE):
        options.refuse_without_effect(default)  # type: ignore[arg-type]
    return options


def parse_mode(argv: Sequence[str]) -> tuple[type[Generate], Sequence[str]]:
    """The mode that a command line begins with, and the rest of it.

    Raises:
        UserError: another word.
    """
    for before, word in itertools.pairwise(argv):
        if word in MODES and argv[0] not in MODES and not before.startswith("-"):  # behind an option it may be a value
            raise UserError(f"{word}: the mode comes first: generate.py {word} ...")
    if not argv or argv[0].startswith("-"):
        return Sample, argv
    if argv[0] not in MODES:
        raise UserError(f"{argv[0][:60]}: is no mode; give {', '.join(MODES)}, then files and options")
    return MODES[argv[0]], argv[1:]


def parse_generate(argv: Sequence[str]) -> Generate:
    """parse_options for generate.py, whose command line may begin with a mode."""
    return parse_options(*parse_mode(argv))


def answer_early(parse: Callable[[Sequence[str]], Any]) -> None:
    """Where a script is asked what its options are, or what they would be, say so and end the process: before PyTorch is loaded, which
    takes seconds. parse: of the script's command line"""

    def answer(argv: Sequence[str]) -> int:
        print(format_options(parse(argv)))
        return 0

    if {"-h", "--help", "--dry-run"} & set(sys.argv[1:]):
        run_script(answer)


def format_options(options: Any, indent: str = "") -> str:
    """The resolved options as indented text, one per line (what --dry-run prints)."""
    lines = []
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        if dataclasses.is_dataclass(value):
            lines += [f"{indent}{f.name}:", format_options(value, indent + "  ")]
        else:
            lines.append(f"{indent}{f.name}: {value}")
    return "\n".join(lines)


def parse_seeds(text: str) -> list[int]:
    """Read `0-3,8` as [0, 1, 2, 3, 8].

    Raises:
        UserError: the text is not a list of seeds and ranges, names a seed twice, or names over 100000.
    """
    seeds: list[int] = []
    for part in text.split(","):
        numbers = re.fullmatch(r"\s*([0-9]{1,12})(?:-([0-9]{1,12}))?\s*", part)
        if numbers is None:
            raise UserError(f"--seeds {text[:80]}: give seeds and ranges such as 0-15 or 3,8,20-24")
        low = int(numbers[1])
        high = int(numbers[2] or low)
        if high < low or high - low + len(seeds) >= MAX_OUTPUTS:
            raise UserError(f"--seeds {text[:80]}: the range {part.strip()} is empty, or there are over {MAX_OUTPUTS} seeds")
        seeds += range(low, high + 1)
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text}: a seed is named twice; each seed is one riff")
    return seeds


if __name__ == "__main__":
    for preset_name, differences in PRESETS.items():
        shown = ", ".join(f"{k}={v}" for k, v in differences.items()) or "(all defaults)"
        print(f"{preset_name:18s} {shown}")
