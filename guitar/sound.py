"""Riffs as sound: a plucked string, or the fluidsynth command where there is one; 44.1 kHz, 16 bit, mono. No torch.

Run `python -m guitar.sound FILE.mid OUT.wav` to hear a file's riffs.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave as wave_file
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from config import DataConfig, SoundConfig, TokenizerConfig, UserError, run_script
from dataset import read_file_riffs
from files import write_file
from midi_utils import MidiError, Riff, riffs_to_midi, tokens_to_notes

RATE = 44_100  # samples per second
PEAK = 10 ** (-1 / 20)  # of full scale: -1 dBFS
RING_OUT = 1.0  # seconds after the last bar, unless the sound is to loop
_RELEASE = 0.03  # seconds in which a note is damped
_ATTACK = 88  # samples in which it sets in: 2 ms
_DISTORTED = {29: 4.0, 30: 9.0}  # gain into the amplifier, by program
_MUTED, _MUTED_SECONDS = 28, 0.08


# ---------------------------------------------------------------- one string


def pluck(pitch: int, seconds: float, seed: int = 0, brightness: float = 0.5) -> np.ndarray:
    """A plucked string: noise that goes round and round a delay line and loses its edge (Karplus & Strong 1983).

    The delay is tuned to a fraction of a sample by interpolation (Jaffe & Smith 1983), and the string is picked a fifth along.

    Args:
        pitch: MIDI.
        seconds: how long it rings.
        seed: of the noise.
        brightness: 0.5 loses the highs quickly, towards 1 hardly.

    Returns:
        float64 [samples], about -1..1.
    """
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    loss = np.array([brightness, 1 - brightness])  # a low-pass that delays by 1 - brightness samples at low frequencies
    delay = RATE / frequency - (1 - brightness)
    whole = int(delay)
    fraction = delay - whole
    taps = np.convolve(loss, [1 - fraction, fraction]) * 0.5 ** (1 / (frequency * _half_life(pitch)))  # three neighbouring samples
    count = max(1, round(seconds * RATE))
    # One turn at a time: all of a turn is known from the turn before, as long as the delay is longer than the taps.
    sound = np.zeros(count + whole + 3)
    noise = np.random.default_rng(np.random.SeedSequence([pitch, seed])).uniform(-1, 1, whole)
    noise = np.convolve(np.concatenate([noise[-3:], noise]), [0.15, 0.35, 0.35, 0.15], mode="valid")[:whole]
    pick = max(1, whole // 5)
    noise -= np.roll(noise, pick)  # no harmonic that has a node where it is picked
    sound[2 : whole + 2] = noise - noise.mean()  # two samples of silence before: the taps reach back
    at = whole + 2
    while at < len(sound):
        stop = min(at + whole - 1, len(sound))
        sound[at:stop] = sum(tap * sound[at - whole - i : stop - whole - i] for i, tap in enumerate(taps))
        at = stop
    return sound[2 : count + 2]


def _half_life(pitch: int) -> float:
    """Seconds in which the fundamental falls to a half: thick strings ring on."""
    return float(np.interp(pitch, [28, 40, 64, 88], [1.6, 1.2, 0.6, 0.25]))


# ---------------------------------------------------------------- riffs


def seconds_of(riffs: Sequence[Riff], tokenizer: TokenizerConfig) -> float:
    """How long riffs last, one after the other."""
    return float(_clock(riffs, tokenizer)[-1])


def _clock(riffs: Sequence[Riff], tokenizer: TokenizerConfig) -> np.ndarray:
    """When each step begins, and the end. float64 [riffs * steps + 1], seconds; each riff keeps its tempos"""
    lengths = []
    for riff in riffs:
        steps = np.arange(tokenizer.steps + 1)
        inside = sorted({at for at, _ in riff.tempos if 0 < at < tokenizer.steps} | set(steps.tolist()))
        bpm = np.array([[tempo for at, tempo in riff.tempos if at <= moment][-1] for moment in inside[:-1]])
        passed = np.concatenate([[0], np.cumsum(np.diff(inside) * 60 / (bpm * tokenizer.steps_per_beat))])
        lengths.append(np.diff(np.interp(steps, inside, passed)))
    return np.concatenate([[0], np.cumsum(np.concatenate(lengths))])


def render(riffs: Sequence[Riff], tokenizer: TokenizerConfig, sound: SoundConfig) -> np.ndarray:
    """Riffs as sound, one after the other.

    Returns:
        float64 [samples], -1..1, its peak at -1 dBFS; as long as the riffs, and RING_OUT more unless it loops. In a loop, what still
        rings at the end is carried over to the beginning.

    Raises:
        UserError: fluidsynth is not there, or fails.
    """
    count = round(seconds_of(riffs, tokenizer) * RATE)
    total = count + round(RING_OUT * RATE)
    plucked = sound.synth == "plucked"
    wave = _plucked(riffs, tokenizer, total, sound.loop) if plucked else _fluidsynth(riffs, tokenizer, total, sound.soundfont)
    if sound.loop:
        wave, rest = wave[:count], wave[count:]
        for first in range(0, len(rest), count):
            part = rest[first : first + count]
            wave[: len(part)] += part
    gain = _DISTORTED.get(riffs[0].program)
    if gain is not None and plucked:
        wave = np.tanh(gain * wave / max(np.abs(wave).max(), 1e-9))
    peak = float(np.abs(wave).max(initial=0.0))
    return wave * (PEAK / peak) if peak > 0 else wave


def _plucked(riffs: Sequence[Riff], tokenizer: TokenizerConfig, total: int, loop: bool) -> np.ndarray:
    """On the built-in string. The last note rings out where nothing follows it. -> float64 [total]"""
    clock = _clock(riffs, tokenizer)
    sound = np.zeros(total)
    for number, riff in enumerate(riffs):
        start, end, pitch = tokens_to_notes(riff.tokens, tokenizer)
        base = number * tokenizer.steps
        for i, (first, last, value) in enumerate(zip(start.tolist(), end.tolist(), pitch.tolist(), strict=True)):
            begin, stop = round(clock[base + first] * RATE), round(clock[base + last] * RATE)
            if riff.program == _MUTED:
                stop = min(stop, begin + round(_MUTED_SECONDS * RATE))
            rings_out = base + last == len(clock) - 1 and not loop
            fade = round((RING_OUT if rings_out else _RELEASE) * RATE)
            tone = pluck(value, (stop - begin + fade) / RATE, seed=i)
            tone[:_ATTACK] *= np.linspace(0, 1, _ATTACK)[: len(tone)]  # from silence: a jump at the first sample is a click, also in a loop
            tone[-fade:] *= np.linspace(1, 0, fade)
            tone = tone[: total - begin]
            sound[begin : begin + len(tone)] += tone
    return sound


def _fluidsynth(riffs: Sequence[Riff], tokenizer: TokenizerConfig, total: int, soundfont: str) -> np.ndarray:
    """By the fluidsynth command. -> float64 [total]"""
    command = shutil.which("fluidsynth")
    if command is None:
        raise UserError("--synth fluidsynth: that command is not installed; install it, or give --synth plucked")
    with tempfile.TemporaryDirectory() as folder:
        midi, out = Path(folder) / "riffs.mid", Path(folder) / "riffs.wav"
        midi.write_bytes(riffs_to_midi(list(riffs), tokenizer))
        words = [command, "-ni", "-q", "-r", str(RATE), "-F", str(out), *([soundfont] if soundfont else []), str(midi)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=300)
            with wave_file.open(str(out)) as file:
                raw = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, file.getnchannels())
        except subprocess.TimeoutExpired:
            raise UserError("--synth fluidsynth: it took more than five minutes; give --synth plucked") from None
        except (OSError, wave_file.Error, EOFError, ValueError):
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
            hint = "give a --soundfont FILE.sf2" if not soundfont else "try another --soundfont"
            raise UserError(f"--synth fluidsynth: it wrote no sound ({said[-1][:100]}); {hint}, or --synth plucked") from None
    sound = raw.mean(axis=1)[:total]
    return np.concatenate([sound, np.zeros(total - len(sound))])


def wav_bytes(sound: np.ndarray) -> bytes:
    """A WAV file: 44.1 kHz, 16 bit, mono. sound: float [samples], -1..1"""
    buffer = BytesIO()
    with wave_file.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2 or not argv[1].lower().endswith(".wav"):
        raise UserError("give a MIDI file and a WAV file to write: python -m guitar.sound midi_riffs/harbour_verse1a.mid riff.wav")
    if Path(argv[1]).exists():
        raise UserError(f"{argv[1]}: exists; give another name")
    tokenizer = TokenizerConfig()
    try:
        riffs, _ = read_file_riffs(Path(argv[0]), DataConfig(max_bars=0), tokenizer)
    except MidiError as error:
        raise UserError(f"{argv[0]}: {error}") from None
    sound = render(riffs, tokenizer, SoundConfig(wav=True))
    write_file(argv[1], wav_bytes(sound))
    print(f"{argv[1]}: {len(sound) / RATE:.2f} s")
    return 0


if __name__ == "__main__":
    run_script(main)
