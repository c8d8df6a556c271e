"""Cut riffs out of whole songs: MIDI and Guitar Pro files in, a folder of two-bar riffs out, ready to train on.

python cut_riffs.py SONGS --output-dir my_riffs     songs: files and folders
python cut_riffs.py SONG.gp5 --list                 its parts and sections, and what would be cut
python cut_riffs.py SONGS --section chorus --track "lead" --output-dir choruses

Of each song the guitars are cut, in the sections asked for (verses), on bar lines. Without markers the bars that repeat most are
taken, and it is said to be a guess. Writes <song>_<section>_<part>_bar<number>.mid and cut_riffs.json, which says what became of each song.
Exit status: 0 every song gave riffs (or were listed), 1 some gave none (named), 2 could not start.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from config import CutConfig, DataConfig, TokenizerConfig, UserError, run_script
from dataset import plural, say, shown
from files import make_room, require_ours, sha256, write_file
from guitar.songs import CUT_MARK, SONG_SUFFIXES, cut_song, describe_song, read_song, song_riffs
from midi_utils import MidiError
from workers import in_chunks, time_limit

RECORD = "cut_riffs.json"
SECONDS_PER_SONG = 20  # beyond it a file is refused
NO_SETTINGS = ("paths", "output_dir", "workers", "scheduler", "list", "dry_run")  # of the record: they change no riff
CHUNK = 16  # songs handed to a worker at a time


@dataclass(frozen=True)
class CutRiffs:
    """Cut two-bar riffs out of whole songs (MIDI, Guitar Pro)."""

    paths: tyro.conf.Positional[tuple[str, ...]] = ()  # song files, and folders of them
    output_dir: str = ""  # where the riffs go
    cut: CutConfig = field(default_factory=CutConfig)
    bars: int = TokenizerConfig.bars  # length of a riff in bars of 4/4
    steps_per_beat: int = TokenizerConfig.steps_per_beat  # grid: 4 steps per quarter note are sixteenths
    policy: Literal["lowest", "highest", "reject"] = TokenizerConfig.policy  # which note of a chord is kept; reject refuses chords
    min_notes: int = 2  # a riff with fewer note onsets is left out
    low: int = DataConfig.low  # lowest MIDI pitch accepted
    high: int = DataConfig.high  # highest MIDI pitch accepted
    grid_tolerance: float = DataConfig.grid_tolerance  # an onset further than this from its step is off the grid, in steps (0 to 0.5)
    max_off_grid: float = DataConfig.max_off_grid  # share of off-grid onsets (triplets, loose playing) above which a riff is left out
    list: bool = False  # show the parts and sections of each song, and what would be cut
    dry_run: bool = False  # say what would be cut, and write nothing
    workers: int = 0  # processes; 0: as many as there are cores
    scheduler: str = ""  # address of a Dask scheduler (tcp://...), to cut on many machines

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= 256:
            raise UserError(f"--workers {self.workers}: give 0 (all cores) to 256")

    def rules(self) -> tuple[DataConfig, TokenizerConfig]:
        names = ("min_notes", "low", "high", "grid_tolerance", "max_off_grid")
        data = DataConfig(**{name: getattr(self, name) for name in names})
        return data, TokenizerConfig(bars=self.bars, steps_per_beat=self.steps_per_beat, policy=self.policy)


# ---------------------------------------------------------------- one song, in a worker


def cut_file(path: str, options: CutRiffs) -> dict[str, Any]:
    """All about one song, in plain types: its riffs (name, bytes of the MIDI file, facts), what was left out, or why it gave none."""
    data, tokenizer = options.rules()
    song: dict[str, Any] = {
        "song": shown(Path(path)),
        "reason": None,
        "detail": None,
        "guessed": False,
        "left_out": {},
        "riffs": [],
        "duplicates": 0,
    }
    try:
        with time_limit(SECONDS_PER_SONG):
            midi = read_song(Path(path))
            if options.list:
                song["lines"] = describe_song(midi, options.cut)
            parts = cut_song(midi, options.cut, data, tokenizer)
            song["riffs"], song["duplicates"] = song_riffs(path, midi, parts, tokenizer)
    except MidiError as error:
        return song | {"reason": error.reason, "detail": error.detail}
    refused = [refusal for part in parts for refusal in part.refused]
    song["guessed"] = any(section.guessed for part in parts for section in part.sections)
    song["left_out"] = dict(Counter(reason for reason, _ in refused).most_common())
    song["left_out_details"] = [f"{reason}: {detail}" for reason, detail in refused if reason != "no notes"][:50]
    return song


def cut_chunk(paths: Sequence[str], options: CutRiffs) -> list[dict[str, Any]]:
    """Some songs, in order: what a worker is asked for."""
    return [cut_file(path, options) for path in paths]


# ---------------------------------------------------------------- many songs


def cut_before(record: Path) -> dict[str, str]:
    """The files that a cut_riffs.json names as its own, with their fingerprints; none if it is not ours."""
    try:
        return {str(name): str(digest) for name, digest in json.loads(record.read_text(encoding="utf-8"))["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def find_songs(paths: Sequence[str]) -> list[Path]:
    """The song files, each once, sorted within each folder; without what cut_riffs.py wrote there.

    Raises:
        UserError: a path that does not exist, or nothing to cut.
    """
    if not paths:
        raise UserError("name the songs to cut: files (.mid, .gp3, .gp4, .gp5, .gpx, .gp) or folders")
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; name songs, or folders of songs")
        if not path.is_dir():
            found.append(path)
            continue
        ours = {record.parent / name for record in path.rglob(RECORD) for name in cut_before(record)}
        found += sorted(file for file in path.rglob("*") if file.suffix.lower() in SONG_SUFFIXES and file.is_file() and file not in ours)
    if not found:
        raise UserError(f"{paths[0]}: no song in it or below it ({', '.join(SONG_SUFFIXES)})")
    return list(dict.fromkeys(found))


def cut_all(songs: Sequence[Path], options: CutRiffs) -> Iterator[dict[str, Any]]:
    """Every song in the order given, whoever cuts it."""
    work = partial(cut_chunk, options=options)
    return in_chunks(work, [str(path) for path in songs], CHUNK, options.workers, options.scheduler)


def drop_duplicates(songs: Sequence[dict[str, Any]]) -> int:
    """Leave out riffs that repeat one of an earlier song. -> how many repeat one, in all songs"""
    seen: set[bytes] = set()
    for song in songs:
        kept = [riff for riff in song["riffs"] if riff["print"] not in seen]
        song["duplicates"] += len(song["riffs"]) - len(kept)
        seen |= {riff["print"] for riff in kept}
        song["riffs"] = kept
    return sum(song["duplicates"] for song in songs)


def name_apart(songs: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> None:
    """Number the riffs of songs that share a file name, also with songs that were cut into the folder before."""
    owner = {riff["name"]: song["song"] for song in before for riff in song["riffs"]}
    for song in songs:
        for riff in song["riffs"]:
            name, number = riff["name"], 1
            while owner.setdefault(riff["name"], song["song"]) != song["song"]:
                number += 1
                riff["name"] = f"{name}-{number}"


def write_riffs(folder: Path, songs: Sequence[dict[str, Any]], options: CutRiffs) -> int:
    """Write the riffs and the record. Riffs of one name that an earlier cut wrote here, and nobody edited, are replaced; others stay.

    Returns:
        how many of an earlier cut stay.

    Raises:
        UserError: a file would be overwritten that is not, or no longer, ours.
    """
    record = folder / RECORD
    ours = cut_before(record)
    if record.exists() and not ours:
        raise UserError(f"{record}: was not written by cut_riffs.py; move it away, or give another --output-dir")
    before = json.loads(record.read_text(encoding="utf-8"))["songs"] if ours else []
    name_apart(songs, before)
    files = {folder / f"{riff['name']}.mid": riff["midi"] for song in songs for riff in song["riffs"]}
    for path, content in files.items():
        if not path.exists() or path.read_bytes() != content:
            require_ours(path, ours.get(path.name), "cut_riffs.py")
    stay = {name: digest for name, digest in ours.items() if folder / name not in files and (folder / name).is_file()}
    for path, content in files.items():
        write_file(path, content)
    settings = {k: v for k, v in dataclasses.asdict(options).items() if k not in NO_SETTINGS}
    told = [
        {**song, "settings": settings, "riffs": [{k: v for k, v in riff.items() if k not in ("midi", "print")} for riff in song["riffs"]]}
        for song in songs
    ]
    for song in before:  # what stays of earlier cuts is still told of
        riffs = [riff for riff in song["riffs"] if f"{riff['name']}.mid" in stay]
        if riffs or song["song"] not in {song["song"] for song in told}:
            told.append({**song, "riffs": riffs})
    content = {
        "songs": told,
        "files": {**stay, **{path.name: sha256(content) for path, content in files.items()}},
    }
    write_file(record, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    return len(stay)


def report(songs: Sequence[dict[str, Any]], dropped: int) -> str:
    """What became of the songs, in a few lines."""
    riffs = sum(len(song["riffs"]) for song in songs)
    used = [song for song in songs if song["reason"] is None]
    lines = [f"{plural(len(songs), 'song')}: {len(used)} cut, {len(songs) - len(used)} refused; {plural(riffs, 'riff')}"]
    lines[0] += f", {dropped} more were repeats of them" * (dropped > 0)
    guessed = sum(song["guessed"] for song in used)
    if guessed:
        lines.append(f"  guessed: {plural(guessed, 'song')} without markers; what repeats most was taken")
    left: Counter[str] = Counter()
    for song in used:
        left.update(song["left_out"])
    if left:
        lines.append("  left out of those, two bars at a time: " + ", ".join(f"{number} {reason}" for reason, number in left.most_common()))
    for reason, number in Counter(song["reason"] for song in songs if song["reason"]).most_common():
        first = next(song for song in songs if song["reason"] == reason)
        lines.append(f"  refused, {reason}: {number}, such as {Path(first['song']).name} ({first['detail']})")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    options = tyro.cli(CutRiffs, args=argv, config=(tyro.conf.OmitArgPrefixes,), description=(__doc__ or "").strip())
    options.rules()
    paths = find_songs(options.paths)
    if not (options.output_dir or options.list or options.dry_run):
        raise UserError("--output-dir: give the folder that the riffs go to; or --list, or --dry-run")
    output = Path(options.output_dir) if options.output_dir and not (options.list or options.dry_run) else None
    if output is not None:
        if output.exists() and not output.is_dir():
            raise UserError(f"--output-dir {output}: is a file; give a folder")
        make_room(output)
    songs = []
    for song in cut_all(paths, options):
        songs.append(song)
        if options.list:
            say("\n".join(listed(song)))
    dropped = drop_duplicates(songs)
    if options.dry_run:
        name_apart(songs, [])
        for song in songs:
            for riff in song["riffs"]:
                say(f"{riff['name']}.mid")
    say(report(songs, dropped))
    if output is not None and any(song["riffs"] for song in songs):
        stay = write_riffs(output, songs, options)
        print(f"{output}: the riffs, and {RECORD}: where each comes from and what was left out")
        if stay:
            print(f"{output}: {plural(stay, 'riff')} of earlier cuts lie there too")
    if options.list:
        return 0
    refused = [Path(song["song"]).name for song in songs if song["reason"]]
    if refused:
        some = ", ".join(refused[:3]) + ", ..." * (len(refused) > 3)
        say(f"cut_riffs.py: {len(refused)} of {len(songs)} gave no riffs (--list shows what is in them): {some}", sys.stderr)
    return 1 if refused else 0


def listed(song: dict[str, Any]) -> list[str]:
    """What --list says of one song."""
    if song["reason"] is not None:
        lines = [line.removesuffix(CUT_MARK) for line in song.pop("lines", [])]  # nothing of it is cut
        return [f"{song['song']}: refused, {song['reason']}: {song['detail']}", *lines]
    repeats = f", {song['duplicates']} more are repeats of them" * (song["duplicates"] > 0)
    return [f"{song['song']}: {plural(len(song['riffs']), 'riff')}{repeats}", *song.pop("lines", [])]


if __name__ == "__main__":
    run_script(main)
