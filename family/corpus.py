"""Whole songs -> one token file of all their windows, made once and reused -> what is trained on and what is held out.

A token file is a .npy of steps (see family.windows) that is mapped into memory, with a .json beside it that says what it was made from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from config import GROOVE_SIZE, TRIO_PARTS, DataConfig, SongConfig, TokenizerConfig, UserError
from dataset import (
    FileRow,
    find_music_files,
    plural,
    refused_lines,
    shift_range,
    shown,
    some_songs,
    split_by_song,
    transpose,
    was_generated,
)
from family.windows import STEP_TYPES, read_windows
from files import make_room, write_file
from measures.metrics import first_pitch, notes_per_bar, relative_tokens, rest_ratio
from midi_utils import MidiError
from workers import in_chunks, time_limit

FORMAT = 1
CHUNK = 16  # files handed to a worker at a time
SECONDS_PER_FILE = 60  # beyond it a file is refused
SHIFT = 2  # purpose of random numbers: transpositions
LOOKED_AT = 8 << 20  # bytes of a token file looked at together
MAX_SHOWN = 1024  # training windows that final figures are about
MAX_HELD = 65_536  # held-out windows that stand in memory
NOT_IN_FILE = ("workers", "scheduler", "max_windows")  # of SongConfig: they change no window of a token file
RULES = ("low", "high", "grid_tolerance", "max_off_grid")  # of DataConfig: they do


# ---------------------------------------------------------------- what is trained on


@dataclass(frozen=True)
class WindowData:
    """All windows of some songs, as dataset.RiffData is of riffs. Arrays have one entry per window, in the order of the token file."""

    folder: str
    tokenizer: TokenizerConfig
    config: DataConfig
    songs_config: SongConfig
    rows: list[FileRow]
    tokens: np.ndarray  # [windows, T] and more, mapped from the file
    file_of: np.ndarray  # int64 [windows], which row a window belongs to
    held_out: np.ndarray  # bool [windows]
    known: int  # windows of held-out songs that stand in a training song too: neither trained on nor held out
    used: np.ndarray  # bool [windows], all but those
    record: dict[str, Any]  # the .json of the token file

    @cached_property
    def train_index(self) -> np.ndarray:
        """Which windows are trained on. int64"""
        return np.flatnonzero(self.used & ~self.held_out)

    @cached_property
    def held_out_tokens(self) -> np.ndarray:
        """Held-out windows, or of very many a random choice, in order."""
        return self._some(np.flatnonzero(self.used & self.held_out), MAX_HELD, 0)

    @property
    def shown(self) -> dict[str, np.ndarray]:
        """What final figures are about."""
        return {"train": self.some_train_tokens(MAX_SHOWN, 0), "held out": self.held_out_tokens}

    @property
    def fingerprint(self) -> str:
        """Changes when a window or the split does; a run is resumed, and its diffusion trained, on the same data only."""
        digest = hashlib.sha256(self.record["fingerprint"].encode())
        digest.update(self.held_out.tobytes() + self.used.tobytes())
        return digest.hexdigest()[:16]

    def some_train_tokens(self, most: int, seed: int) -> np.ndarray:
        """Training windows, or of many a random choice, in order."""
        return self._some(self.train_index, most, seed)

    def _some(self, index: np.ndarray, most: int, seed: int) -> np.ndarray:
        if len(index) > most:
            index = np.sort(np.random.default_rng(seed).choice(index, most, replace=False))
        return self.tokens[index]

    def name_of(self, place: int) -> str:
        """File and bar of a window. place: in tokens"""
        row = self.record["files"][int(self.file_of[place])]
        first = int(np.searchsorted(self.file_of, self.file_of[place]))
        return f"{row['file']} bar {row['bars'][place - first]}"

    def batch(self, index: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Training windows, transposed at random inside the range of the config; a function of (index, seed).

        Args:
            index: int64 [B], places in train_index.

        Returns:
            int64 or float32 [B, T] and more
        """
        steps = self.tokens[self.train_index[index]]
        if self.tokenizer.representation == "groove":
            return np.asarray(steps)
        steps = steps.astype(np.int64)
        if not self.config.transpose or self.tokenizer.representation == "drums":
            return steps
        return transposed(steps, self.config, self.uniform(len(steps), seed))

    def uniform(self, count: int, seed: Sequence[int]) -> np.ndarray:
        """What a batch is transposed by: float64 [B] in 0..1, a function of the seed."""
        return np.random.default_rng(np.random.SeedSequence([*seed, SHIFT])).random(count)

    def defaults(self) -> dict[str, Any]:
        """What generated music inherits: the median tempo and the commonest programs of the training songs, by windows."""
        files = self.record["files"]
        windows = np.bincount(self.file_of[self.train_index], minlength=len(files))
        bpm = np.repeat([row["bpm"] for row in files], windows)
        programs: Counter[tuple[int, ...]] = Counter()
        for row in (row for row, count in zip(files, windows, strict=True) if count):
            for name, count in row["programs"].items():
                programs[tuple(map(int, name.split()))] += count
        common = min(programs, key=lambda key: (-programs[key], key)) if programs else ()
        return {"bpm": round(float(np.median(bpm)), 3), "programs": list(common)}


