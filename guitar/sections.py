"""The sections of a song: by the names of its markers, or, without markers, by what repeats. No torch.

Run `python -m guitar.sections "Verse 1 - Cont." Couplet ...` to see what names are taken for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from config import UserError, run_script
from midi_utils import Bar, MidiFile, MidiTrack

# What sections are called, by kind: whole words, without accents, in lower case. The first kind that fits counts, so a pre-verse is none.
_WORDS: dict[str, str] = {
    "pre-verse": r"pre[ -]?(verse|strophe|estrofa|couplet|vers)|벌스 전",
    "pre-chorus": r"pre[ -]?(chorus|refrain|estribillo|ref)|b[ -]?melo|프리 ?코러스",
    "verse": r"verses?|vers|vs|v|strophes?|estrofas?|couplets?|versos?|strofa|strofe|zwrotka|куплет|벌스|절|aメロ|主歌",
    "chorus": r"chorus|choruses|chor|refrain|refrao|estribillo|ritornello|coro|refren|hook|припев|코러스|후렴|サビ|副歌",
    "intro": r"intro|introduction|re-?introduction|opening|einleitung|introduccion|인트로|イントロ|前奏",
    "outro": r"outro|ending|end|coda|conclusion|fin|finale|아웃트로|アウトロ|尾奏",
    "bridge": r"bridge|middle ?(8|eight)|puente|pont|ponte|elision|break|breakdown|브릿지|ブリッジ",
    "solo": r"solos?|lead|leads|솔로|ソロ",
    "interlude": r"interlude|interludio|간주|間奏",
}
# Markers of programs and authors, which neither are sections nor end one.
_NO_SECTION = re.compile(r"(conductor track|loop ?(start|end)|new marker|marker \d+|track \d+|tempo.*|[^@\s]+@[^@\s]+|\W*)", re.IGNORECASE)


def plain(text: str) -> str:
    """A name without accents and capitals, its signs made simple."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    if any("가" <= sign <= "힣" for sign in text):  # NFKD takes Korean syllables apart
        folded = text.casefold()
    folded = "".join(sign for sign in folded if not unicodedata.combining(sign))
    return re.sub(r"[\s_]+", " ", folded).strip(" []()<>*=~-")


def section_kind(name: str) -> str | None:
    """What kind of section a marker names: verse, pre-verse, chorus, ...; None where it is none of those.

    A kind's word must stand by itself: `Verse 2`, `2nd verse`, `Verse 1 - Cont.`, `V1`, `1절` are verses, `Reverse` and `Universe` are not.
    """
    text = plain(name)
    for kind, words in _WORDS.items():
        for alternative in _alternatives(words):
            if alternative == "v":  # a letter alone says little: V, V1, V 2
                if re.fullmatch(r"v ?\.?[0-9]{0,2}", text):
                    return kind
            elif re.search(rf"(?<![^\W\d_]){alternative}(?![^\W\d_])", text) and not _misleading(kind, text, alternative):
                return kind
    return None


def _alternatives(words: str) -> list[str]:
    """The words of a kind, one by one: | inside brackets divides parts of a word."""
    found, depth, word = [], 0, ""
    for sign in words:
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and not depth:
            found.append(word)
            word = ""
        else:
            word += sign
    return [*found, word]


def _misleading(kind: str, text: str, word: str) -> bool:
    """Whether a word stands in a name of another sense: before or after a verse, a solo over one, a lead vocal, the end of a loop."""
    if kind == "verse" and re.search(r"\b(pre|post|before|after|end of|no|not|without|over|reversed?|solos?|fill)\b", text):
        return True
    return word in ("end", "lead", "leads", "break", "v", "vs") and len(text.split()) > 3


def ends_section(name: str) -> bool:
    """Whether a marker begins something new, whatever it is."""
    return not _NO_SECTION.fullmatch(name.strip())


def _kind_asked(text: str) -> str | None:
    """The kind that a word asks for, if it is that and nothing more: verse and strophe do, verse 2 does not."""
    if text in _WORDS:
        return text
    return next((kind for kind, words in _WORDS.items() if any(re.fullmatch(word, text) for word in _alternatives(words))), None)


