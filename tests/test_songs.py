"""Whole songs: Guitar Pro in all its formats, repeats, sections by name and by what repeats, guitar parts, and cutting."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import guitarpro
import numpy as np
import pytest
from conftest import midi_track
from guitarpro.models import (
    Beat,
    BeatStatus,
    Duration,
    Marker,
    Measure,
    MeasureHeader,
    MixTableChange,
    MixTableItem,
    Note,
    NoteType,
    Song,
    Track,
)

from config import CutConfig, DataConfig, TokenizerConfig
from guitar import gpif
from guitar.scores import WrittenBar, unfold
from guitar.sections import ends_section, marked_sections, repeated_sections, section_kind, wanted
from guitar.songs import cut_song, is_guitar, read_song
from midi_utils import MidiError, MidiTrack, bars, decoded

TWO_BARS, RULES = TokenizerConfig(), DataConfig(min_notes=2)
RIFFS = {
    "a": [40, 40, 43, 45, 40, 40, 46, 45],
    "b": [45, 45, 48, 50, 45, 43, 41, 40],
    "c": [52, 50, 48, 47, 45, 43, 41, 40],
}  # eighths of a bar
FORM = ["a", "b", "a", "b", "c", "c", "a", "b"]  # bars
MARKERS = {0: "Verse 1", 4: "Chorus", 6: "Verse 2"}


# ---------------------------------------------------------------- one song in every format


def midi_song(write: Callable[..., Path], name: str = "song.mid", markers: dict[int, str] = MARKERS, **more: object) -> Path:
    notes = [(4 * bar + i / 2, 0.5, pitch) for bar, letter in enumerate(FORM) for i, pitch in enumerate(RIFFS[letter])]
    ticks = tuple((4.0 * bar, text) for bar, text in markers.items())
    return write(name, [midi_track(notes, program=30, name="Rhythm Guitar")], tempos=((0, 120),), markers=ticks, **more)


def gp_song(markers: dict[int, str] = MARKERS) -> Song:
    """The same through PyGuitarPro, fingered on a guitar in standard tuning."""
    song = Song(tempo=120)
    song.measureHeaders = [MeasureHeader(number=i + 1, start=960 + 3840 * i) for i in range(len(FORM))]
    for bar, text in markers.items():
        song.measureHeaders[bar].marker = Marker(title=text)
    track = Track(song, name="Rhythm Guitar")
    track.channel.instrument = 30
    track.measures = [Measure(track, header) for header in song.measureHeaders]
    song.tracks = [track]
    for measure, letter in zip(track.measures, FORM, strict=True):
        for pitch in RIFFS[letter]:
            beat = Beat(measure.voices[0], duration=Duration(value=8), status=BeatStatus.normal)
            string = next(s for s in track.strings if 0 <= pitch - s.value <= 24)
            beat.notes.append(Note(beat, value=pitch - string.value, string=string.number, type=NoteType.normal))
            measure.voices[0].beats.append(beat)
    return song


def gp_bytes(song: Song, version: tuple[int, int, int] = (5, 1, 0)) -> bytes:
    buffer = io.BytesIO()
    guitarpro.write(song, buffer, version=version)
    return buffer.getvalue()


def gpif_text(markers: dict[int, str] = MARKERS, staves: bool = True) -> bytes:
    """The same as the XML of Guitar Pro 6 to 8."""
    strings = [40, 45, 50, 55, 59, 64]
    tuning = f'<Properties><Property name="Tuning"><Pitches>{" ".join(map(str, strings))}</Pitches></Property></Properties>'
    inner = f"<Staves><Staff>{tuning}</Staff></Staves><Sounds><Sound><MIDI><Program>30</Program></MIDI></Sound></Sounds>"
    if not staves:
        inner = f'{tuning}<GeneralMidi table="Instrument"><Program>30</Program></GeneralMidi>'
    masters, beats, notes = [], [], []
    for bar, letter in enumerate(FORM):
        section = f"<Section><Letter/><Text><![CDATA[{markers[bar]}]]></Text></Section>" if bar in markers else ""
        masters.append(f"<MasterBar><Time>4/4</Time><Bars>{bar}</Bars>{section}</MasterBar>")
        for pitch in RIFFS[letter]:
            string = next(i for i in range(6) if 0 <= pitch - strings[i] <= 24)
            pair = [("String", "String", string), ("Fret", "Fret", pitch - strings[string])]
            inside = "".join(f'<Property name="{name}"><{tag}>{value}</{tag}></Property>' for name, tag, value in pair)
            beats.append(f'<Beat id="{len(notes)}"><Rhythm ref="0"/><Notes>{len(notes)}</Notes></Beat>')
            notes.append(f'<Note id="{len(notes)}"><Properties>{inside}</Properties></Note>')
    ids = range(len(FORM))
    tempo = "<Automation><Type>Tempo</Type><Bar>0</Bar><Position>0</Position><Value>120 2</Value></Automation>"
    return f"""<?xml version="1.0" encoding="utf-8"?><GPIF>
    <MasterTrack><Automations>{tempo}</Automations></MasterTrack>
    <Tracks><Track id="0"><Name><![CDATA[Rhythm Guitar]]></Name>{inner}</Track></Tracks>
    <MasterBars>{"".join(masters)}</MasterBars>
    <Bars>{"".join(f'<Bar id="{i}"><Voices>{i} -1 -1 -1</Voices></Bar>' for i in ids)}</Bars>
    <Voices>{"".join(f'<Voice id="{i}"><Beats>{" ".join(map(str, range(8 * i, 8 * i + 8)))}</Beats></Voice>' for i in ids)}</Voices>
    <Beats>{"".join(beats)}</Beats><Notes>{"".join(notes)}</Notes>
    <Rhythms><Rhythm id="0"><NoteValue>Eighth</NoteValue></Rhythm></Rhythms></GPIF>""".encode()


def zipped(text: bytes, name: str = "Content/score.gpif") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("VERSION", "7.0")
        archive.writestr(name, text)
    return buffer.getvalue()


def bcfs(text: bytes) -> bytes:
    """A file system of one file, as .gpx holds it: sector 1 is the entry, the text begins in sector 2."""
    count = -(-len(text) // 4096)
    entry = bytearray(4096)
    entry[0:4] = (2).to_bytes(4, "little")
    entry[4 : 4 + len(b"score.gpif")] = b"score.gpif"
    entry[0x8C:0x90] = len(text).to_bytes(4, "little")
    for i in range(count):
        entry[0x94 + 4 * i : 0x98 + 4 * i] = (2 + i).to_bytes(4, "little")
    return b"BCFS" + bytes(4096) + bytes(entry) + text.ljust(4096 * count, b"\0")


def bcfz(data: bytes, repeats: bool = True) -> bytes:
    """Pack as .gpx does: three plain bytes at a time, or up to 7 bytes again that stand at most 15 back."""
    bits, at = "", 0
    while at < len(data):
        found = (
            next((back for back in range(3, 16) if back <= at and data[at : at + 3] == data[at - back : at - back + 3]), 0)
            if repeats
            else 0
        )
        if found and at + 3 <= len(data):
            bits += "1" + f"{4:04b}" + f"{found:04b}"[::-1] + f"{3:04b}"[::-1]
            at += 3
        else:
            part = data[at : at + 3]
            bits += "0" + f"{len(part):02b}"[::-1] + "".join(f"{byte:08b}" for byte in part)
            at += len(part)
    bits += "0" * (-len(bits) % 8)
    return b"BCFZ" + len(data).to_bytes(4, "little") + int(bits, 2).to_bytes(len(bits) // 8, "big")


def cut(path: Path, **options: object) -> list[tuple[int, list[int]]]:
    """(bar, tokens) of every riff of a song."""
    parts = cut_song(read_song(path), CutConfig(**options), RULES, TWO_BARS)  # type: ignore[arg-type]
    return [(riff.first_bar, riff.tokens.tolist()) for part in parts for _, riff in part.riffs]


@pytest.fixture
def formats(write: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    """One song in every format."""
    found = {"mid": midi_song(write)}
    contents = {f"gp{version[0]}": gp_bytes(gp_song(), version) for version in ((3, 0, 0), (4, 0, 6), (5, 1, 0))}
    contents |= {"gp": zipped(gpif_text()), "gpx": bcfz(bcfs(gpif_text(staves=False)))}
    for ending, content in contents.items():
        found[ending] = tmp_path / f"song.{ending}"
        found[ending].write_bytes(content)
    return found


def test_one_song_gives_the_same_riffs_in_every_format(formats: dict[str, Path]) -> None:
    expected = cut(formats["mid"])
    assert [bar for bar, _ in expected] == [1, 3, 7]
    assert expected[0][1] == [token for pitch in RIFFS["a"] + RIFFS["b"] for token in (pitch, 128)]
    for ending, path in formats.items():
        assert cut(path) == expected, ending
        song = read_song(path)
        assert (song.tempos, song.tracks[0].program, song.tracks[0].name) == ([(0, 120.0)], 30, "Rhythm Guitar")
        assert ending == "mid" or song.tracks[0].tuning == (40, 45, 50, 55, 59, 64)


def test_the_content_tells_the_format_not_the_name(formats: dict[str, Path], tmp_path: Path) -> None:
    expected = cut(formats["mid"])
    for ending in formats:
        for other in ("gp5", "mid", "gp"):
            path = tmp_path / f"renamed-{ending}.{other}"
            path.write_bytes(formats[ending].read_bytes())
            assert cut(path) == expected


# ---------------------------------------------------------------- as it is played

BAR = WrittenBar


@pytest.mark.parametrize(
    ("score", "order"),
    [
        ([BAR(), BAR(), BAR()], [0, 1, 2]),
        ([BAR(opens=True), BAR(plays=2), BAR()], [0, 1, 0, 1, 2]),
        ([BAR(), BAR(plays=2), BAR(), BAR(plays=3)], [0, 1, 0, 1, 2, 3, 2, 3, 2, 3]),
        ([BAR(), BAR(opens=True), BAR(plays=4), BAR()], [0, 1, 2, 1, 2, 1, 2, 1, 2, 3]),
        ([BAR(opens=True), BAR(plays=2, endings=frozenset({1})), BAR(endings=frozenset({2})), BAR()], [0, 1, 0, 2, 3]),
        (
            [BAR(opens=True), BAR(endings=frozenset({1, 3})), BAR(endings=frozenset({2})), BAR(plays=4), BAR()],
            [0, 1, 0, 2, 3, 0, 1, 0, 4],
        ),
        (
            [BAR(opens=True), BAR(plays=2, endings=frozenset({1, 2})), BAR(plays=2, endings=frozenset({3})), BAR(opens=True, plays=2)],
            [0, 1, 0, 1, 0, 2, 3, 3],
        ),
        ([BAR(), BAR(endings=frozenset({2}))], [0, 1]),  # endings of no repeat
        ([BAR(opens=True)], [0]),
        ([], []),
    ],
)
def test_repeats_and_endings_are_played(score: list[WrittenBar], order: list[int]) -> None:
    assert unfold(score) == order


def test_repeats_without_end_are_refused() -> None:
    with pytest.raises(MidiError, match="too long"):
        unfold([BAR(opens=True)] + [BAR() for _ in range(50)] + [BAR(plays=99)])


def test_repeats_tempo_changes_and_ties_of_a_score(tmp_path: Path) -> None:
    song = gp_song({0: "Verse"})
    song.measureHeaders[0].isRepeatOpen = True
    song.measureHeaders[1].repeatClose = 1
    beats = song.tracks[0].measures[1].voices[0].beats
    beats[4].effect.mixTableChange = MixTableChange(tempo=MixTableItem(value=90, allTracks=True))
    beats[1].notes[0].type = NoteType.tie  # 45 45 becomes one quarter note
    beats[3].notes[0].type = NoteType.dead
    path = tmp_path / "song.gp5"
    path.write_bytes(gp_bytes(song))
    midi = read_song(path)
    assert midi.written_bars == (1, 2, 1, 2, 3, 4, 5, 6, 7, 8)
    assert midi.tempos == [(0, 120.0), (3840 + 4 * 480, 90.0), (3 * 3840 + 4 * 480, 90.0)]
    track = midi.tracks[0]
    tied = np.flatnonzero(track.start == 3840)
    assert len(tied) == 1 and track.end[tied[0]] == 3840 + 960 and not (track.start == 3840 + 480).any()
    assert not (track.start == 3840 + 3 * 480).any()  # the muted stroke
    assert [text for _, text in midi.markers] == ["Verse", "Verse"]


def test_a_capo_sounds(tmp_path: Path) -> None:
    song = gp_song()
    song.tracks[0].offset = 2
    path = tmp_path / "song.gp5"
    path.write_bytes(gp_bytes(song))
    assert (read_song(path).tracks[0].pitch.min(), read_song(path).tracks[0].capo) == (42, 2)


@pytest.mark.parametrize("encoding", ["utf-8", "euc_kr", "cp932", "cp1252"])
def test_names_are_decoded_as_they_were_most_likely_written(encoding: str, write: Callable[..., Path], tmp_path: Path) -> None:
    text = {"euc_kr": "1절", "cp932": "Aメロ"}.get(encoding, "Première strophe")
    assert decoded(text.encode(encoding)) == text
    path = midi_song(write, markers={0: "x" * len(text.encode(encoding)), 4: "Chorus"})
    path.write_bytes(path.read_bytes().replace(b"x" * len(text.encode(encoding)), text.encode(encoding)))
    assert [name for _, name in read_song(path).markers] == [text, "Chorus"]
    assert [bar for bar, _ in cut(path)] == [1, 3]
    song = gp_song({0: text.encode(encoding).decode("latin-1"), 4: "Chorus"})
    buffer = io.BytesIO()
    guitarpro.write(song, buffer, version=(5, 1, 0), encoding="latin-1")
    (tmp_path / "song.gp5").write_bytes(buffer.getvalue())
    assert [name for _, name in read_song(tmp_path / "song.gp5").markers] == [text, "Chorus"]


# ---------------------------------------------------------------- packed files


def test_packing_is_undone() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 100, 5000):
        data = b"BCFS" + rng.integers(97, 100, size=size).astype(np.uint8).tobytes()
        assert gpif._inflate_bcfz(bcfz(data)) == gpif._inflate_bcfz(bcfz(data, repeats=False)) == data


def test_bombs_are_refused_quickly(tmp_path: Path) -> None:
    """Zip bombs, sizes that lie, XML that grows, packed runs that repeat for ever."""
    entities = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><GPIF>&c;</GPIF>'
    bombs = {
        "zip.gp": zipped(b" " * (gpif.MAX_UNPACKED + 10)),
        "entities.gp": zipped(entities),
        "size.gpx": b"BCFZ" + (2**31).to_bytes(4, "little") + b"\xff" * 100,
        "back.gpx": b"BCFZ" + (2**20).to_bytes(4, "little") + b"\xff" * 1000,
        "nothing.gpx": b"BCFZ" + (2**20).to_bytes(4, "little") + b"\x00" * 1000,
        "loop.gpx": b"BCFS" + bytes(4096) + (2).to_bytes(4, "little") + b"score.gpif".ljust(0x88, b"\0") + b"\xff" * 4000,
        "repeats.gp": zipped(gpif_text().replace(b"<Time>", b'<Repeat start="true" end="true" count="9999999"/><Time>')),
    }
    for name, content in bombs.items():
        path = tmp_path / name
        path.write_bytes(content)
        begin = time.process_time()
        try:
            read_song(path)
            assert name == "repeats.gp"
        except MidiError as error:
            assert error.reason in ("unreadable", "too long"), (name, error)
        assert time.process_time() - begin < 5, name


def test_damaged_files_give_a_reason_and_nothing_else(formats: dict[str, Path], tmp_path: Path) -> None:
    """Every format cut off at many places, and with bytes changed: a reason, or a song, never another error."""
    rng = np.random.default_rng(0)
    for ending, source in formats.items():
        good = source.read_bytes()
        for trial in range(40):
            bad = bytearray(good[: rng.integers(0, len(good))] if trial % 2 else good)
            if trial % 2 == 0:
                for at in rng.integers(0, len(bad), size=1 + trial // 4):
                    bad[at] = rng.integers(0, 256)
            path = tmp_path / f"bad.{ending}"
            path.write_bytes(bytes(bad))
            try:
                cut(path)
            except MidiError as error:
                assert error.reason and "\n" not in str(error)


def test_what_is_no_song_is_refused(tmp_path: Path) -> None:
    for name, content in {"a.gp5": b"", "b.gp": b"PK", "c.gpx": b"hello", "d.gp4": b"\x18FICHIER GUITAR PRO v9.99" + bytes(50)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MidiError, match="unreadable"):
            read_song(tmp_path / name)
    with pytest.raises(MidiError, match=r"without a score\.gpif"):
        (tmp_path / "e.gp").write_bytes(zipped(b"x", "other.xml"))
        read_song(tmp_path / "e.gp")
    (tmp_path / "big.mid").write_bytes(bytes(6_000_000))
    with pytest.raises(MidiError, match=r"6\.0 MB"):
        read_song(tmp_path / "big.mid")


# ---------------------------------------------------------------- sections

VERSES = """Verse|Verse 2|Verse 1 - Cont.|VERSE|verse|Strophe|Strophe 2|Estrofa|Estrofa 1|Couplet|Couplet 2|V1|V 2|V|1절|2 절|벌스|벌스 1
절|2nd verse|1st Verse|Vers 1|Verso 2|Strofa|[Verse]|Verse_1|Verse (quiet)|Verse A|Première strophe|Verse II|куплет 1|Aメロ|verses"""
NO_VERSES = """Reverse|Universe|Pre-Verse|PreVerse|Pre Verse 2|pre-verse|Post-Verse|Converse|Versus|Vivace|Averse|IV|Chorus|Intro
Conductor Track|Reverse verse|Solo (over verse)|no verse|Reversed|Diverse|Adverse|Bridge|End of verse|Solo|Estribillo|Refrain|후렴|코러스"""


@pytest.mark.parametrize("name", VERSES.replace("\n", "|").split("|"))
def test_what_is_a_verse(name: str) -> None:
    assert section_kind(name) == "verse" and wanted(name, "verse")


@pytest.mark.parametrize("name", NO_VERSES.replace("\n", "|").split("|"))
def test_what_is_no_verse(name: str) -> None:
    assert section_kind(name) != "verse" and not wanted(name, "verse")


def test_other_sections_are_asked_for_by_kind_or_by_words() -> None:
    assert wanted("Pre-Verse 1", "pre-verse") and not wanted("Verse 1", "pre-verse")
    assert wanted("Refrain", "chorus") and wanted("후렴", "Chorus") and not wanted("Pre-Chorus", "chorus")
    assert wanted("release/riff 1", "riff 1") and not wanted("riff 2", "riff 1")
    assert wanted("anything", "any") and wanted("anything", "ANY")
    assert wanted("Verse 2", "verse 2") and not wanted("Verse 1", "Verse 2") and not wanted("Verse 20", "verse 2")
    assert all(wanted(name, "verse, Chorus 2") for name in ("Verse 1", "Chorus 2")) and not wanted("Chorus 1", "verse, chorus 2")


@pytest.mark.parametrize(
    ("name", "ends"), [("Chorus", True), ("B", True), ("loopStart", False), ("Conductor Track", False), ("a@b.com", False)]
)
def test_what_ends_a_section(name: str, ends: bool) -> None:
    assert ends_section(name) == ends


def test_markers_become_sections_from_bar_to_bar(write: Callable[..., Path]) -> None:
    midi = read_song(midi_song(write, markers={0: "Intro", 2: "Verse", 3: "loopStart", 5: "Chorus"}))
    found = marked_sections(midi, bars(midi, midi.last_onset))
    assert [(section.name, section.first, section.stop) for section in found] == [("Intro", 0, 2), ("Verse", 2, 5), ("Chorus", 5, 8)]


def test_a_marker_just_before_a_bar_line_belongs_to_the_bar_behind_it(write: Callable[..., Path]) -> None:
    midi = read_song(midi_song(write, markers={1.9: "Verse", 4.1: "Chorus"}))  # type: ignore[dict-item]
    assert [(s.first, s.stop) for s in marked_sections(midi, bars(midi, midi.last_onset))] == [(2, 4), (4, 8)]


def test_without_markers_what_repeats_is_a_guess(write: Callable[..., Path]) -> None:
    path = midi_song(write, markers={})
    midi = read_song(path)
    found = repeated_sections(midi.tracks[0], bars(midi, midi.last_onset))
    assert [(section.first, section.stop, section.guessed) for section in found] == [(0, 2, True), (2, 4, True), (6, 8, True)]
    assert [bar for bar, _ in cut(path)] == [1, 3, 7]
    with pytest.raises(MidiError, match="no chorus: no markers, and only verses are guessed"):
        cut(path, section="chorus")
    assert [bar for bar, _ in cut(path, section="any")] == [1, 3, 5, 7]
    late = midi_song(write, "late.mid", markers={4: "Chorus"})
    assert [bar for bar, _ in cut(late, section="any")] == [1, 3, 5, 7]  # what stands before the first marker too


def test_a_solo_that_repeats_more_is_not_taken_for_the_verse(write: Callable[..., Path]) -> None:
    low = [40, 43, 45, 40, 46, 45, 43, 40]
    other = [45, 43, 41, 40, 48, 47, 45, 43]
    solo = [76, 79, 81, 76, 79, 81, 83, 84]
    form = [low, other, low, other, low, other, low, other, *[solo] * 5]
    notes = [(4 * bar + i / 2, 0.5, pitch) for bar, riff in enumerate(form) for i, pitch in enumerate(riff)]
    midi = read_song(write("solo.mid", notes, program=30))
    assert repeated_sections(midi.tracks[0], bars(midi, midi.last_onset))[0].first == 0


# ---------------------------------------------------------------- parts and cutting


@pytest.mark.parametrize(
    ("name", "program", "tuning", "guitar"),
    [
        ("Rhythm Guitar", 0, (), True),
        ("Gtr 2", 0, (), True),
        ("기타 1", 0, (), True),
        ("", 30, (), True),
        ("Bass Guitar", 33, (), False),
        ("Bass", 34, (), False),
        ("Pad", 89, (40, 45, 50, 55, 59, 64), False),
        ("Track 1", 29, (40, 45, 50, 55, 59, 64), True),
        ("Track 2", 29, (28, 33, 38, 43), False),
        ("Vocals", 27, (40, 45, 50, 55, 59, 64), False),
    ],
)
def test_what_is_a_guitar(name: str, program: int, tuning: tuple[int, ...], guitar: bool) -> None:
    one = np.array([0])
    assert is_guitar(MidiTrack(name, program, False, one, one + 1, one + 40, one + 90, tuning)) == guitar
    assert not is_guitar(MidiTrack(name, program, True, one, one + 1, one + 40, one + 90, tuning))


def test_hop_section_and_track_choose_what_is_cut(write: Callable[..., Path]) -> None:
    path = midi_song(write)
    assert [bar for bar, _ in cut(path, hop=1)] == [1, 2, 3, 7]
    assert [bar for bar, _ in cut(path, section="chorus")] == [5]
    assert [bar for bar, _ in cut(path, section="any")] == [1, 3, 5, 7]
    assert [bar for bar, _ in cut(path, track="1")] == [bar for bar, _ in cut(path, track="rhythm")] == [1, 3, 7]
    with pytest.raises(MidiError, match="1 Rhythm Guitar"):
        cut(path, track="lead")
    with pytest.raises(MidiError, match="no bridge: its sections: Verse 1, Chorus, Verse 2"):
        cut(path, section="bridge")


def test_other_meters_and_triplets_are_refused_with_the_reason(write: Callable[..., Path]) -> None:
    three = midi_song(write, "three.mid", meters=((0, 3, 4),))
    with pytest.raises(MidiError, match="not 4/4: bars 1-2: 3/4"):
        cut(three)
    triplets = write("triplets.mid", [(i / 3, 0.3, 45 + i % 5) for i in range(48)], markers=((0.0, "Verse"),), program=30)
    with pytest.raises(MidiError, match="off the grid"):
        cut(triplets)
    with pytest.raises(MidiError, match="no guitar"):
        cut(write("piano.mid", [(0, 1, 60)], program=0))
    short = write("short.mid", [(0, 1, 45), (1, 1, 47), (4, 1, 45)], markers=((0.0, "Verse"), (4.0, "Chorus")), program=30)
    with pytest.raises(MidiError, match="too short: Verse: 1 bar, 2 needed"):
        cut(short)
