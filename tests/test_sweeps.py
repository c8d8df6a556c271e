"""The sweeps of the README: runs are taken from where they lie, but only if they are what was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config import UserError
from experiments import sweeps

FLAGS, PRIOR, RIFFS = ["--beta", "0.3"], ["--steps", "5"], 7


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, by a stand-in for the scripts that writes what evaluate.py would."""
    done: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable and options["cwd"] == sweeps.ROOT
        done.append(command[1:])
        if command[1] == "evaluate.py":
            found = Path(command[command.index("--run-dir") + 1]) / "evaluation" / "metrics.json"
            found.parent.mkdir(parents=True)
            found.write_text(json.dumps({"call": len(done)}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sweeps.subprocess, "run", run)
    return done


def point(folder: Path, **changes: Any) -> dict[str, Any]:
    return sweeps.run_point(**{"folder": folder, "seed": 3, "flags": FLAGS, "prior": PRIOR, "riffs": RIFFS, **changes})


def test_a_point_is_a_run_of_the_three_scripts_and_says_so(commands: list[list[str]], tmp_path: Path) -> None:
    assert point(tmp_path / "run") == {"call": 3}
    common = ["--run-dir", str(tmp_path / "run"), "--threads", "1", "--seed", "3"]
    assert commands == [
        ["train_vae.py", *common, "--split-seed", "3", "--restart", *FLAGS],
        ["train_diffusion.py", *common, "--restart", *PRIOR],
        ["evaluate.py", *common, "--num-outputs", "7", "--no-pictures"],
    ]
    record = json.loads((tmp_path / "run" / "sweep.json").read_text())
    assert record == {"commands": commands, "code": sweeps.code_fingerprint()}


def test_a_point_that_is_there_is_not_made_again(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against hours done twice; a run of other code is taken, and named."""
    found = point(tmp_path / "run")
    assert point(tmp_path / "run") == found and len(commands) == 3
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sweeps, "code_fingerprint", lambda: "other")
    assert point(tmp_path / "run") == found and len(commands) == 3
    assert f"{tmp_path / 'run'}: was made with other code" in capsys.readouterr().err


def forget(folder: Path) -> None:
    (folder / "sweep.json").unlink()


@pytest.mark.parametrize(
    ("changes", "spoil"),
    [({"flags": ["--beta", "1"]}, None), ({"prior": []}, None), ({"riffs": 8}, None), ({"seed": 4}, None), ({}, forget)],
    ids=["flags", "prior", "riffs", "seed", "unknown"],
)
def test_a_run_of_other_options_is_refused(
    changes: dict[str, Any], spoil: Callable[[Path], None] | None, commands: list[list[str]], tmp_path: Path
) -> None:
    """Guards against a table of runs that are not those its caption names."""
    point(tmp_path / "run")
    if spoil:
        spoil(tmp_path / "run")
    with pytest.raises(UserError, match="other options") as error:
        point(tmp_path / "run", **changes)
    assert str(tmp_path / "run") in str(error.value)
    assert len(commands) == 3


@pytest.mark.parametrize(("stderr", "words"), [("much\ntoo much\n", "too much"), ("", "killed")])
def test_a_script_that_fails_ends_the_point(stderr: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a record of a run that never was; the next call makes it."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, int(command[1] == "train_diffusion.py"), "", stderr)

    monkeypatch.setattr(sweeps.subprocess, "run", run)
    with pytest.raises(UserError, match=rf"^train_diffusion.py .*: {words}$"):
        point(tmp_path / "run")
    calls: list[str] = []

    def work(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command[1])
        if command[1] == "evaluate.py":
            (tmp_path / "run" / "evaluation").mkdir()
            (tmp_path / "run" / "evaluation" / "metrics.json").write_text("{}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sweeps.subprocess, "run", work)
    point(tmp_path / "run")
    assert calls == ["train_vae.py", "train_diffusion.py", "evaluate.py"]


def test_the_fingerprint_changes_with_any_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "ROOT", tmp_path)
    found = [sweeps.code_fingerprint()]
    for name, text in (("a.py", "1"), ("b.py", "1"), ("a.py", "2")):
        (tmp_path / name).write_text(text)
        found.append(sweeps.code_fingerprint())
    assert len(set(found)) == 4 and sweeps.code_fingerprint() == found[-1]
