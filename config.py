"""Every knob of the project, one dataclass per concern, and how a script ends. Imports no torch.

Field comments are the command-line help; presets.py has the scripts' options and the presets.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ATTRIBUTES = ("density", "rests", "syncopation", "range")  # what can be asked of a riff in a number, see steering.attributes
PickBy = Literal["novelty", "typicality", "density", "rests", "syncopation", "range"]  # what a varied best set is picked by
REST = 0  # token: nothing sounds on this step
HOLD = 128  # token: the note before goes on (only in vocabularies with a hold token)
MAX_PITCH = 127  # tokens 1..127 are MIDI pitches; pitch 0 cannot be written, it would read as a rest
DRUM_CLASSES = ("kick", "snare", "closed hat", "open hat", "low tom", "mid tom", "high tom", "crash", "ride")
DRUM_TOKENS = 2 ** len(DRUM_CLASSES)  # any of the classes together, as the bits of a number, kick lowest
GROOVE_SIZE = 3 * len(DRUM_CLASSES)  # hits, velocities, offsets
TRIO_PARTS = ("melody", "bass", "drums")

VAE_FILE = "riff_vae.pth"
DIFFUSION_FILE = "latent_diffusion.pth"
TOKEN_FILE = "tokens.npy"
LM_FILE = "language_model.pth"
BASE_MODEL = "pretrained/guitar_2bar.pth"
LONG_FILE = "generated_riff_long.mid"


MAX_SEED = 10**12
MOST_THREADS = 256  # that may be asked for
MAX_OUTPUTS = 100_000
MAX_FRETS = 36
MAX_SIZE = 65_536  # of any layer: beyond it a typing error asks for more memory than there is


class UserError(Exception):
    """Something the user can mend. The text is one line: what was given, what is allowed, what to do next."""


def require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def require_finite(options: Any) -> None:
    """Refuse inf and nan in any float option: comparisons alone let nan pass."""
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        require(not isinstance(value, float) or math.isfinite(value), f"--{f.name.replace('_', '-')} {value}: give a finite number")


# ---------------------------------------------------------------- one dataclass per concern


@dataclass(frozen=True)
class TokenizerConfig:
    """How some bars of music become numbers, step by step; stored in every checkpoint."""

    bars: int = 2  # length of one riff in bars of 4/4
    steps_per_beat: int = 4  # grid: 4 steps per quarter note are sixteenths
    hold_token: bool = True  # True: token 128 carries a note on, so repeated notes survive; False: sounding steps repeat their pitch
    policy: Literal["lowest", "highest", "reject"] = "lowest"  # which note of a chord becomes the line; reject refuses riffs with chords
    representation: Literal["mono", "drums", "groove", "trio"] = "mono"  # one line; drum tokens; played drums; melody, bass and drums
    given: Literal["all", "hits", "taps"] = "all"  # groove: what the encoder is shown: all, the score (humanize), or taps on one drum

    def __post_init__(self) -> None:
        require(1 <= self.bars <= 64, f"--bars {self.bars}: a riff has 1 to 64 bars")
        require(1 <= self.steps_per_beat <= 24, f"--steps-per-beat {self.steps_per_beat}: give 1 to 24 steps per quarter note")
        playing = self.given == "all" or self.representation == "groove"
        require(playing, f"--given {self.given}: is for --representation groove, here {self.representation}")

    @property
    def steps_per_bar(self) -> int:
        return 4 * self.steps_per_beat

    @property
    def steps(self) -> int:
        """Length of a token sequence."""
        return self.bars * self.steps_per_bar

    @property
    def line_size(self) -> int:
        """Tokens of a line: rest, 127 pitches and, if used, hold."""
        return HOLD + 1 if self.hold_token else MAX_PITCH + 1

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Number of tokens of each part; none for groove vectors."""
        line = self.line_size
        return {"mono": (line,), "drums": (DRUM_TOKENS,), "groove": (), "trio": (line, line, DRUM_TOKENS)}[self.representation]

    @property
    def vocab_size(self) -> int:
        """Number of tokens of a representation that has one part.

        Raises:
            ValueError: it has none, or several.
        """
        (size,) = self.vocab_sizes
        return size


