"""A folder of riffs -> the table of what was used and why not -> arrays; split by song; augmentation.

Run `python dataset.py [--data FOLDER]` to see the table and one batch.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TextIO

import numpy as np

from config import HOLD, LONG_FILE, REST, DataConfig, TokenizerConfig, UserError, run_script
from files import write_file
from measures.metrics import notes_per_bar, relative_tokens, rest_ratio
from midi_utils import MidiError, Riff, choose_track, file_riffs, read_midi, read_riff

MIDI_SUFFIXES = (".mid", ".midi")
# Music that a user may take for MIDI: named in the table, so that it is not missed without a word.
OTHER_MUSIC_SUFFIXES = (
    ".gp",
    ".gp3",
    ".gp4",
    ".gp5",
    ".gpx",
    ".kar",
    ".mid2",
    ".midi2",
    ".mscz",
    ".musicxml",
    ".mxl",
    ".rmi",
    ".smf",
    ".syx",
)


MIX = 1  # purpose of random numbers: which bars are exchanged


@dataclass
class FileRow:
    """What became of one file."""

    file: str  # relative to the data folder
    song: str
    riffs: int = 0  # how many of its riffs are used; 0 means refused
    reason: str = ""  # of the refusal: one of a few words to count by
    detail: str = ""  # of the refusal, and what was left out of a file that is used
    held_out: bool = False

    def refuse(self, reason: str, detail: str = "") -> None:
        self.riffs, self.reason, self.detail = 0, reason, detail


@dataclass(frozen=True)
class RiffData:
    """All usable riffs of a folder. Arrays have one entry per riff, in the order of the file names."""

    folder: str
    tokenizer: TokenizerConfig
    config: DataConfig
    rows: list[FileRow]
    riffs: list[Riff]
    tokens: np.ndarray  # int64 [riffs, steps]
    song: np.ndarray  # int64 [riffs], which song a riff belongs to, as a place in `songs`
    held_out: np.ndarray  # bool [riffs]
    songs: list[str]
    names: list[str]  # of the riffs: file and bar

    @cached_property
    def train_tokens(self) -> np.ndarray:
        return self.tokens[~self.held_out]

    @cached_property
    def train_song(self) -> np.ndarray:
        return self.song[~self.held_out]

    @cached_property
    def held_out_tokens(self) -> np.ndarray:
        return self.tokens[self.held_out]

    @property
    def shown(self) -> dict[str, np.ndarray]:
        """What final figures are about."""
        return {"train": self.train_tokens, "held out": self.held_out_tokens}

    @property
    def train_names(self) -> list[str]:
        return [name for name, out in zip(self.names, self.held_out, strict=True) if not out]

    @property
    def fingerprint(self) -> str:
        """Changes when a riff or the split does; a run is resumed, and its diffusion trained, on the same data only."""
        digest = hashlib.sha256(np.ascontiguousarray(self.tokens, dtype=np.int16).tobytes())
        digest.update(self.held_out.tobytes())
        digest.update(np.ascontiguousarray(self.song, dtype=np.int64).tobytes())  # bars are mixed within songs
        return digest.hexdigest()[:16]

    def defaults(self) -> dict[str, float | int]:
        """What generated riffs inherit from the training riffs: the median tempo, the commonest program, and a pitch range from
        their lowest note to as far above their highest as they are transposed."""
        train = [riff for riff, out in zip(self.riffs, self.held_out, strict=True) if not out]
        programs = Counter(riff.program for riff in train)
        pitches = self.train_tokens[(self.train_tokens != REST) & (self.train_tokens != HOLD)]
        return {
            "bpm": round(float(np.median([riff.bpm for riff in train])), 3),
            "program": min(programs, key=lambda p: (-programs[p], p)),
            "lowest": int(pitches.min()),
            "highest": min(int(pitches.max()) + self.config.transpose, self.config.high),
        }


def shift_range(tokens: np.ndarray, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """By how many semitones riffs may be transposed inside the instrument's range.

    Args:
        tokens: int [riffs, steps]

    Returns:
        lowest (<= 0) and highest (>= 0) shift, each int64 [riffs]
    """
    sounds = (tokens != REST) & (tokens != HOLD)
    low = np.where(sounds, tokens, 127).min(axis=1)
    high = np.where(sounds, tokens, 0).max(axis=1)
    down = np.clip(config.transpose_low - low, -config.transpose, 0)
    up = np.clip(config.transpose_high - high, 0, config.transpose)
    return down, up


def transpose(tokens: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shift the pitches of riffs, leaving rests and holds.

    Args:
        tokens: int [riffs, steps]
        shift: int [riffs], semitones; the result must stay in 1..127.
    """
    return np.where((tokens != REST) & (tokens != HOLD), tokens + shift[:, None], tokens)


