"""The command line, presets and what may import what."""

from __future__ import annotations

import ast
import dataclasses
import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import config
import presets
from config import DataConfig, TokenizerConfig, UserError
from evaluate import Evaluate
from files import make_room, write_file
from presets import PRESETS, Generate, TrainDiffusion, TrainLM, TrainVAE, is_language_model, parse_options, parse_seeds

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("family", "guitar", "measures", "output", "speed", "steering")
FILES = {path.stem: path for path in ROOT.glob("*.py")} | {
    f"{package}.{path.stem}": path for package in PACKAGES for path in ROOT.glob(f"{package}/[a-z]*.py")
}
OURS = set(FILES) | {"midi_riffs"}
LIBRARIES: dict[str, set[str]] = {  # what each may import of ours; every other file is a script
    "config": set(),
    "family.presets": set(),
    "presets": {"config", "family.presets"},
    "files": {"config"},
    "midi_utils": {"config"},
    "measures.metrics": {"config", "midi_utils"},
    "measures.novelty": {"config", "midi_utils", "measures.metrics"},
    "measures.distances": {"config", "midi_utils", "measures.metrics"},
    "measures.baselines": {"config", "midi_utils", "measures.distances"},
    "measures.evaluation": {"config", "measures.metrics", "measures.novelty", "measures.distances"},
    "measures.reports": {"files", "measures.evaluation"},
    "events": {"config", "midi_utils"},
    "family.drums": {"config", "midi_utils"},
    "measures.piece_evaluation": {"config", "events", "measures.metrics", "measures.novelty", "measures.evaluation"},
    "dataset": {"config", "files", "midi_utils", "measures.metrics"},
    "pieces": {"config", "midi_utils", "events", "dataset"},
    "measures.midi_facts": {"config", "midi_utils", "dataset"},
    "guitar.fretboard": {"config", "midi_utils"},
    "guitar.tab": {"config", "midi_utils", "dataset", "guitar.fretboard"},
    "guitar.scores": {"midi_utils"},
    "guitar.guitar_pro": {"config", "midi_utils", "guitar.fretboard", "guitar.scores"},
    "guitar.gpif": {"config", "midi_utils", "guitar.scores"},
    "guitar.sections": {"config", "midi_utils"},
    "guitar.songs": {
        "config",
        "midi_utils",
        "measures.metrics",
        "dataset",
        "guitar.fretboard",
        "guitar.gpif",
        "guitar.guitar_pro",
        "guitar.sections",
    },
    "guitar.sound": {"config", "files", "midi_utils", "dataset"},
    "output.outputs": {"config", "dataset", "files", "midi_utils", "guitar.fretboard", "guitar.guitar_pro", "guitar.sound", "guitar.tab"},
    "workers": {"config", "midi_utils"},
    "family.windows": {"config", "dataset", "family.drums", "midi_utils"},
    "family.corpus": {"config", "dataset", "family.windows", "files", "measures.metrics", "midi_utils", "workers"},
    "family.resident": {"config", "family.corpus"},
    "examples": {"config", "dataset", "family.corpus", "family.resident", "latents"},
    "products": set(),
    "stepwise": {"products"},
    "denoising": {"products"},
    "heads": {"config", "stepwise"},
    "diffusion": {"config", "denoising", "products"},
    "graphs": {"products"},
    "recurrent": {"products", "stepwise"},
    "models": {"config", "diffusion", "graphs", "heads", "presets", "products", "recurrent", "stepwise"},
    "lm_stepwise": {"products", "stepwise"},
    "language_model": {"config", "lm_stepwise", "pieces", "presets", "products", "recurrent"},
    "latents": {"config", "dataset", "family.corpus", "family.windows", "models"},
    "steering.rules": {"config", "midi_utils"},
    "steering.keys": {"config", "midi_utils"},
    "steering.attributes": {"config", "dataset", "measures.metrics"},
    "sampling": {
        *("config", "denoising", "diffusion", "graphs", "heads", "latents", "models", "measures.novelty", "products", "steering.rules"),
        "stepwise",
    },
    "lm_sampling": {
        *("config", "events", "graphs", "language_model", "lm_stepwise", "pieces", "products", "sampling", "steering.rules", "stepwise"),
    },
    "steering.directions": {"config", "latents", "models", "sampling", "steering.attributes"},
    "steering.drawing": {"config", "diffusion", "models", "sampling", "steering.attributes", "steering.keys", "steering.rules"},
    "steering.ways": {"config", "diffusion", "sampling", "steering.drawing"},
    "steering.from_riff": {
        *("config", "diffusion", "midi_utils", "models", "products", "sampling"),
        *("steering.drawing", "steering.keys", "steering.rules", "steering.ways"),
    },
    "steering.arranging": {
        *("config", "diffusion", "models", "measures.novelty", "sampling"),
        *("steering.drawing", "steering.from_riff", "steering.keys", "steering.rules"),
    },
    "steering.picking": {"config", "measures.distances", "measures.novelty", "steering.attributes"},
    "steering.requests": {
        *("config", "diffusion", "midi_utils", "models"),
        *("steering.attributes", "steering.directions", "steering.drawing", "steering.keys", "steering.rules"),
    },
    "checkpoints": {
        *("config", "family.corpus", "diffusion", "files", "dataset", "language_model", "models", "measures.novelty", "pieces", "presets"),
    },
    "training": {"config", "files"},
    "resuming": {"config", "checkpoints", "training"},
    "measures.model_figures": {
        *("config", "language_model", "latents", "measures.metrics", "models", "pieces", "sampling", "training"),
    },
    "output.riff_models": {
        *("checkpoints", "config", "diffusion", "guitar.fretboard", "language_model", "lm_sampling", "midi_utils", "models", "presets"),
        *("sampling", "steering.drawing"),
    },
    "output.riff_output": {
        *(
            "checkpoints",
            "config",
            "dataset",
            "guitar.fretboard",
            "guitar.guitar_pro",
            "measures.metrics",
            "midi_utils",
            "measures.novelty",
            "output.outputs",
            "presets",
        ),
        *("output.riff_models", "steering.attributes", "guitar.tab"),
    },
    "output.riff_modes": {
        *(
            "checkpoints",
            "config",
            "dataset",
            "files",
            "midi_utils",
            "models",
            "measures.novelty",
            "output.outputs",
            "presets",
            "output.riff_models",
        ),
        *("output.riff_output", "sampling"),
        *(
            "steering.attributes",
            "steering.arranging",
            "steering.drawing",
            "steering.from_riff",
            "steering.keys",
            "steering.requests",
            "steering.rules",
        ),
    },
    "family.measures": {"config", "family.drums", "measures.metrics", "measures.novelty"},
    "output.window_models": {
        *("checkpoints", "config", "family.corpus", "family.measures", "diffusion", "latents", "models", "presets"),
    },
    "output.window_modes": {
        *("config", "dataset", "files", "measures.metrics", "family.drums", "family.measures", "midi_utils", "output.outputs", "presets"),
        *("family.windows", "latents", "output.window_models", "sampling", "steering.ways"),
    },
    "output.pictures": {"config", "family.windows", "guitar.fretboard", "midi_utils"},
    "output.piece_output": {
        *("checkpoints", "config", "events", "files", "language_model", "lm_sampling", "midi_utils", "measures.novelty", "output.outputs"),
        *("measures.piece_evaluation", "pieces", "presets", "sampling"),
    },
    "speed.machine": {"products"},
    "speed.bench": {"config", "speed.machine"},
    "speed.original": {"config"},
    "speed.original_server": set(),
    "speed.model_rates": {
        *("config", "diffusion", "family.presets", "language_model", "lm_sampling", "models", "pieces", "presets", "sampling"),
        *("speed.bench", "speed.machine", "speed.original", "training"),
    },
    "speed.tool_rates": {
        *("checkpoints", "config", "dataset", "diffusion", "files", "guitar.fretboard", "guitar.sound", "midi_utils", "output.outputs"),
        *("presets", "speed.bench", "steering", "steering.arranging", "steering.drawing", "steering.from_riff", "steering.picking"),
        *("steering.requests", "training"),
    },
    "measures.studies": {
        "measures.baselines",
        "checkpoints",
        "config",
        "dataset",
        "measures.evaluation",
        "language_model",
        "latents",
        "lm_sampling",
        "measures.model_figures",
        "models",
        "measures.novelty",
        "pieces",
        "presets",
        "sampling",
        "steering.rules",
    },
}
SCRIPTS = OURS - set(LIBRARIES) - {"midi_riffs"}