def shift_bounds(steps: np.ndarray, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """By how many semitones windows may be shifted, all lines of one alike, so that none leaves the range.

    Args:
        steps: int [B, T] or [B, T, 3]

    Returns:
        lowest and highest shift, each int64 [B]
    """
    lines = [steps] if steps.ndim == 2 else [steps[..., 0], steps[..., 1]]
    low, high = (np.stack(bounds) for bounds in zip(*(shift_range(line, config) for line in lines), strict=True))
    return low.max(axis=0), high.min(axis=0)


def drawn_shift(least: np.ndarray, most: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A shift for each window, all within its bounds equally likely. least, most: int64 [B]; uniform: [B] in 0..1 (not 1) -> int64 [B]"""
    return np.floor(least + uniform * (most - least + 1)).astype(np.int64)


def transposed(steps: np.ndarray, config: DataConfig, uniform: np.ndarray) -> np.ndarray:
    """Shift the lines of windows by up to config.transpose semitones. steps: int64 [B, T] or [B, T, 3]; uniform: [B] in 0..1 (not 1)"""
    shift = drawn_shift(*shift_bounds(steps, config), uniform)
    if steps.ndim == 2:
        return transpose(steps, shift)
    return np.stack([*(transpose(steps[..., line], shift) for line in (0, 1)), steps[..., 2]], axis=-1)


# ---------------------------------------------------------------- folder -> token file


def find_songs(data: DataConfig, songs: SongConfig) -> list[Path]:
    """The music files of a folder, by the filters of the config.

    Raises:
        UserError: no folder, or no file is left.
    """
    files = find_music_files(data.data)
    if not songs.recursive:
        files = [path for path in files if path.parent == Path(data.data)]
    found = [path for path in files if named_right(path.stem, songs)]
    if not found:
        why = f"none of its {plural(len(files), 'file')} is named as asked" if files else "no .mid or .midi file in it"
        hint = "; Groove files are named <number>_<genre>_<bpm>_<beat or fill>_<meter>.mid" if files else " or below it" * songs.recursive
        raise UserError(f"{data.data}: {why}{hint}")
    return found


def named_right(stem: str, songs: SongConfig) -> bool:
    """Whether a Groove file name, such as 12_rock-folk_90_beat_4-4, is of the genre, kind and time signature asked for."""
    if not (songs.genre or songs.beat_type or songs.meter):
        return True
    parts = stem.lower().split("_")
    if len(parts) != 5:
        return False
    genres = {parts[1], *parts[1].split("-")}
    wanted = ((songs.genre.lower(), genres), (songs.beat_type, {parts[3]}), (songs.meter.replace("/", "-"), {parts[4]}))
    return all(not asked or asked in there for asked, there in wanted)


def song_name(relative: str, pattern: str) -> str:
    """Which song a file belongs to. relative: its path in the folder, without suffix; pattern: see SongConfig.song_pattern"""
    match = re.search(pattern, relative) if pattern else None
    return match.group(1) if match and match.group(1) else relative


def read_chunk(paths: Sequence[str], data: DataConfig, songs: SongConfig, tokenizer: TokenizerConfig) -> list[dict[str, Any]]:
    """The windows of some files, in plain types: what a worker is asked for."""
    found = []
    for path in paths:
        facts: dict[str, Any] = {"steps": b"", "windows": 0, "reason": "", "detail": "", "bpm": 0.0, "programs": {}, "bars": []}
        if was_generated(Path(path)):
            detail = "generate.py wrote it, says its .json; delete the .json to train on it all the same"
            found.append(facts | {"reason": "generated", "detail": detail})
            continue
        try:
            with time_limit(SECONDS_PER_FILE):
                windows, left = read_windows(path, songs, data, tokenizer)
        except MidiError as error:
            found.append(facts | {"reason": error.reason, "detail": error.detail})
            continue
        programs = Counter(" ".join(map(str, window.programs)) for window in windows if window.programs)
        found.append(
            facts
            | {
                "steps": b"".join(window.steps.tobytes() for window in windows),
                "windows": len(windows),
                "detail": ", ".join(f"{count} {'window' if count == 1 else 'windows'} {reason}" for reason, count in left.most_common()),
                "bpm": round(float(np.median([window.bpm for window in windows])), 3),
                "programs": dict(programs.most_common()),
                "bars": [window.first_bar for window in windows],
            }
        )
    return found


def step_shape(tokenizer: TokenizerConfig) -> tuple[int, ...]:
    """Shape of one window."""
    return (tokenizer.steps, *{"groove": (GROOVE_SIZE,), "trio": (len(TRIO_PARTS),)}.get(tokenizer.representation, ()))


def make_token_file(path: Path, data: DataConfig, songs: SongConfig, tokenizer: TokenizerConfig) -> dict[str, Any]:
    """Cut a folder of songs into a token file. Works file by file: only the windows of a few stand in memory.

    Returns:
        its record, which is written beside it.

    Raises:
        UserError: nothing in the folder can be used (the reasons are counted in the text).
    """
    files = find_songs(data, songs)
    origin = made_from(files, data, songs, tokenizer)
    make_room(path.parent)
    work = partial(read_chunk, data=data, songs=songs, tokenizer=tokenizer)
    part = path.with_suffix(".part")
    digest, rows = hashlib.sha256(), []
    try:
        with part.open("wb") as out:
            for name, facts in zip(files, in_chunks(work, [str(f) for f in files], CHUNK, songs.workers, songs.scheduler), strict=True):
                steps = facts.pop("steps")
                out.write(steps)
                digest.update(steps)
                relative = name.relative_to(data.data)
                song = song_name(shown(relative.with_suffix("")), songs.song_pattern)
                rows.append({"file": shown(relative), "song": song, **facts})
        if not any(row["windows"] for row in rows):
            counts = ", ".join(f"{n} {reason}" for reason, n in Counter(row["reason"] for row in rows).most_common())
            first = f"the first: {rows[0]['file']}, {rows[0]['detail']}"
            raise UserError(f"{data.data}: none of its {len(rows)} files can be used ({counts}); {first}")
        origins = {"made_from": origin, "fingerprint": digest.hexdigest()[:16]}
        return write_token_file(path, part, rows, origins, data, songs, tokenizer)
    finally:
        part.unlink(missing_ok=True)


def write_token_file(
    path: Path,
    steps: Path,
    rows: Sequence[Mapping[str, Any]],
    origins: Mapping[str, str],
    data: DataConfig,
    songs: SongConfig,
    tokenizer: TokenizerConfig,
) -> dict[str, Any]:
    """Make a token file, and its record, of windows that were cut.

    Args:
        steps: a file of the windows' bytes alone.
        rows: of each file that was cut: file, song, windows, and the facts of read_chunk.
        origins: made_from and fingerprint.

    Returns:
        the record.
    """
    total, whole = sum(row["windows"] for row in rows), path.with_suffix(".npy.part")
    kind, shape = np.dtype(STEP_TYPES[tokenizer.representation]).str, (total, *step_shape(tokenizer))
    record = {
        "format": FORMAT,
        "folder": data.data,
        "tokenizer": dataclasses.asdict(tokenizer),
        "songs": {name: value for name, value in dataclasses.asdict(songs).items() if name not in NOT_IN_FILE},
        "rules": {name: getattr(data, name) for name in RULES},
        "windows": total,
        **origins,
        "files": list(rows),
    }
    try:
        with whole.open("wb") as out, steps.open("rb") as cut:
            np.lib.format.write_array_header_2_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
            shutil.copyfileobj(cut, out, 1 << 20)
        write_file(path.with_suffix(".json"), json.dumps(record).encode())
        os.replace(whole, path)
    finally:
        whole.unlink(missing_ok=True)
    return record


def made_from(files: Sequence[Path], data: DataConfig, songs: SongConfig, tokenizer: TokenizerConfig) -> str:
    """A fingerprint of all that a token file depends on: files, as far as their names, sizes and dates tell, and options."""
    rules = {name: getattr(data, name) for name in RULES}
    options = {name: value for name, value in dataclasses.asdict(songs).items() if name not in NOT_IN_FILE}
    shape = {name: value for name, value in dataclasses.asdict(tokenizer).items() if name != "given"}
    return hashlib.sha256(json.dumps([FORMAT, rules, options, shape, [seen(path, data.data) for path in files]]).encode()).hexdigest()[:16]


def seen(path: Path, folder: str) -> list[Any]:
    """What tells whether a file is still the same: name, size and date; the name alone of a link to nothing."""
    name = shown(path.relative_to(folder))
    try:
        facts = path.stat()
    except OSError:
        return [name]
    return [name, facts.st_size, facts.st_mtime_ns]


# ---------------------------------------------------------------- token file -> data


def load_windows(
    data: DataConfig, songs: SongConfig, tokenizer: TokenizerConfig, path: Path, may_change: bool = True
) -> WindowData:  # fmt: skip
    """The windows of a folder of songs, or of a token file that was made before.

    Args:
        data: names a folder, or a token file (.npy); a token file was read by its own rules, those given here do not count.
        path: where the token file of a folder is kept; it is made if it is not there, or was made from something else.
        may_change: whether a token file that is there may be replaced by one with other windows; a run that goes on needs its own.

    Raises:
        UserError: nothing to use, a token file of another kind, or other windows.
    """
    if data.data.endswith(".npy"):
        path = Path(data.data)
        record = read_record(path)
    else:
        record = read_record(path) if path.exists() else None
        if record is None or record["made_from"] != made_from(find_songs(data, songs), data, songs, tokenizer):
            aside = path.with_name(f"{path.stem}-new.npy")
            made = make_token_file(aside, data, songs, tokenizer)
            if record is not None and not may_change and made["fingerprint"] != record["fingerprint"]:
                for file in (aside, aside.with_suffix(".json")):
                    file.unlink()
                ours = {**made["songs"], **made["rules"], "data": data.data}
                theirs = {**record["songs"], **record["rules"], "data": record["folder"]}
                changes = ", ".join(f"{name} {theirs.get(name)} -> {value}" for name, value in ours.items() if theirs.get(name) != value)
                raise UserError(
                    f"{path}: this run began with other windows ({changes or 'the songs changed'}); give the old options, "
                    "another --run-dir, or --restart to begin anew"
                )
            for ending in (".json", ".npy"):
                os.replace(aside.with_suffix(ending), path.with_suffix(ending))
            record = made
    ours, theirs = ({**config, "given": "all"} for config in (dataclasses.asdict(tokenizer), record["tokenizer"]))
    if ours != theirs:
        different = ", ".join(f"{name} {theirs.get(name)} -> {value}" for name, value in ours.items() if theirs.get(name) != value)
        raise UserError(f"{path}: holds other tokens ({different}); use the preset it was made with, or give the folder of songs")
    tokens = np.load(path, mmap_mode="r")
    kept = {name: getattr(songs, name) for name in NOT_IN_FILE}
    return split_windows(dataclasses.replace(data, **record["rules"]), SongConfig(**record["songs"], **kept), tokenizer, tokens, record)


def read_record(path: Path) -> dict[str, Any]:
    """The .json of a token file.

    Raises:
        UserError: missing, damaged or not ours.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        shape = np.load(path, mmap_mode="r").shape
        if record["format"] != FORMAT or shape[0] != record["windows"] or not {"folder", "songs", "rules"} <= set(record):
            raise ValueError
        return record
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: is no token file of ours, or its .json is missing or of another version; move it away to make it anew"
        ) from None


def split_windows(
    data: DataConfig, songs: SongConfig, tokenizer: TokenizerConfig, tokens: np.ndarray, record: dict[str, Any]
) -> WindowData:  # fmt: skip
    """Hold out whole songs, and of them leave out what stands in a training song too, transposed or not."""
    files = record["files"]
    file_of = np.repeat(np.arange(len(files)), [row["windows"] for row in files])
    names = sorted({row["song"] for row in files if row["windows"]})
    place = {name: i for i, name in enumerate(names)}
    song = np.array([place.get(row["song"], -1) for row in files])[file_of]
    held_songs = split_by_song(names, np.bincount(song), data.holdout, data.split_seed)
    held_out = held_songs[song]
    used = np.ones(len(tokens), dtype=bool)
    if songs.max_windows and songs.max_windows < len(tokens):
        train = round(songs.max_windows * (1 - held_out.mean()))
        used = some_songs(names, song, ~held_out, train, data.split_seed)
        if held_out.any():
            used |= some_songs(names, song, held_out, songs.max_windows - train, data.split_seed)
    if data.most_riffs:
        used &= held_out | some_songs(names, song, ~held_out & used, data.most_riffs, data.split_seed)
    known = known_windows(tokens, np.flatnonzero(used & ~held_out), np.flatnonzero(used & held_out), tokenizer)
    chosen = np.bincount(file_of[used], minlength=len(files))
    used[known] = False
    left = np.bincount(file_of[used], minlength=len(files))
    rows = []
    for i, row in enumerate(files):
        there = FileRow(row["file"], row["song"], int(left[i]), row["reason"], row["detail"])
        there.held_out = bool(row["windows"] and held_songs[place[row["song"]]])
        if row["windows"] and not chosen[i]:
            flag = "--max-windows" if songs.max_windows else "--most-riffs"
            there.refuse(f"left out by {flag}", f"{songs.max_windows or data.most_riffs} windows were asked for")
        elif row["windows"] and not left[i]:
            there.refuse("known", "of a held-out song, and all its windows stand in training songs too")
        rows.append(there)
    return WindowData(data.data, tokenizer, data, songs, rows, tokens, file_of, held_out, len(known), used, record)


def in_any_key(steps: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Windows as they are the same in any key. steps: [windows, T] and more"""
    if tokenizer.representation == "mono":
        return relative_tokens(steps.astype(np.int64))
    if tokenizer.representation == "trio":
        melody, bass, drums = (steps[..., i].astype(np.int64) for i in range(3))
        first = first_pitch(melody)
        return np.stack([relative_tokens(melody, first), relative_tokens(bass, first), drums], axis=-1)
    return np.ascontiguousarray(steps)


def known_windows(tokens: np.ndarray, train: np.ndarray, held: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Which held-out windows stand among the training windows, in any key. train, held: places in tokens -> int64, some of held"""
    if not len(held):
        return held

    def keys(index: np.ndarray) -> Iterator[np.ndarray]:
        rows = max(1, LOOKED_AT // tokens[:1].nbytes)
        for at in range(0, len(index), rows):
            yield row_keys(in_any_key(tokens[index[at : at + rows]], tokenizer))

    keys_held = np.concatenate(list(keys(held)))
    wanted = np.unique(keys_held)
    there = np.zeros(len(wanted), dtype=bool)
    for some in keys(train):
        place = np.minimum(np.searchsorted(wanted, some), len(wanted) - 1)
        there[place[wanted[place] == some]] = True
    return held[there[np.searchsorted(wanted, keys_held)]]


def row_keys(rows: np.ndarray) -> np.ndarray:
    """A number for each row, the same for equal rows, and for two others with a chance of 2 ** -64. rows: [n, ...] -> uint64 [n]"""
    flat = rows.reshape(len(rows), -1)
    words = flat.view(np.uint32) if flat.dtype == np.float32 else flat
    factors = np.random.default_rng(0).integers(2**64, size=words.shape[1], dtype=np.uint64) | np.uint64(1)
    return (_mixed(words.astype(np.uint64)) * factors).sum(axis=1, dtype=np.uint64)


def _mixed(words: np.ndarray) -> np.ndarray:
    """Each number spread over all 64 bits (the end of splitmix64, Steele et al. 2014), so that sums of products meet by chance alone."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


# ---------------------------------------------------------------- saying what was found


def summary(windows: WindowData) -> str:
    """The table in short: what was used, what was refused and why, and what the windows are like."""
    rows = windows.rows
    used = [row for row in rows if row.riffs]
    held = int((windows.used & windows.held_out).sum())
    held_songs = len({row.song for row in used if row.held_out})
    lines = [
        f"data: {windows.folder}: {plural(len(rows), 'file')}, {len(used)} used, {len(rows) - len(used)} refused; "
        f"{plural(len(windows.tokens), 'window')} of {plural(windows.tokenizer.bars, 'bar')}",
        f"      {len(windows.train_index)} to train on, {held} held out ({plural(held_songs, 'song')}); "
        f"{windows.known} of held-out songs left out that stand in training songs too",
    ]
    some = windows.some_train_tokens(4096, 0)
    if windows.tokenizer.representation == "mono":
        lines[-1] += f"; rests {rest_ratio(some).mean():.0%} of steps, {notes_per_bar(some, windows.tokenizer).mean():.1f} notes per bar"
    return "\n".join([*lines, *refused_lines(rows)])