@dataclass(frozen=True)
class DataConfig:
    """Which files are used, and how they are split and augmented."""

    data: str = "midi_riffs"  # folder of .mid / .midi riffs, or of songs (--songs), with its subfolders; or a token file of songs (.npy)
    max_bars: int = 8  # files that hold more bars of riffs than this are songs and are refused; 0 takes any length
    min_notes: int = 1  # a riff with fewer note onsets is refused
    low: int = 28  # lowest MIDI pitch accepted (28 is the low E of a bass)
    high: int = 88  # highest MIDI pitch accepted (88 is fret 24 of the thin string)
    grid_tolerance: float = 0.3  # an onset further than this from its step is off the grid, in steps (0 to 0.5)
    max_off_grid: float = 0.1  # share of off-grid onsets above which a riff is refused, 0 to 1
    holdout: float = 0.15  # share of the songs held out for validation, 0 to 0.9
    most_riffs: int = 0  # train on so many riffs at most, song by song, to see what more would bring; 0 takes all
    split_seed: int = 0  # decides which songs are held out; kept apart from --seed so that runs can be compared
    transpose: int = 5  # augmentation: each example of each epoch is shifted by -N..N semitones, inside the range below
    transpose_low: int = 38  # augmentation never goes below this pitch (38 is the low D of drop D), nor below the riff's own lowest
    transpose_high: int = 86  # nor above this one (86 is fret 22 of the thin string)
    mix: float = 0.8  # augmentation of the VAE: share of examples that go on, from a bar line, as another riff of their song
    rotate: float = 0.5  # augmentation of the VAE: share of examples that start at a later bar line and end with what came before

    @property
    def pitches(self) -> range:
        """What is accepted, and what lines of windows are written in (a trio's bass may go lower)."""
        return range(self.low, self.high + 1)

    def __post_init__(self) -> None:
        require_finite(self)
        require(bool(self.data.strip()), "--data is empty: give the folder of your riffs")
        require(0 <= self.holdout <= 0.9, f"--holdout {self.holdout}: give a share from 0 to 0.9")
        require(1 <= self.low <= self.high <= MAX_PITCH, f"--low {self.low} --high {self.high}: need 1 <= low <= high <= 127")
        require(0 < self.grid_tolerance <= 0.5, f"--grid-tolerance {self.grid_tolerance}: give steps, above 0 and up to 0.5")
        require(0 <= self.max_off_grid <= 1, f"--max-off-grid {self.max_off_grid}: give a share from 0 to 1")
        require(self.max_bars >= 0, f"--max-bars {self.max_bars}: give 0 (any length) or more")
        require(self.min_notes >= 1, f"--min-notes {self.min_notes}: give 1 or more")
        require(0 <= self.transpose <= 24, f"--transpose {self.transpose}: give 0 to 24 semitones")
        require(0 <= self.mix <= 1, f"--mix {self.mix}: give a share from 0 to 1")
        require(0 <= self.rotate <= 1, f"--rotate {self.rotate}: give a share from 0 to 1")
        require(self.most_riffs >= 0, f"--most-riffs {self.most_riffs}: give 0 (all) or more")
        require(0 <= self.split_seed <= MAX_SEED, f"--split-seed {self.split_seed}: give 0 to {MAX_SEED}")