def imports_of(name: str) -> set[str]:
    """Our own modules that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found & OURS


# ---------------------------------------------------------------- imports run one way


@pytest.mark.parametrize(("name", "allowed"), LIBRARIES.items(), ids=LIBRARIES)
def test_library_imports_only_what_is_before_it(name: str, allowed: set[str]) -> None:
    assert imports_of(name) <= allowed


def test_nothing_imports_a_script() -> None:
    for name in FILES:
        assert not imports_of(name) & SCRIPTS, name


def test_imports_without_torch_and_without_doing_anything() -> None:
    code = "import sys, config, presets, midi_utils, measures.metrics, measures.novelty, measures.evaluation, dataset, check_midi\n"
    code += "import steering.rules, steering.keys\n"
    code += "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_importing_any_file_does_nothing() -> None:
    """Guards against training at import, and against threads or seeds that are set for whoever imports."""
    names = ", ".join(sorted(OURS - {"midi_riffs"}))
    code = f"import random, torch; before = torch.get_rng_state(), torch.get_num_threads(), random.getstate(); import {names}; "
    code += "assert torch.equal(before[0], torch.get_rng_state()); assert before[1:] == (torch.get_num_threads(), random.getstate())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------- precedence


def test_default_then_preset_then_flag() -> None:
    """No preset and no flag that starts from trained weights is in play: those come further below."""
    assert parse_options(TrainVAE, ["--init-from", "none"]) == TrainVAE(
        run=dataclasses.replace(TrainVAE().run, run_dir="runs/riff_2bar"), train=dataclasses.replace(TrainVAE().train, init_from="none")
    )
    conditions = parse_options(TrainDiffusion, []).model.conditions
    assert conditions == PRESETS["riff_2bar"]["diffusion.conditions"] != TrainDiffusion().model.conditions
    tiny = PRESETS["riff_2bar_tiny"]["train_vae.steps"]
    assert tiny != TrainVAE().train.steps
    assert parse_options(TrainVAE, ["--preset", "riff_2bar_tiny"]).train.steps == tiny
    assert parse_options(TrainVAE, ["--preset=riff_2bar_tiny"]).train.steps == tiny
    assert parse_options(TrainVAE, ["--preset", "riff_2bar_tiny", "--steps", "7"]).train.steps == 7
    assert parse_options(TrainVAE, ["--steps", "7", "--preset", "riff_2bar_tiny"]).train.steps == 7


def test_a_preset_reaches_each_script_with_its_own_section_only() -> None:
    vae = parse_options(TrainVAE, ["--preset", "riff_2bar_tiny"])
    diffusion = parse_options(TrainDiffusion, ["--preset", "riff_2bar_tiny"])
    assert vae.model.encoder_size == PRESETS["riff_2bar_tiny"]["model.encoder_size"]
    assert diffusion.model.hidden_size == PRESETS["riff_2bar_tiny"]["diffusion.hidden_size"]
    assert diffusion.train.steps == PRESETS["riff_2bar_tiny"]["train_diffusion.steps"]
    assert parse_options(TrainVAE, ["--preset", "riff_2bar_plain"]).tokenizer.hold_token is False


SCRIPTS_WITH_PRESETS = (TrainVAE, TrainDiffusion, TrainLM, Generate, Evaluate)


@pytest.mark.parametrize("script", SCRIPTS_WITH_PRESETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_for_its_scripts(script: type, preset: str) -> None:
    """The others name the script that it is for."""
    others = {TrainVAE: "train_lm.py", TrainDiffusion: "train_lm.py"} if is_language_model(preset) else {TrainLM: "train_vae.py"}
    if script in others:
        with pytest.raises(UserError, match=others[script]):
            parse_options(script, ["--preset", preset])
    else:
        assert parse_options(script, ["--preset", preset]).preset == preset


def test_every_key_of_every_preset_is_a_field_somewhere() -> None:
    for differences in PRESETS.values():
        for key in differences:
            section, name = key.split(".")
            owners = [script for script in SCRIPTS_WITH_PRESETS if section in script.SECTIONS]
            assert owners, key
            for script in owners:
                part = getattr(script(), script.SECTIONS[section])
                assert name in {field.name for field in dataclasses.fields(part)}, key


# What FINE_TUNING changes, as (section, field) of TrainVAE.
SPECIAL = [(TrainVAE.SECTIONS[key.split(".")[0]], key.split(".")[1], value) for key, value in presets.FINE_TUNING.items()]


def found(options: TrainVAE) -> list:
    return [getattr(getattr(options, section), name) for section, name, _ in SPECIAL]


FINE_TUNED = [value for _, _, value in SPECIAL]
FROM_SCRATCH = found(TrainVAE())


@pytest.mark.parametrize(
    ("flags", "tuned"),
    [
        ([], TrainVAE().train.init_from != "none"),
        (["--init-from", "none"], False),
        (["--init-from=none"], False),
        (["--init_from", "none"], False),
        (["--init-from", "a.pth"], True),
        (["--init-from=a.pth"], True),
        (["--preset", "riff_2bar_plain"], False),
        (["--preset=riff_2bar_plain", "--init-from", "a.pth"], True),
        (["--init-from", "a.pth", "--preset", "riff_2bar_tiny"], True),  # on top of the preset's own steps
    ],
)
def test_starting_from_trained_weights_changes_what_it_says(flags: list[str], tuned: bool) -> None:
    """Guards against a base model that is trained away at the learning rate of a new one, and a new one trained as if it were old."""
    assert FINE_TUNED != FROM_SCRATCH
    assert found(parse_options(TrainVAE, flags)) == (FINE_TUNED if tuned else FROM_SCRATCH)


def test_a_flag_goes_on_top_of_fine_tuning() -> None:
    given = parse_options(TrainVAE, ["--init-from", "a.pth", "--steps", "7", "--eval-interval", "3"])
    assert (given.train.init_from, given.train.steps, given.run.eval_interval) == ("a.pth", 7, 3)
    assert given.train.lr == parse_options(TrainVAE, ["--init-from", "a.pth"]).train.lr != TrainVAE().train.lr
    # ... and touches nothing else, above all not the diffusion model's training
    assert dataclasses.replace(given, run=TrainVAE().run, train=TrainVAE().train) == TrainVAE()
    assert parse_options(TrainDiffusion, ["--init-from", "a.pth"]).train == dataclasses.replace(TrainDiffusion().train, init_from="a.pth")


def test_the_small_presets_start_from_nothing() -> None:
    """Guards against tests and first looks that need a file of other sizes or other tokens."""
    for preset in ("riff_2bar_tiny", "riff_2bar_plain"):
        assert parse_options(TrainVAE, ["--preset", preset]).train.init_from == "none"


def test_the_base_model_fits_the_default_preset() -> None:
    """Guards against a default that refuses to start: other sizes, other tokens, or nothing known of what it was trained on."""
    from checkpoints import load_vae, training_riffs

    options = parse_options(TrainVAE, [])
    if options.train.init_from == "none":
        pytest.skip("the default preset starts from nothing")
    path = ROOT / config.BASE_MODEL
    assert options.train.init_from == config.BASE_MODEL and path.stat().st_size < 10_000_000
    vae, content = load_vae(path)
    assert (vae.config, vae.tokenizer) == (options.model, options.tokenizer)
    known = training_riffs(content, vae.tokenizer)
    assert len(known.names) == len(set(known.names)) == content["data"]["riffs"] > 0
    assert known.nearest(content["known"]["tokens"][:5].numpy().astype(int)).copy.all()


def test_run_dir_follows_the_preset_unless_given() -> None:
    assert Path(parse_options(TrainVAE, []).run.run_dir) == Path("runs/riff_2bar")
    assert Path(parse_options(Generate, ["--preset", "riff_2bar_plain"]).run.run_dir) == Path("runs/riff_2bar_plain")
    assert parse_options(TrainVAE, ["--run-dir", "elsewhere"]).run.run_dir == "elsewhere"


@pytest.mark.parametrize("script", ["config", "presets", "check_midi", "cut_riffs", "evaluate", "visualize_tokens"])
def test_every_option_says_what_it_is(script: str) -> None:
    """The comment behind a field is its help; a line too long is wrapped by the formatter, and its help is lost."""
    assert not re.findall(r"^    [a-z_]+: [^=\n]+ = \($", (ROOT / f"{script}.py").read_text(encoding="utf-8"), flags=re.M)


# ---------------------------------------------------------------- mistakes


def test_unknown_flag_exits_2_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_options(TrainVAE, ["--batch-sise", "3"])
    assert stop.value.code == 2
    assert "--batch-size" in capsys.readouterr().err


def test_unknown_preset_names_the_choices() -> None:
    for ask in (lambda: parse_options(TrainVAE, ["--preset", "nope"]), lambda: presets.require_preset("nope")):
        with pytest.raises(UserError, match=r"--preset nope: choose from .*riff_2bar"):
            ask()
    for preset in PRESETS:
        presets.require_preset(preset)


BAD_FLAGS = [
    (TrainVAE, "--steps", "0"),
    (TrainVAE, "--batch-size", "0"),
    (TrainVAE, "--lr", "0"),
    (TrainVAE, "--lr", "nan"),
    (TrainVAE, "--lr-final", "1.5"),
    (TrainVAE, "--warmup", "-1"),
    (TrainVAE, "--grad-clip", "0"),
    (TrainVAE, "--weight-decay", "-1"),
    (TrainVAE, "--beta", "-0.1"),
    (TrainVAE, "--beta", "nan"),
    (TrainVAE, "--beta-anneal", "-1"),
    (TrainVAE, "--free-bits", "-1"),
    (TrainVAE, "--word-dropout", "1.1"),
    (TrainVAE, "--scheduled-sampling", "-0.1"),
    (TrainVAE, "--bars", "0"),
    (TrainVAE, "--bars", "65"),
    (TrainVAE, "--steps-per-beat", "0"),
    (TrainVAE, "--holdout", "1"),
    (TrainVAE, "--low", "0"),
    (TrainVAE, "--high", "128"),
    (TrainVAE, "--grid-tolerance", "0.6"),
    (TrainVAE, "--max-off-grid", "2"),
    (TrainVAE, "--max-bars", "-1"),
    (TrainVAE, "--min-notes", "0"),
    (TrainVAE, "--transpose", "25"),
    (TrainVAE, "--split-seed", "-1"),
    (TrainVAE, "--most-riffs", "-1"),
    (Generate, "--max-copy", "-0.1"),
    (Generate, "--max-copy", "1.01"),
    (Generate, "--max-copy", "nan"),
    (TrainVAE, "--embed-size", "0"),
    (TrainVAE, "--z-size", "0"),
    (TrainVAE, "--seed", "-1"),
    (TrainVAE, "--threads", "-1"),
    (TrainVAE, "--device", "abacus"),
    (TrainVAE, "--log-interval", "0"),
    (TrainVAE, "--save-interval", "0"),
    (TrainDiffusion, "--hidden-size", "7"),
    (TrainDiffusion, "--blocks", "0"),
    (TrainDiffusion, "--num-timesteps", "9"),
    (TrainDiffusion, "--ema-decay", "1"),
    (Generate, "--temperature", "-1"),
    (Generate, "--temperature", "nan"),
    (Generate, "--temperature", "inf"),
    (Generate, "--rest-penalty", "nan"),
    (Generate, "--top-p", "0"),
    (Generate, "--top-p", "1.01"),
    (Generate, "--top-k", "-1"),
    (Generate, "--eta", "2"),
    (Generate, "--sampling-steps", "0"),
    (Generate, "--num-outputs", "0"),
    (Generate, "--bpm", "5"),
    (Generate, "--program", "128"),
]


@pytest.mark.parametrize(("script", "flag", "value"), BAD_FLAGS, ids=[f"{flag}={value}" for _, flag, value in BAD_FLAGS])
def test_a_bad_value_is_one_line_that_names_the_flag(script: type, flag: str, value: str) -> None:
    with pytest.raises(UserError) as error:
        parse_options(script, [flag, value])
    assert flag in str(error.value)
    assert "\n" not in str(error.value)


def test_low_above_high_is_refused() -> None:
    with pytest.raises(UserError, match="--low 60 --high 50"):
        parse_options(TrainVAE, ["--low", "60", "--high", "50"])


def test_run_script_turns_a_user_error_into_one_line_and_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["thing.py"])

    def main(argv):
        raise UserError("no such riff")

    with pytest.raises(SystemExit) as stop:
        config.run_script(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "thing.py: no such riff\n"


def test_run_script_turns_a_full_disk_into_one_line_and_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["thing.py"])

    def main(argv):
        raise OSError(28, "No space left on device", "a.mid")

    with pytest.raises(SystemExit) as stop:
        config.run_script(main)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a.mid" in error and "No space left" in error


@pytest.mark.parametrize(("kind", "next_step"), [("EACCES", "another folder"), ("EROFS", "another folder"), ("EISDIR", "move it away")])
def test_what_the_system_refuses_has_a_next_step(
    kind: str, next_step: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["thing.py"])

    def main(argv):
        raise OSError(getattr(errno, kind), "no", "a.mid")

    with pytest.raises(SystemExit) as stop:
        config.run_script(main)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a.mid" in error and next_step in error


@pytest.mark.parametrize("below", ["", "run"])
@pytest.mark.parametrize("make", [make_room, lambda folder: write_file(folder / "a.txt", b"")])
def test_a_file_where_a_folder_should_be_is_said_and_stays(
    below: str, make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["thing.py"])
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        config.run_script(lambda _: make(file / below))
    assert stop.value.code == 2 and file.read_text() == "mine"
    error = capsys.readouterr().err
    assert error.startswith(f"thing.py: cannot write {file}") and error.count("\n") == 1 and ".tmp" not in error
    assert "a file stands where a folder should be" in error and "give another folder" in error


@pytest.mark.parametrize("code", [0, 1])
def test_run_script_ends_with_what_main_returns(code: int) -> None:
    with pytest.raises(SystemExit) as stop:
        config.run_script(lambda argv: code)
    assert stop.value.code == code


# ---------------------------------------------------------------- small parts


def test_parse_seeds() -> None:
    assert parse_seeds("7") == [7]
    assert parse_seeds("0-3,8") == [0, 1, 2, 3, 8]
    assert parse_seeds("5, 2-2") == [5, 2]


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "5-2", "1,1", "0-3,2", "0-100000", "1,,2"])
def test_parse_seeds_refuses(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_tokenizer_sizes() -> None:
    two_bars = TokenizerConfig()
    assert (two_bars.steps_per_bar, two_bars.steps, two_bars.vocab_size) == (16, 32, 129)
    assert TokenizerConfig(hold_token=False).vocab_size == 128
    assert TokenizerConfig(bars=4, steps_per_beat=3).steps == 48


def test_format_options_shows_every_field() -> None:
    text = presets.format_options(TrainVAE())
    for field in dataclasses.fields(DataConfig):
        assert f"  {field.name}: {getattr(DataConfig(), field.name)}" in text.splitlines()