def mix_bars(
    tokens: np.ndarray, song: np.ndarray, index: np.ndarray, config: DataConfig, tokenizer: TokenizerConfig, seed: int
) -> np.ndarray:
    """Augmentation by what a song's own phrases allow: from a bar line on, some riffs go on as another riff of their song,
    and some start in their middle. Riffs of one song share key and idea, so the mixtures are riffs it might have had.

    Args:
        tokens: int [riffs, steps]; song: int [riffs].
        index: int [B], which riffs.
        seed: of these draws alone.

    Returns:
        int [B, steps], legal riffs.
    """
    mixed = tokens[index].copy()
    if tokenizer.bars < 2 or not (config.mix or config.rotate):
        return mixed
    rng = np.random.default_rng(seed)
    by_song = np.argsort(song, kind="stable")
    count = np.bincount(song)
    first = np.cumsum(count) - count
    own = song[index]
    mate = by_song[first[own] + (rng.random(len(index)) * count[own]).astype(np.int64)]
    cut = rng.integers(1, tokenizer.bars, size=len(index)) * tokenizer.steps_per_bar
    step = np.arange(tokenizer.steps)
    other = (step >= cut[:, None]) & (rng.random(len(index)) < config.mix)[:, None]
    mixed = np.where(other, tokens[mate], mixed)
    turn = np.where(rng.random(len(index)) < config.rotate, cut, 0)
    mixed = np.take_along_axis(mixed, (step + turn[:, None]) % tokenizer.steps, axis=1)
    for t in np.arange(0, tokenizer.steps, tokenizer.steps_per_bar):  # a note held over a cut has lost its onset
        loose = mixed[:, t - 1] == REST if t else np.ones(len(index), dtype=bool)
        for i in range(t, tokenizer.steps):
            loose &= mixed[:, i] == HOLD
            if not loose.any():
                break
            mixed[loose, i] = REST
    return mixed


# ---------------------------------------------------------------- folder -> table -> arrays


def find_music_files(folder: str | os.PathLike[str]) -> list[Path]:
    """All files below a folder that are MIDI, or that somebody may take for it, by their names; in one fixed order. What lies beside a
    MIDI file of its name is the same in another format, and passed over.

    Raises:
        UserError: the folder does not exist.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give the folder it is in")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of your riffs (.mid or .midi)")
    found = [p for p in folder.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES + OTHER_MUSIC_SUFFIXES and (p.is_file() or p.is_symlink())]
    midi = {path.with_suffix("") for path in found if path.suffix.lower() in MIDI_SUFFIXES}
    found = [path for path in found if path.suffix.lower() in MIDI_SUFFIXES or path.with_suffix("") not in midi]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def read_file_riffs(path: str | os.PathLike[str], data: DataConfig, tokenizer: TokenizerConfig) -> tuple[list[Riff], list[str]]:
    """The riffs of one file that can be trained on, by the rules of the config; also what check_midi reports.

    Returns:
        the riffs; and what was left out or chosen, in words.

    Raises:
        MidiError: none can be used; with the reason.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MIDI_SUFFIXES:
        if suffix.startswith(".gp"):
            raise MidiError("not MIDI", f"a {suffix} file; cut_riffs.py cuts it into riffs")
        raise MidiError("not MIDI", f"a {suffix or 'nameless'} file; export it as .mid")
    midi = read_midi(path)
    track, choice = choose_track(midi)
    notes = [choice] if choice else []
    windows, left_over = file_riffs(midi, track, tokenizer)
    last = windows[-1][0] + tokenizer.bars - windows[0][0]
    most = max(data.max_bars, tokenizer.bars)
    if data.max_bars and last > most:
        raise MidiError("too long", f"{last} bars, at most {most} (--max-bars): a song, cut it into riffs first")
    if left_over:
        notes.append(left_over)
    riffs, refusals = [], []
    for window in windows:
        try:
            riff = read_riff(
                midi, track, window, tokenizer, shown(Path(Path(path).stem)), low=data.low, high=data.high,
                grid_tolerance=data.grid_tolerance, max_off_grid=data.max_off_grid, min_notes=data.min_notes,
            )  # fmt: skip
            riffs.append(riff)
            if riff.note and riff.note not in notes:
                notes.append(riff.note)
        except MidiError as error:
            refusals.append(error)
    if not riffs:
        raise refusals[0]
    return riffs, notes + [str(error) for error in refusals]


