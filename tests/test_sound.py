"""Riffs as sound: pitch, length, level, loops; and the fluidsynth command."""

from __future__ import annotations

import wave
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from config import SoundConfig, TokenizerConfig, UserError
from guitar.sound import PEAK, RATE, RING_OUT, pluck, render, seconds_of, wav_bytes
from midi_utils import Riff

TWO_BARS = TokenizerConfig()
RIFF = Riff(np.array([40, 128, 43, 0, 45, 128, 45, 128, 40, 40, 0, 47, 128, 128, 43, 128] * 2), ((0.0, 100.0),))
PLAIN, LOOP = SoundConfig(wav=True), SoundConfig(wav=True, loop=True)


def cents_off(sound: np.ndarray, pitch: int) -> float:
    """How far the strongest partial near a pitch's fundamental lies from it."""
    size = 8 * len(sound)
    power, wanted = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), size)), 440 * 2 ** ((pitch - 69) / 12)
    bins = np.arange(len(power)) * RATE / size
    near = np.flatnonzero((bins > wanted * 0.9) & (bins < wanted * 1.1))
    return float(1200 * np.log2(bins[near[power[near].argmax()]] / wanted))


@pytest.mark.parametrize("pitch", [23, 28, 40, 47, 52, 59, 64, 71, 76, 88])
def test_a_string_is_in_tune_and_dies_away(pitch: int) -> None:
    sound = pluck(pitch, 2.0)
    assert len(sound) == 2 * RATE and np.isfinite(sound).all() and np.abs(sound).max() < 3
    assert abs(cents_off(sound, pitch)) < 3
    quarter = RATE // 2
    levels = [sound[i * quarter : (i + 1) * quarter].std() for i in range(4)]
    assert levels[0] > 0.03 and levels == sorted(levels, reverse=True)
    assert np.array_equal(sound, pluck(pitch, 2.0)) and not np.array_equal(sound, pluck(pitch, 2.0, seed=1))


def read(data: bytes) -> np.ndarray:
    with wave.open(BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


@pytest.mark.parametrize("program", [27, 28, 29, 30])
@pytest.mark.parametrize("sound", [PLAIN, LOOP], ids=["ring out", "loop"])
def test_the_file_is_the_right_length_at_the_right_level(sound: SoundConfig, program: int) -> None:
    riff = Riff(RIFF.tokens, RIFF.tempos, program)
    samples = read(wav_bytes(render([riff], TWO_BARS, sound)))
    assert len(samples) == round((8 * 60 / 100 + (0 if sound.loop else RING_OUT)) * RATE)
    assert np.abs(samples).max() == round(PEAK * 32767)  # -1 dBFS: not clipped
    assert samples.std() > 500
    assert abs(samples[-1]) < 400 or sound.loop  # it ends in silence


def test_tempo_changes_move_what_comes_after() -> None:
    slow = Riff(RIFF.tokens, ((0.0, 120.0), (16.0, 60.0)))
    assert seconds_of([slow], TWO_BARS) == pytest.approx(2 + 4)
    assert seconds_of([slow, RIFF], TWO_BARS) == pytest.approx(6 + 4.8)
    between = Riff(RIFF.tokens, ((0.0, 120.0), (15.5, 60.0)))
    assert seconds_of([between], TWO_BARS) == pytest.approx(15.5 / 8 + 16.5 / 4)
    onset = np.zeros(32, dtype=np.int64)
    onset[24] = 52  # on beat 3 of the second bar: 2 + 2 seconds after the beginning
    sound = render([Riff(onset, slow.tempos)], TWO_BARS, PLAIN)
    assert np.flatnonzero(np.abs(sound) > 0.05)[0] == pytest.approx(4 * RATE, abs=200)


def test_a_loop_played_twice_is_the_riff_played_twice() -> None:
    """So there is no click: the second time round is what a player would hear who went on."""
    loop = render([RIFF], TWO_BARS, LOOP)
    twice = render([RIFF, RIFF, RIFF], TWO_BARS, LOOP)
    count = len(loop)
    middle = twice[count : 2 * count]
    assert np.allclose(loop / np.abs(loop).max(), middle / np.abs(middle).max(), atol=1e-9)
    assert RIFF.tokens[0] != 0  # a note sets in at the seam
    assert np.abs(loop[0] - loop[-1]) <= np.abs(np.diff(loop[-2000:])).max()  # no jump, only the string that still swings


def test_a_note_held_over_the_end_of_a_loop_leaves_no_step() -> None:
    held = np.full(32, 128, dtype=np.int64)
    held[0] = 0
    held[1] = 45
    loop = render([Riff(held, ((0.0, 100.0),))], TWO_BARS, LOOP)
    seam = np.abs(np.diff(np.concatenate([loop[-400:], loop[:400]])))
    assert seam.max() < 0.02


def test_a_loop_shorter_than_its_ringing() -> None:
    one_bar = TokenizerConfig(bars=1)
    fast = Riff(RIFF.tokens[:16], ((0.0, 400.0),))
    sound = render([fast], one_bar, LOOP)
    assert len(sound) == round(0.6 * RATE) and np.isfinite(sound).all()


def test_silence_is_silent_and_the_same_riff_gives_the_same_bytes() -> None:
    silent = render([Riff(np.zeros(32, dtype=np.int64))], TWO_BARS, PLAIN)
    assert not silent.any() and len(silent) == round((4 + RING_OUT) * RATE)
    assert wav_bytes(render([RIFF], TWO_BARS, PLAIN)) == wav_bytes(render([RIFF], TWO_BARS, PLAIN))


# ---------------------------------------------------------------- fluidsynth

FAKE = """#!{python}
import sys, wave, array
out = sys.argv[sys.argv.index("-F") + 1]
assert open(sys.argv[-1], "rb").read(4) == b"MThd"
if "broken.sf2" in sys.argv:
    sys.exit("fluidsynth: error: no such soundfont")
with wave.open(out, "wb") as file:
    file.setnchannels(2); file.setsampwidth(2); file.setframerate(44100)
    file.writeframes(array.array("h", [1000, 3000] * 44100).tobytes())
"""


@pytest.fixture
def fluidsynth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of that name that writes one second of a constant."""
    import sys

    command = tmp_path / "bin" / "fluidsynth"
    command.parent.mkdir()
    command.write_text(FAKE.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))


def test_fluidsynth_is_asked_for_and_its_sound_brought_to_length_and_level(fluidsynth: None) -> None:
    sound = render([RIFF], TWO_BARS, SoundConfig(wav=True, synth="fluidsynth"))
    assert len(sound) == round((4.8 + RING_OUT) * RATE)
    assert np.allclose(sound[:RATE], PEAK) and not sound[RATE:].any()
    assert len(render([RIFF], TWO_BARS, SoundConfig(wav=True, loop=True, synth="fluidsynth"))) == round(4.8 * RATE)


def test_what_is_wrong_with_fluidsynth_is_one_line(fluidsynth: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no such soundfont.*another --soundfont"):
        render([RIFF], TWO_BARS, SoundConfig(wav=True, synth="fluidsynth", soundfont="broken.sf2"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="not installed"):
        render([RIFF], TWO_BARS, SoundConfig(wav=True, synth="fluidsynth"))