def wanted(name: str, section: str) -> bool:
    """Whether a marker names what is asked for: kinds (verse, pre-verse, chorus, ...) or words of the name itself (verse 2), in a list
    divided by commas; any takes all."""
    for asked in map(plain, section.split(",")):
        if asked == "any":
            return True
        kind = _kind_asked(asked)
        if kind is not None and section_kind(name) == kind:
            return True
        if kind is None and asked and re.search(rf"(?<!\w){re.escape(asked)}(?!\w)", plain(name)):
            return True
    return False


SOLO = 9  # semitones above the rest of a part, from which on a stretch is taken for a solo


@dataclass(frozen=True)
class Section:
    """A stretch of a song."""

    name: str
    first: int  # bar, counted from 0
    stop: int  # the bar behind its last
    guessed: bool = False  # found by what repeats, not by a marker


def marked_sections(midi: MidiFile, bars: Sequence[Bar]) -> list[Section]:
    """The sections that a song's markers name, in order; none without such markers.

    A marker holds from the bar in which it stands (from the next, if it stands in the last quarter of a bar) to the next one.
    """
    starts = np.array([bar.start for bar in bars], dtype=np.int64)
    found: list[tuple[int, str]] = []
    for tick, name in midi.markers:
        if not ends_section(name):
            continue
        bar = max(0, int(np.searchsorted(starts, tick, side="right")) - 1)
        if bar < len(bars) and tick - bars[bar].start > 0.75 * (bars[bar].end - bars[bar].start):
            bar += 1
        if bar < len(bars):
            found.append((bar, name))
    return [
        Section(name, first, found[i + 1][0] if i + 1 < len(found) else len(bars))
        for i, (first, name) in enumerate(found)
        if (found[i + 1][0] if i + 1 < len(found) else len(bars)) > first
    ]


# ---------------------------------------------------------------- what repeats


def bar_prints(track: MidiTrack, bars: Sequence[Bar]) -> list[bytes]:
    """What each bar of a part sounds like: equal for bars that play the same at the same places (to a 24th of a beat); b"" is silence."""
    edges = np.array([bar.start for bar in bars] + [bars[-1].end], dtype=np.int64)
    place = np.searchsorted(track.start, edges)
    prints = []
    for i, bar in enumerate(bars):
        here = slice(int(place[i]), int(place[i + 1]))
        beats = max(1, 4 * bar.numerator // max(1, bar.denominator))
        at = np.round((track.start[here] - bar.start) * 24 * beats / (bar.end - bar.start)).astype(np.int64)
        prints.append(np.stack([at, track.pitch[here]]).tobytes() if place[i + 1] > place[i] else b"")
    return prints


def repeated_sections(track: MidiTrack, bars: Sequence[Bar], sizes: Sequence[int] = (2, 4, 8, 16)) -> list[Section]:
    """The stretches of bars that a part plays most: a guess at its verses, for songs without markers.

    A stretch counts for the bars that its repeats cover, those that do not overlap, without the first; of equals the earlier wins, then
    the shorter. What lies far above the rest of the part, as solos do, counts half.
    """
    prints = bar_prints(track, bars)
    usual = float(np.median(track.pitch)) if len(track.pitch) else 0.0
    best_score, best = 0.0, (0, [0])  # length and first bars
    for size in sizes:
        places: dict[tuple[bytes, ...], list[int]] = {}
        for first in range(len(prints) - size + 1):
            key = tuple(prints[first : first + size])
            found = places.setdefault(key, [])
            if key.count(b"") * 2 < size and (not found or found[-1] + size <= first):
                found.append(first)
        for found in places.values():
            if len(found) < 2:
                continue
            inside = (track.start >= bars[found[0]].start) & (track.start < bars[found[0] + size - 1].end)
            score = size * (len(found) - 1) * (0.5 if float(np.median(track.pitch[inside])) > usual + SOLO else 1.0)
            if score > best_score or (score == best_score and found[0] < best[1][0]):
                best_score, best = score, (size, found)
    size, found = best
    return [Section(f"repeated {size} bars", first, first + size, guessed=True) for first in found] if best_score else []


def main(argv: Sequence[str]) -> int:
    if not argv:
        raise UserError('give names of sections: python -m guitar.sections "Verse 2" Reverse Couplet')
    for name in argv:
        print(f"{name}: {section_kind(name) or 'no kind known'}")
    return 0


if __name__ == "__main__":
    run_script(main)