def shown(path: Path) -> str:
    """A file name as printable text; bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace").replace("\n", "?")


def was_generated(path: Path) -> bool:
    """Whether a JSON of generate.py lies beside a file: a model should not learn from what it wrote."""
    record = path.with_suffix(".json")
    try:
        return "sha256" in json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def load_riffs(data: DataConfig, tokenizer: TokenizerConfig, generated: bool = False) -> RiffData:
    """Read a folder: every file ends as used or as refused with a reason. Works from one riff up.

    Args:
        generated: take what generate.py wrote too: to be judged, not to be learnt from. Then nothing is left out as a duplicate,
            and the riffs of generate.py's long file, which are in its parts too, are.

    Raises:
        UserError: no folder, no MIDI file in it, or none that can be used (the reasons are counted in the text).
    """
    files = find_music_files(data.data)
    if not files:
        raise UserError(f"{data.data}: no .mid or .midi file in it or below it; put your riffs there or give another folder")
    rows: list[FileRow] = []
    riffs: list[Riff] = []
    owners: list[FileRow] = []
    seen: dict[bytes, tuple[Path, bytes]] = {}
    for path in files:
        row = FileRow(shown(path.relative_to(data.data)), shown(Path(path.stem.split("_")[0])))
        rows.append(row)
        if generated and path.name == LONG_FILE:
            row.refuse("long file", "its riffs stand in the other files too")
            continue
        if not generated and was_generated(path):
            row.refuse("generated", "generate.py wrote it, says its .json; delete the .json to train on it all the same")
            continue
        try:
            found, notes = read_file_riffs(path, data, tokenizer)
        except MidiError as error:
            row.refuse(error.reason, error.detail)
            continue
        duplicates: list[str] = []
        for riff in found:
            exact, relative = riff.tokens.tobytes(), relative_tokens(riff.tokens[None]).tobytes()
            if relative in seen and not generated:
                first, first_exact = seen[relative]
                kind = "repeats" if first_exact == exact else "repeats, transposed,"
                duplicates.append(f"bar {riff.first_bar} {kind} {shown(first.relative_to(data.data))}")
                continue
            seen[relative] = (path, exact)
            row.riffs += 1
            riffs.append(riff)
            owners.append(row)
        if row.riffs == 0:
            row.refuse("duplicate", duplicates[0])
        else:
            row.detail = "; ".join(notes + duplicates[:1])
            if len(duplicates) > 1:
                row.detail += f" and {len(duplicates) - 1} more of the kind"
    if not riffs:
        counts = ", ".join(f"{n} {reason}" for reason, n in Counter(row.reason for row in rows).most_common())
        first = rows[0]
        raise UserError(f"{data.data}: none of its {len(rows)} MIDI files can be used ({counts}); the first: {first.file}, {first.detail}")
    songs = sorted({row.song for row in owners})
    number = {name: i for i, name in enumerate(songs)}
    song = np.array([number[row.song] for row in owners])
    held_out = split_by_song(songs, np.bincount(song), data.holdout, data.split_seed)[song]
    for row, out in zip(owners, held_out, strict=True):
        row.held_out = bool(out)
    if data.most_riffs:
        kept = held_out | some_songs(songs, song, ~held_out, data.most_riffs, data.split_seed)
        left = Counter(id(row) for row, keep in zip(owners, kept, strict=True) if keep)
        for row in {id(row): row for row in owners}.values():
            row.riffs = left[id(row)]
            if not row.riffs:
                row.refuse("left out by --most-riffs", f"{data.most_riffs} riffs were asked for")
        riffs, owners = ([x for x, keep in zip(some, kept, strict=True) if keep] for some in (riffs, owners))
        song, held_out = song[kept], held_out[kept]
    names = [f"{row.file} bar {riff.first_bar}" for row, riff in zip(owners, riffs, strict=True)]
    return RiffData(data.data, tokenizer, data, rows, riffs, np.stack([riff.tokens for riff in riffs]), song, held_out, songs, names)


def some_songs(songs: Sequence[str], song: np.ndarray, allowed: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Choose at most so many riffs, song by song in the order of a hash of their names: a smaller choice is part of a larger one.

    Args:
        songs: names.
        song: int [riffs], which song each belongs to.
        allowed: bool [riffs], what may be chosen.

    Returns:
        bool [riffs]
    """
    order = sorted(range(len(songs)), key=lambda i: hashlib.sha256(f"{seed}/some/{songs[i]}".encode()).digest())
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    there = np.flatnonzero(allowed)
    ranked = there[np.argsort(rank[song[there]], kind="stable")][:most]
    chosen = np.zeros(len(song), dtype=bool)
    chosen[ranked] = True
    return chosen