@dataclass(frozen=True)
class SongConfig:
    """Which windows of whole songs are trained on, where the data are songs and not riffs."""

    songs: bool = False  # the files are whole songs: their windows are cut once, into one token file, and reused
    hop: int = 0  # bars from one window to the next; 0: the length of a window
    programs: str = ""  # MIDI programs of the lines that are read, such as 32-39 (basses) or 0-31,80; empty: all but drums
    bass_programs: str = "32-39"  # of a trio's bass
    track: str = ""  # the line to read, by number or a part of its name, where several would do; empty: every one of them
    kit: Literal["general", "roland"] = "general"  # which drum each pitch is: General MIDI, or the Roland kit of the Groove recordings
    min_notes_per_bar: float = 2.0  # a window with fewer note onsets per bar is left out
    max_windows: int = 0  # take so many windows at most, song by song; 0 takes all
    song_pattern: str = ""  # what names the song in a file's path, as a regular expression's first group; empty: each file is a song
    genre: str = ""  # Groove file names: take this genre alone, such as rock (rock-folk counts)
    beat_type: Literal["", "beat", "fill"] = ""  # Groove file names: beats or fills alone
    meter: str = ""  # Groove file names: this time signature alone, such as 4-4
    recursive: bool = True  # look into subfolders too
    workers: int = 0  # processes that cut; 0: as many as cores
    scheduler: str = ""  # address of a Dask scheduler (tcp://...), to cut on many machines

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.hop <= 64, f"--hop {self.hop}: give 0 (the length of a window) to 64 bars")
        require(0 <= self.workers <= 256, f"--workers {self.workers}: give 0 (all cores) to 256")
        require(self.max_windows >= 0, f"--max-windows {self.max_windows}: give 0 (all) or more")
        require(0 <= self.min_notes_per_bar <= 96, f"--min-notes-per-bar {self.min_notes_per_bar}: give 0 to 96")
        for name in ("programs", "bass_programs"):
            parse_programs(getattr(self, name), f"--{name.replace('_', '-')}")
        try:
            groups = re.compile(self.song_pattern).groups
        except re.error as error:
            raise UserError(f"--song-pattern {self.song_pattern}: no regular expression ({error})") from None
        require(not self.song_pattern or groups == 1, f"--song-pattern {self.song_pattern}: give one group, in ( ), around the song's name")


def parse_programs(text: str, flag: str) -> frozenset[int]:
    """Read `0-31,80` as a set of MIDI programs; empty for all.

    Raises:
        UserError: the text is not a list of programs 0 to 127.
    """
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        numbers = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        ends = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (1, 0)
        require(ends[0] <= ends[1] <= 127, f"{flag} {text}: give MIDI programs 0 to 127, such as 32-39 or 0-31,80")
        found |= set(range(ends[0], ends[1] + 1))
    return frozenset(found)


@dataclass(frozen=True)
class EventConfig:
    """How whole pieces become event tokens (language models of events); the vocabulary follows from it alone."""

    time_step_ms: int = 50  # length of a step in milliseconds, 1 to 1000
    max_shift: int = 100  # longest TIME_SHIFT, in steps
    drums: Literal["drop", "keep"] = "drop"  # what to do with drum tracks; kept, their notes are pitches like any other

    def __post_init__(self) -> None:
        require(1 <= self.time_step_ms <= 1000, f"--time-step-ms {self.time_step_ms}: give 1 to 1000 milliseconds")
        require(1 <= self.max_shift <= 10_000, f"--max-shift {self.max_shift}: give 1 to 10000 steps")


