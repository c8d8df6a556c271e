"""What a language model learns from: pieces as token sequences of any length, cut into training sequences that never cross pieces.

Pieces come from a folder of whole MIDI files (as event tokens), or are the riffs of a folder (their 32 tokens behind a BOS).
Run `python pieces.py [--data FOLDER]` to see the table of a folder.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from config import DataConfig, EventConfig, LMConfig, TokenizerConfig, UserError, run_script
from dataset import (
    MIDI_SUFFIXES,
    ExampleStream,
    FileRow,
    RiffData,
    augmented_batch,
    find_music_files,
    plural,
    refused_lines,
    shown,
    split_by_song,
    training_stream,
    was_generated,
)
from events import BOS, EOS, NOTE_OFF, NOTE_ON, PAD, midi_to_events, pitch_bounds, transpose_events
from midi_utils import MidiError, read_midi

IGNORED = -100  # target of a place that no loss is taken at
JITTER = 2  # purpose of random numbers: where the sequences of an epoch begin


@dataclass(frozen=True)
class Vocabulary:
    """Token numbers: 0..size - 1 are read, and some of them end or begin a sequence."""

    size: int
    bos: int
    eos: int | None  # None: every sequence has one length


def event_vocabulary(events: EventConfig) -> Vocabulary:
    return Vocabulary(NOTE_OFF + 128 + events.max_shift, BOS, EOS)


def riff_vocabulary(tokenizer: TokenizerConfig) -> Vocabulary:
    """The riff tokens and a BOS after them."""
    return Vocabulary(tokenizer.vocab_size + 1, tokenizer.vocab_size, None)


def vocabulary(model: LMConfig, tokenizer: TokenizerConfig, events: EventConfig) -> Vocabulary:
    """Of the tokens that a language model writes."""
    return event_vocabulary(events) if model.tokens == "events" else riff_vocabulary(tokenizer)


@dataclass
class PieceData:
    """All usable pieces of a folder, in the order of their file names."""

    folder: str
    config: DataConfig
    vocabulary: Vocabulary
    rows: list[FileRow]
    tokens: list[np.ndarray]  # int64 [tokens] each, from BOS to EOS
    names: list[str]
    held_out: np.ndarray  # bool [pieces]
    program: int  # 0..127, the commonest of the training pieces' first parts
    riffs: RiffData | None = None  # where the pieces are riffs

    @cached_property
    def train(self) -> list[np.ndarray]:
        return [piece for piece, out in zip(self.tokens, self.held_out, strict=True) if not out]

    @cached_property
    def held(self) -> list[np.ndarray]:
        return [piece for piece, out in zip(self.tokens, self.held_out, strict=True) if out]

    @property
    def train_names(self) -> list[str]:
        return [name for name, out in zip(self.names, self.held_out, strict=True) if not out]

    @property
    def fingerprint(self) -> str:
        """Changes when a piece or the split does."""
        if self.riffs is not None:
            return self.riffs.fingerprint
        digest = hashlib.sha256(self.held_out.tobytes())
        for piece in self.tokens:
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece.astype(np.int32).tobytes())
        return digest.hexdigest()[:16]


def relative_events(tokens: np.ndarray) -> bytes:
    """A piece with its pitches counted from its lowest: equal for transposed pieces."""
    return transpose_events(tokens, -pitch_bounds(tokens)[0]).tobytes()


def load_pieces(data: DataConfig, events: EventConfig) -> PieceData:
    """Read a folder of pieces: every file ends as used or as refused with a reason. Split by piece; each file is one.

    Of the config, data, holdout, split_seed, min_notes and most_riffs (here: pieces) count; exact and transposed duplicates are left out.

    Raises:
        UserError: no folder, no MIDI file in it, or none that can be used (the reasons are counted in the text).
    """
    files = find_music_files(data.data)
    if not files:
        raise UserError(f"{data.data}: no .mid or .midi file in it or below it; put your pieces there or give another folder")
    rows, tokens, names, programs, owners = [], [], [], [], []
    seen: dict[bytes, str] = {}
    for path in files:
        row = FileRow(shown(path.relative_to(data.data)), shown(Path(path.stem)))
        rows.append(row)
        if was_generated(path):
            row.refuse("generated", "generate.py wrote it, says its .json; delete the .json to train on it all the same")
            continue
        try:
            piece, program = read_piece(path, data, events)
        except MidiError as error:
            row.refuse(error.reason, error.detail)
            continue
        first = seen.setdefault(relative_events(piece), row.file)
        if first != row.file:
            row.refuse("duplicate", f"repeats {first}, transposed or not")
            continue
        row.riffs = 1
        tokens.append(piece)
        names.append(row.file)
        programs.append(program)
        owners.append(row)
    if not tokens:
        counts = ", ".join(f"{n} {reason}" for reason, n in Counter(row.reason for row in rows).most_common())
        raise UserError(
            f"{data.data}: none of its {len(rows)} MIDI files can be used ({counts}); the first: {rows[0].file}, {rows[0].detail}"
        )
    if data.most_riffs:
        raise UserError("--most-riffs: is for riffs; to train on fewer pieces, give a folder with fewer")
    held_out = split_by_song(names, np.ones(len(names), dtype=np.int64), data.holdout, data.split_seed)
    for row, out in zip(owners, held_out, strict=True):
        row.held_out = bool(out)
    counted = Counter(program for program, out in zip(programs, held_out, strict=True) if not out)
    program = min(counted, key=lambda p: (-counted[p], p))
    return PieceData(data.data, data, event_vocabulary(events), rows, tokens, names, held_out, program)


def read_piece(path: Path, data: DataConfig, events: EventConfig) -> tuple[np.ndarray, int]:
    """One file as tokens, int64 [tokens], and the program of the part with most notes.

    Raises:
        MidiError: it cannot be used, and why.
    """
    if path.suffix.lower() not in MIDI_SUFFIXES:
        raise MidiError("not MIDI", f"a {path.suffix.lower() or 'nameless'} file; export it as .mid")
    midi = read_midi(path)
    piece = midi_to_events(midi, events)
    notes = int(((piece >= NOTE_ON) & (piece < NOTE_OFF)).sum())
    if notes < data.min_notes:
        raise MidiError("no notes", f"{plural(notes, 'note')}, at least {data.min_notes} (--min-notes)")
    pitched = [track for track in midi.tracks if not track.is_drum]
    return piece, max(pitched, key=lambda track: len(track.pitch)).program if pitched else 0


def riffs_as_pieces(riff_data: RiffData) -> PieceData:
    """Riffs for a language model: BOS and their tokens."""
    tokens = [np.concatenate([[riff_vocabulary(riff_data.tokenizer).bos], riff]) for riff in riff_data.tokens]
    program = int(riff_data.defaults()["program"])
    return PieceData(
        riff_data.folder,
        riff_data.config,
        riff_vocabulary(riff_data.tokenizer),
        riff_data.rows,
        tokens,
        riff_data.names,
        riff_data.held_out,
        program,
        riff_data,
    )


def piece_summary(pieces: PieceData) -> str:
    """The table in short."""
    held, lengths = int(pieces.held_out.sum()), [len(piece) for piece in pieces.tokens]
    used = sum(row.riffs > 0 for row in pieces.rows)
    lines = [
        f"data: {pieces.folder}: {plural(len(pieces.rows), 'file')}, {used} used, {len(pieces.rows) - used} refused; "
        f"{len(lengths) - held} to train on, {held} held out; {sum(lengths)} tokens, {min(lengths)} to {max(lengths)} a piece"
    ]
    if not held and pieces.config.holdout:
        lines.append("      nothing is held out: that takes at least two pieces")
    return "\n".join(lines + refused_lines(pieces.rows))


# ---------------------------------------------------------------- training sequences


@dataclass
class Sequences:
    """Training sequences of a folder's pieces: endless, seeded, and a function of (seed, step) alone.

    A piece of L tokens has ceil((L - 1) / seq_len) sequences. The first begins at BOS; the others begin anywhere within half a
    sequence of their place, drawn anew every time. Riffs are mixed and transposed as for the VAE.
    """

    pieces: PieceData
    seq_len: int
    seed: int
    _piece: np.ndarray = field(init=False)  # int64 [sequences], which training piece
    _number: np.ndarray = field(init=False)  # int64 [sequences], which of its sequences
    _stream: ExampleStream = field(init=False)

    def __post_init__(self) -> None:
        counts = np.array([-(-(len(piece) - 1) // self.seq_len) for piece in self.pieces.train])
        self._piece = np.repeat(np.arange(len(counts)), counts)
        self._number = np.concatenate([np.arange(count) for count in counts])
        if self.pieces.riffs is not None:
            self._stream = training_stream(self.pieces.riffs, self.seed)
            return
        bounds = np.array([pitch_bounds(piece) for piece in self.pieces.train])
        shift = self.pieces.config.transpose
        down, up = -np.minimum(bounds[:, 0], shift), np.minimum(127 - bounds[:, 1], shift)
        self._stream = ExampleStream(down[self._piece], up[self._piece], self.seed)

    def __len__(self) -> int:
        return len(self._piece)

    def batch(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sequences of one optimizer step.

        Returns:
            inputs, targets: int64 [batch_size, T], T at most seq_len; targets are IGNORED behind the end of a piece; and where in its
            piece each sequence begins, int64 [batch_size].
        """
        if self.pieces.riffs is not None:
            riffs = augmented_batch(self.pieces.riffs, self._stream, step, batch_size)[:, : self.seq_len]
            begin = np.full((batch_size, 1), self.pieces.vocabulary.bos)
            return np.concatenate([begin, riffs[:, :-1]], axis=1), riffs, np.zeros(batch_size, dtype=np.int64)
        index, shift = self._stream.batch(step, batch_size)
        jitter = np.random.default_rng(np.random.SeedSequence([self.seed, step, JITTER])).uniform(-0.5, 0.5, batch_size)
        sequences, begins = [], np.zeros(batch_size, dtype=np.int64)
        for row, (i, semitones, by) in enumerate(zip(index, shift, jitter, strict=True)):
            piece, number = self.pieces.train[self._piece[i]], self._number[i]
            first = round((number + by) * self.seq_len) if number else 0
            begins[row] = first = max(0, min(first, len(piece) - 1 - self.seq_len))
            sequences.append(transpose_events(piece[first : first + self.seq_len + 1], int(semitones)))
        inputs = np.full((batch_size, max(map(len, sequences)) - 1), PAD, dtype=np.int64)
        targets = np.full_like(inputs, IGNORED)
        for row, sequence in enumerate(sequences):
            inputs[row, : len(sequence) - 1], targets[row, : len(sequence) - 1] = sequence[:-1], sequence[1:]
        return inputs, targets, begins


def main(argv: Sequence[str]) -> int:
    import tyro

    pieces = load_pieces(tyro.cli(DataConfig, args=list(argv), default=replace(DataConfig(), transpose=0, holdout=0.1)), EventConfig())
    print(piece_summary(pieces))
    return 0


if __name__ == "__main__":
    run_script(main)