def split_by_song(songs: Sequence[str], counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose the songs to hold out: in the order of a hash of their names, until a share of the riffs is reached.

    The order of the others stays the same when a song is added. Songs that would take more than half of all riffs are
    passed over, so a folder with a single song has none held out.

    Args:
        songs: names.
        counts: int [songs], riffs of each.
        share: of the riffs, 0..1.

    Returns:
        bool [songs]
    """
    chosen = np.zeros(len(songs), dtype=bool)
    if share == 0:
        return chosen
    total, held = int(counts.sum()), 0
    goal = max(1.0, share * total)
    for i in sorted(range(len(songs)), key=lambda i: hashlib.sha256(f"{seed}/{songs[i]}".encode()).digest()):
        if held < goal and (held + counts[i]) * 2 <= max(total, 2 * goal):
            chosen[i] = True
            held += int(counts[i])
    if chosen.all():
        chosen[-1] = False
    return chosen


# ---------------------------------------------------------------- saying what was found


def say(text: str, file: TextIO | None = None) -> None:
    """Print text that strangers wrote parts of: control characters, and what the terminal cannot show, become ?."""
    file = file or sys.stdout
    clean = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)
    encoding = file.encoding or "utf-8"
    print(clean.encode(encoding, "replace").decode(encoding), file=file, flush=True)


def plural(count: int, noun: str) -> str:
    """`1 riff`, `2 riffs`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def summary(riff_data: RiffData) -> str:
    """The table in short: what was used, what was refused and why, and what the riffs are like."""
    rows, tokens = riff_data.rows, riff_data.tokens
    used = [row for row in rows if row.riffs]
    train, held = int((~riff_data.held_out).sum()), int(riff_data.held_out.sum())
    held_songs = len(np.unique(riff_data.song[riff_data.held_out]))
    lines = [
        f"data: {riff_data.folder}: {plural(len(rows), 'file')}, {len(used)} used, {len(rows) - len(used)} refused; "
        f"{plural(len(tokens), 'riff')} of {plural(len(np.unique(riff_data.song)), 'song')}",
        f"      {train} to train on, {held} held out ({plural(held_songs, 'song')}); "
        f"rests {rest_ratio(tokens).mean():.0%} of steps, {notes_per_bar(tokens, riff_data.tokenizer).mean():.1f} notes per bar",
    ]
    if not held and riff_data.config.holdout:
        lines.append("      nothing is held out: that takes at least two songs (the part of a file name before _ is its song)")
    lines += refused_lines(rows)
    remarks = [row for row in used if row.detail]
    if remarks:
        lines.append(
            f"      used in part or after a choice: {len(remarks)}: {remarks[0].file} ({remarks[0].detail}){', ...' * (len(remarks) > 1)}"
        )
    return "\n".join(lines)


def refused_lines(rows: Sequence[FileRow]) -> list[str]:
    """Why files were refused, one line for each reason."""
    refused, lines = [row for row in rows if not row.riffs], []
    for reason, count in Counter(row.reason for row in refused).most_common():
        examples = [f"{row.file} ({row.detail})" if row.detail else row.file for row in refused if row.reason == reason]
        lines.append(f"      refused, {reason}: {count}: {', '.join(examples[:3])}{', ...' if count > 3 else ''}")
    return lines


def save_table(rows: Sequence[FileRow], path: str | os.PathLike[str]) -> None:
    """Write the whole table, one line per file, as CSV.

    Raises:
        UserError: there is a file by that name that is no such table.
    """
    head = ["file", "song", "status", "riffs", "reason", "detail"]
    if Path(path).exists() and not Path(path).read_bytes().startswith(",".join(head).encode()):
        raise UserError(f"{path}: is not a table of ours and would be overwritten; move it away, or give another --run-dir")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        status = ("held out" if row.held_out else "train") if row.riffs else "refused"
        writer.writerow([row.file, row.song, status, row.riffs, row.reason, row.detail])
    write_file(path, text.getvalue().encode())


# ---------------------------------------------------------------- examples in order


@dataclass
class ExampleStream:
    """An endless, seeded stream of training examples, each epoch in a new order and with new transpositions.

    What example stands where is a function of (seed, position) alone, so a run that stopped goes on with the very example
    it would have come to, and every process of a group can pick out its own. A batch may be larger than the data.
    """

    low_shift: np.ndarray  # int64 [riffs], <= 0, semitones
    high_shift: np.ndarray  # int64 [riffs], >= 0
    seed: int
    _epochs: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if epoch not in self._epochs:
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch]))
            order = rng.permutation(len(self.low_shift))
            shift = rng.integers(self.low_shift, self.high_shift, endpoint=True)  # by example, whatever its place in the order
            while len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = (order, shift)
        return self._epochs[epoch]

    def batch(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """The examples of one optimizer step.

        Returns:
            index: int64 [batch_size], which riff.
            shift: int64 [batch_size], by how many semitones it is transposed.
        """
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        epochs, places = np.divmod(positions, len(self.low_shift))
        index, shift = np.empty_like(positions), np.empty_like(positions)
        for epoch in np.unique(epochs):
            order, shifts = self._epoch(int(epoch))
            here = epochs == epoch
            index[here] = order[places[here]]
            shift[here] = shifts[index[here]]
        return index, shift


def augmented_batch(riff_data: RiffData, stream: ExampleStream, step: int, batch_size: int) -> np.ndarray:
    """The training riffs of one optimizer step, mixed and transposed: a function of (stream.seed, step).

    Returns:
        int64 [batch_size, steps]
    """
    index, shift = stream.batch(step, batch_size)
    seed = int(np.random.SeedSequence([stream.seed, step, MIX]).generate_state(1, np.uint64)[0])
    mixed = mix_bars(riff_data.train_tokens, riff_data.train_song, index, riff_data.config, riff_data.tokenizer, seed)
    return transpose(mixed, np.clip(shift, *shift_range(mixed, riff_data.config)))


def training_stream(riff_data: RiffData, seed: int) -> ExampleStream:
    """The stream of a folder's training riffs."""
    return ExampleStream(*shift_range(riff_data.train_tokens, riff_data.config), seed)


def main(argv: Sequence[str]) -> int:
    import tyro

    riff_data = load_riffs(tyro.cli(DataConfig, args=list(argv)), TokenizerConfig())
    print(summary(riff_data))
    print("one batch:")
    print(augmented_batch(riff_data, training_stream(riff_data, seed=0), step=0, batch_size=4))
    return 0


if __name__ == "__main__":
    run_script(main)