@dataclass(frozen=True)
class LMConfig:
    """Sizes of the language model (an LSTM): with its tokens' config, all that is needed to rebuild it."""

    tokens: Literal["events", "riff"] = "events"  # what it writes: whole pieces as events, or riffs step by step
    embed_size: int = 256  # size of a token embedding
    hidden_size: int = 512  # hidden units of each layer
    layers: int = 2  # LSTM layers
    copy_size: int = 0  # size of the keys by which it finds an earlier place of the piece to copy from; 0: it cannot copy
    copy_lag: int = 1  # tokens back that it can copy from at least; a bar or two, and it copies sections rather than single notes
    copy_window: int = 1024  # tokens back that it can copy from at most
    position_buckets: int = 0  # it is told how far into the piece it is, in so many buckets of 32 tokens; 0: it is not told

    def __post_init__(self) -> None:
        for name in ("embed_size", "hidden_size"):
            require(1 <= getattr(self, name) <= MAX_SIZE, f"--{name.replace('_', '-')} {getattr(self, name)}: give 1 to {MAX_SIZE}")
        require(1 <= self.layers <= 16, f"--layers {self.layers}: give 1 to 16")
        require(0 <= self.copy_size <= MAX_SIZE, f"--copy-size {self.copy_size}: give 0 (it cannot copy) to {MAX_SIZE}")
        require(1 <= self.copy_window <= MAX_SIZE, f"--copy-window {self.copy_window}: give 1 to {MAX_SIZE} tokens")
        require(1 <= self.copy_lag <= self.copy_window, f"--copy-lag {self.copy_lag}: give 1 to --copy-window, {self.copy_window} tokens")
        require(0 <= self.position_buckets <= MAX_SIZE, f"--position-buckets {self.position_buckets}: give 0 (none) to {MAX_SIZE}")


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the VAE: with TokenizerConfig, all that is needed to rebuild it."""

    embed_size: int = 64  # size of a token embedding
    encoder_size: int = 160  # hidden units of the encoder, per direction
    decoder_size: int = 192  # hidden units of the decoder
    z_size: int = 32  # size of the latent vector
    position_size: int = 16  # size of the embedding of a step's place in the bar and in the riff; 0 for none
    summary_size: int = 8  # numbers per step that the encoder hands to z's mean and variance, with their place; 0 for none
    plan_size: int = 16  # numbers per step that the decoder, or the conductor, reads off z for that step; 0 for none
    cell: Literal["gru", "lstm"] = "gru"  # of encoder, decoder and conductor
    encoder_layers: int = 1  # layers of the encoder
    decoder_layers: int = 1  # layers of the decoder, and of the conductor
    level_lengths: str = ""  # hierarchical decoder: segments, and steps in each, such as 16,16; empty: a flat decoder
    conductor_size: int = 256  # hierarchical decoder: hidden units of the conductor, whose output stands for a segment
    segment_feedback: bool = False  # hierarchical decoder: the conductor is told how the segment before ended; slower
    groove_spread: bool = False  # groove: learn how far loudness and timing of what is struck spread, and draw them; else squared errors

    def __post_init__(self) -> None:
        for name in ("embed_size", "encoder_size", "decoder_size", "z_size", "conductor_size"):
            require(1 <= getattr(self, name) <= MAX_SIZE, f"--{name.replace('_', '-')} {getattr(self, name)}: give 1 to {MAX_SIZE}")
        for name in ("position_size", "summary_size", "plan_size"):
            require(0 <= getattr(self, name) <= MAX_SIZE, f"--{name.replace('_', '-')} {getattr(self, name)}: give 0 to {MAX_SIZE}")
        for name in ("encoder_layers", "decoder_layers"):
            require(1 <= getattr(self, name) <= 16, f"--{name.replace('_', '-')} {getattr(self, name)}: give 1 to 16")
        good = not self.level_lengths or (re.fullmatch(r"\d{1,4},\d{1,4}", self.level_lengths) and min(self.levels) > 0)
        require(bool(good), f"--level-lengths {self.level_lengths}: give segments and steps in each, such as 16,16, or nothing")

    @property
    def levels(self) -> tuple[int, int] | None:
        """Segments, and steps in each; None for a flat decoder."""
        if not self.level_lengths:
            return None
        segments, steps = self.level_lengths.split(",")
        return int(segments), int(steps)

    def require_fit(self, tokenizer: TokenizerConfig) -> None:
        """
        Raises:
            UserError: the segments do not add up to the sequence.
        """
        if self.levels:
            product = self.levels[0] * self.levels[1]
            require(
                product == tokenizer.steps, f"--level-lengths {self.level_lengths}: make {product} steps, here there are {tokenizer.steps}"
            )


@dataclass(frozen=True)
class VAETrainConfig:
    """How the VAE is trained. Both loss parts are in nats per riff."""

    init_from: str = BASE_MODEL  # checkpoint whose weights to start from (fine-tuning), or none to train from scratch
    steps: int = 1200  # optimizer steps in all
    batch_size: int = 64  # riffs per step, over all processes
    lr: float = 1e-3  # peak learning rate of Adam
    lr_final: float = 0.05  # learning rate at the end, as a share of the peak (cosine decay, or the floor of an exponential one)
    lr_decay: float = 0.0  # exponential decay: the learning rate is multiplied by this at each step (.9999); 0 is cosine decay
    warmup: int = 50  # steps over which the learning rate rises from 0
    grad_clip: float = 1.0  # largest gradient norm
    weight_decay: float = 0.0  # decoupled weight decay (AdamW)
    beta: float = 0.1  # weight of the KL term; light from scratch, because the diffusion model is the prior
    beta_anneal: int = 300  # steps over which beta rises linearly from 0
    beta_rate: float = 0.0  # beta rises as 1 - beta_rate ** step instead (.99999: slowly); 0 is linear
    free_bits: float = 0.0  # KL below this many bits per riff costs nothing
    dropout: float = 0.2  # dropout on embeddings and decoder outputs, 0 to below 1
    word_dropout: float = 0.1  # share of decoder inputs replaced by the start token, so that z must carry the riff
    patience: int = 400  # stop when the held-out objective has not improved for so many steps; 0 goes on to the end
    scheduled_sampling: float = 0.0  # share of decoder inputs, at the end of training, drawn from the model itself (rises linearly; slower)
    precision: Literal["float32", "bfloat16", "auto"] = "float32"  # of recurrent layers while training; auto: bfloat16 where it is quick
    sampling_rate: float = 0.0  # that share rises as 1 - k / (k + exp(step / k)) instead, with this k (1000: half of it at step 6900)

    def __post_init__(self) -> None:
        _check_training(self)
        require(self.beta >= 0, f"--beta {self.beta}: give 0 or more")
        require(self.patience >= 0, f"--patience {self.patience}: give 0 (never stop early) or more steps")
        require(self.beta_anneal >= 0, f"--beta-anneal {self.beta_anneal}: give 0 or more steps")
        require(self.free_bits >= 0, f"--free-bits {self.free_bits}: give 0 or more bits")
        require(0 <= self.dropout < 1, f"--dropout {self.dropout}: give a share from 0 to below 1")
        require(0 <= self.word_dropout <= 1, f"--word-dropout {self.word_dropout}: give a share from 0 to 1")
        require(0 <= self.scheduled_sampling <= 1, f"--scheduled-sampling {self.scheduled_sampling}: give a share from 0 to 1")
        require(self.sampling_rate >= 0, f"--sampling-rate {self.sampling_rate}: give 0 (linear) or a number of steps")
        require(0 <= self.beta_rate < 1, f"--beta-rate {self.beta_rate}: give 0 (linear) to below 1")
        require(0 <= self.lr_decay <= 1, f"--lr-decay {self.lr_decay}: give 0 (cosine) to 1")


@dataclass(frozen=True)
class DiffusionConfig:
    """The denoiser and its noise schedule: all that is needed to rebuild it, given z_size."""

    hidden_size: int = 192  # width of the denoiser
    blocks: int = 3  # residual blocks
    num_timesteps: int = 1000  # length T of the noise schedule
    schedule: Literal["cosine", "linear"] = "cosine"  # shape of alphas_cumprod; both end near zero at any T
    prediction_type: Literal["eps", "x0", "v"] = "v"  # what the denoiser predicts
    conditions: str = ""  # what riffs it can be asked for, with commas: density, rests, syncopation, range; empty: none

    def __post_init__(self) -> None:
        size = self.hidden_size
        require(2 <= size <= MAX_SIZE and size % 2 == 0, f"--hidden-size {size}: give an even number, 2 to {MAX_SIZE}")
        require(1 <= self.blocks <= 100, f"--blocks {self.blocks}: give 1 to 100")
        require(10 <= self.num_timesteps <= 100_000, f"--num-timesteps {self.num_timesteps}: give 10 to 100000")
        names = self.condition_names
        known = set(names) <= set(ATTRIBUTES) and len(set(names)) == len(names)
        require(known, f"--conditions {self.conditions}: give each once, of {', '.join(ATTRIBUTES)}")

    @property
    def condition_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.conditions.split(",")) if self.conditions.strip() else ()


@dataclass(frozen=True)
class DiffusionTrainConfig:
    """How the denoiser is trained."""

    init_from: str = "none"  # checkpoint whose weights to start from, or none
    steps: int = 4000  # optimizer steps in all
    batch_size: int = 256  # latents per step, over all processes
    lr: float = 1e-3  # peak learning rate of Adam
    lr_final: float = 0.05  # learning rate at the end, as a share of the peak (cosine decay)
    warmup: int = 50  # steps over which the learning rate rises from 0
    grad_clip: float = 1.0  # largest gradient norm
    weight_decay: float = 0.0  # decoupled weight decay (AdamW)
    latents: int = 8192  # riffs encoded to train on, mixed as for the VAE, at least one for each riff; of more windows of songs a choice
    prior_transpose: int = 0  # transpose those riffs by up to so many semitones; 0 keeps the keys and registers they were written in
    ema_decay: float = 0.99  # decay of the averaged weights that sampling uses
    unconditional: float = 0.3  # share of examples that hide all conditions; of the others each shows a condition with even chances

    def __post_init__(self) -> None:
        _check_training(self)
        require(1 <= self.latents <= 10_000_000, f"--latents {self.latents}: give 1 to 10000000")
        require(0 <= self.prior_transpose <= 24, f"--prior-transpose {self.prior_transpose}: give 0 to 24 semitones")
        require(0 <= self.unconditional <= 1, f"--unconditional {self.unconditional}: give a share from 0 to 1")
        require(0 <= self.ema_decay < 1, f"--ema-decay {self.ema_decay}: give 0 to below 1")


@dataclass(frozen=True)
class LMTrainConfig:
    """How the language model is trained. The loss is in nats per token."""

    init_from: str = "none"  # checkpoint whose weights to start from (fine-tuning), or none
    steps: int = 1500  # optimizer steps in all
    batch_size: int = 16  # sequences per step, over all processes
    seq_len: int = 256  # tokens of one sequence; longer pieces are cut, and no sequence holds two pieces
    lr: float = 3e-4  # peak learning rate of AdamW
    lr_final: float = 0.05  # learning rate at the end, as a share of the peak (cosine decay)
    warmup: int = 50  # steps over which the learning rate rises from 0
    grad_clip: float = 1.0  # largest gradient norm
    weight_decay: float = 0.01  # decoupled weight decay (AdamW)
    dropout: float = 0.2  # dropout on the output of each layer, 0 to below 1
    patience: int = 0  # stop when the held-out loss has not improved for so many steps; 0 goes on to the end

    def __post_init__(self) -> None:
        _check_training(self)
        require(1 <= self.seq_len <= 100_000, f"--seq-len {self.seq_len}: give 1 to 100000 tokens")
        require(0 <= self.dropout < 1, f"--dropout {self.dropout}: give a share from 0 to below 1")
        require(self.patience >= 0, f"--patience {self.patience}: give 0 (never stop early) or more steps")


def _check_training(train: VAETrainConfig | DiffusionTrainConfig | LMTrainConfig) -> None:
    require_finite(train)
    require(train.steps >= 1, f"--steps {train.steps}: give 1 or more")
    require(1 <= train.batch_size <= 1_000_000, f"--batch-size {train.batch_size}: give 1 to 1000000")
    require(train.lr > 0, f"--lr {train.lr}: give a number above 0")
    require(0 <= train.lr_final <= 1, f"--lr-final {train.lr_final}: give a share from 0 to 1")
    require(train.warmup >= 0, f"--warmup {train.warmup}: give 0 or more steps")
    require(train.grad_clip > 0, f"--grad-clip {train.grad_clip}: give a number above 0")
    require(train.weight_decay >= 0, f"--weight-decay {train.weight_decay}: give 0 or more")


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and how it is executed; nothing here changes what a model is."""

    run_dir: str = ""  # folder of the run; default runs/<preset>
    seed: int = 0  # with the same seed (and --threads), the same command gives the same bytes
    device: str = "auto"  # auto, cpu or cuda; auto takes a GPU if there is one (on a Mac the CPU: these models are small)
    threads: int = 0  # CPU threads; 0 takes what OMP_NUM_THREADS says, or measures how many are worth it, and says so
    dry_run: bool = False  # print the resolved config and stop

    def __post_init__(self) -> None:
        require(0 <= self.seed <= MAX_SEED, f"--seed {self.seed}: give 0 to {MAX_SEED}")
        require(0 <= self.threads <= MOST_THREADS, f"--threads {self.threads}: give 0 (measure) to {MOST_THREADS}")
        require(bool(re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device)), f"--device {self.device}: give auto, cpu, cuda or cuda:N")


