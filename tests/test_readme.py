"""Every command of the README names a script, flags, make targets and files that exist."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from presets import MODES, parse_options

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Places that the commands themselves make, or that stand for the reader's own.
MADE_LATER = ("runs/", "my_riffs", "FOLDER", "A.mid", "B.mid")


def commands() -> list[str]:
    """What the README tells the reader to type: indented lines and inline code that start with python, make or torchrun."""
    lines = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", README)]
    return sorted({line.split("  #")[0].split("        ")[0].strip() for line in lines if re.match(r"(python|make|torchrun) ", line)})


@functools.cache
def asked_for_help(script: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    if script[0] == "generate.py":  # its modes share what takes long to import
        said = io.StringIO()
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as stop:
            parse_options(MODES[script[1] if len(script) > 1 else "sample"], ["--help"])
        return subprocess.CompletedProcess(script, int(stop.value.code or 0), said.getvalue(), "")
    return subprocess.run([sys.executable, *script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_readme_has_its_commands() -> None:
    found = commands()
    assert {"make riff", "make test", "python train_vae.py", "python generate.py"} <= set(found)
    assert len(found) >= 15


@pytest.mark.parametrize("command", commands())
def test_command_exists(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert words[1] in targets
        return
    if words[0] == "torchrun":
        words = ["python", *words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]]
    script = words[1:3] if words[1] == "-m" or (words[2:3] and words[2] in MODES) else words[1:2]
    rest = words[1 + len(script) :]
    if script == ["presets.py"]:
        return
    done = asked_for_help(tuple(script))
    if script == ["-m", "experiments.round_trip"]:  # takes folders only
        assert not [word for word in rest if word.startswith("-")]
    else:
        assert done.returncode == 0, done.stderr
        for word in rest:
            assert not word.startswith("--") or re.search(rf"{re.escape(word)}\b", done.stdout), f"{word} is no option of {script}"
    for word in rest:
        if "/" in word or word.endswith(".mid"):
            assert word.startswith(MADE_LATER) or (ROOT / word).exists(), f"{word} does not exist"


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), f"{target} is linked and missing"


def test_pictures_are_small() -> None:
    for path in (ROOT / "docs").glob("*.png"):
        assert path.stat().st_size < 200_000