@dataclass(frozen=True)
class TrainRunConfig(RunConfig):
    """What the train scripts share."""

    restart: bool = False  # start over; the checkpoints that are there are kept under another name
    log_interval: int = 50  # steps between two lines of the log
    eval_interval: int = 100  # steps between two evaluations on the held-out songs
    save_interval: int = 200  # steps between two saves of the state to resume from

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("log_interval", "eval_interval", "save_interval"):
            require(getattr(self, name) >= 1, f"--{name.replace('_', '-')} {getattr(self, name)}: give 1 or more steps")


@dataclass(frozen=True)
class SampleConfig:
    """How latents are drawn and decoded."""

    prior: Literal["diffusion", "normal"] = "diffusion"  # where z comes from: the trained diffusion model, or N(0, I)
    sampling_steps: int = 50  # denoising steps, 1 to the length of the schedule
    eta: float = 0.0  # noise added while denoising: 0 is DDIM, 1 is DDPM
    temperature: float = 0.3  # of the token distribution; 0 takes the likeliest token. Variety comes from z, which is drawn as it is
    rest_penalty: float = 0.0  # subtracted from the logit of the rest token (taste; 1 to 4 makes riffs busier)
    top_k: int = 0  # keep only the k likeliest tokens; 0 keeps all
    top_p: float = 1.0  # keep the likeliest tokens that reach this probability mass, above 0 to 1
    precision: Literal["float32", "bfloat16"] = "float32"  # what recurrent layers multiply in; bfloat16 is quicker where it is known
    grammar: bool = True  # event models: no NOTE_OFF of a silent pitch and no NOTE_ON of a sounding one (riffs are always legal)

    def __post_init__(self) -> None:
        require_finite(self)
        require(abs(self.rest_penalty) <= 100, f"--rest-penalty {self.rest_penalty}: give nats, usually 0 to 4")
        require(0 <= self.temperature <= 100, f"--temperature {self.temperature}: give 0 (likeliest token) to 100, usually 0.3 to 1.2")
        require(self.top_k >= 0, f"--top-k {self.top_k}: give 0 (all) or more")
        require(0 < self.top_p <= 1, f"--top-p {self.top_p}: give a probability mass above 0, up to 1")
        require(self.sampling_steps >= 1, f"--sampling-steps {self.sampling_steps}: give 1 or more")
        require(0 <= self.eta <= 1, f"--eta {self.eta}: give 0 (DDIM) to 1 (DDPM)")


@dataclass(frozen=True)
class SteerConfig:
    """What is asked of new riffs. What is demanded of key, range, first and last notes and onsets is met by every riff."""

    key: str = ""  # 'E minor', F#m, 'A minor pentatonic', ...; own: the given riff's; any: not held to the given riff's
    scale: str = ""  # scale on the tonic of --key, such as dorian (`python -m steering.keys` lists them)
    low: str = ""  # lowest pitch, such as E2 (or a MIDI number)
    high: str = ""  # highest pitch
    start_note: str = ""  # what the first note may be: E2 is one pitch, E every E; several with commas
    end_note: str = ""  # what the last note may be
    onsets: str = ""  # where notes start, x or . for each step of a bar or of the riff: x..x..x.x..x..x.
    density: float | None = None  # notes per bar
    rests: float | None = None  # share of silent steps, 0 to 1
    syncopation: float | None = None  # per bar, Longuet-Higgins & Lee: 0 is on the beat, 3 usual for riffs, 7 much
    range: float | None = None  # semitones from the lowest to the highest note
    guidance_scale: float = 2.0  # how hard the denoiser listens to density, rests, syncopation and range; 1 is off, 0 does not listen
    attribute: str = ""  # changes along directions of the latent space, in standard deviations: density=+1,rests=-0.5
    candidates: int = 0  # riffs drawn for each seed, of which one that goes well with what is asked is taken; 0: 16 if anything is

    def __post_init__(self) -> None:
        require_finite(self)
        for name, most in (("density", 96), ("rests", 1), ("syncopation", 384), ("range", 126)):
            value = getattr(self, name)
            require(value is None or 0 <= value <= most, f"--{name} {value}: give 0 to {most}")
        require(0 <= self.guidance_scale <= 20, f"--guidance-scale {self.guidance_scale}: give 0 to 20; 1 is off, 2 usual")
        require(0 <= self.candidates <= 1024, f"--candidates {self.candidates}: give 0 (16 where something is asked) to 1024")

    @property
    def asked(self) -> dict[str, float]:
        """Attributes that a number was given for."""
        return {name: getattr(self, name) for name in ATTRIBUTES if getattr(self, name) is not None}


@dataclass(frozen=True)
class CutConfig:
    """What is cut from songs."""

    section: str = "verse"  # verse, pre-verse, chorus, ... by their usual names; words of a name; several, with commas; any: all
    track: str = ""  # the part to cut, by number or a part of its name (--list shows them); default: every guitar
    hop: int = 0  # bars from one riff to the next; 0: the length of a riff

    def __post_init__(self) -> None:
        require(all(part.strip() for part in self.section.split(",")), "--section is empty: give verse, chorus, ..., or any")
        require(0 <= self.hop <= 64, f"--hop {self.hop}: give 0 (the length of a riff) to 64 bars")


@dataclass(frozen=True)
class GuitarConfig:
    """The guitar that riffs are written for."""

    tuning: str = ""  # drop-d, eb, 7-string, bass, ... or the open strings, lowest first (DADGBE); default: a usual one with all the notes
    capo: int = 0  # fret of the capo
    frets: int = 22  # frets of the guitar

    def __post_init__(self) -> None:
        require(1 <= self.frets <= MAX_FRETS, f"--frets {self.frets}: give 1 to {MAX_FRETS}")
        require(0 <= self.capo < self.frets, f"--capo {self.capo}: give 0 (none) to {self.frets - 1}, below --frets")


@dataclass(frozen=True)
class SoundConfig:
    """Sound files beside the MIDI files."""

    wav: bool = False  # write a .wav of each riff: 44.1 kHz, 16 bit
    loop: bool = False  # the .wav ends on the bar line and can be repeated without a seam; otherwise the last note rings out
    synth: Literal["plucked", "fluidsynth"] = "plucked"  # the built-in string, or the fluidsynth command if it is installed
    soundfont: str = ""  # .sf2 file for fluidsynth; default: its own

    def __post_init__(self) -> None:
        for name in ("loop", "synth", "soundfont"):
            require(self.wav or getattr(self, name) == getattr(SoundConfig, name), f"--{name}: is about sound files; give --wav too")
        require(self.synth == "fluidsynth" or not self.soundfont, "--soundfont: is for --synth fluidsynth")


# ---------------------------------------------------------------- running a script


NEXT_STEPS = {  # after what the system refuses
    errno.ENOSPC: "; make room, then run it again",
    errno.EISDIR: "; a folder stands where a file should be, move it away",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "; give another folder, or get the right to write there"),
}


def run_script(main: Callable[[Sequence[str]], int]) -> None:
    """Run a script's main and end the process: 0 done, 1 something asked for was refused, 2 could not start.

    A user's mistake, a full disk or a file that may not be read costs one line on standard error, never a traceback.
    """
    name = Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader (head, less) went away
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        said = f"the system refused{place}: {error.strerror or error}; that file is as it was"
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            said = f"cannot write{place}: a file stands where a folder should be; it is as it was; give another folder"
        print(f"{name}: {said}{NEXT_STEPS.get(error.errno or 0, '')}", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print(f"{name}: out of memory; give smaller sizes, batches or files", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        sys.exit(130)
