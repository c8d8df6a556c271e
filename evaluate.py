"""Say how good, how varied and how copied riffs are, beside real riffs and beside rivals that any metric should catch.

python evaluate.py                                      the run of the preset
python evaluate.py runs/seed0 runs/seed1 runs/seed2     several runs put together (training seeds, splits)
python evaluate.py --beside runs/riff_2bar_lstm         with a language model of the same riffs as one more rival
python evaluate.py --preset events_lstm                 whole pieces of a language model
python evaluate.py --generated DIR --reference DIR      any two folders of MIDI files; no model is needed

Prints tables and writes them as metrics.json, metrics.md and one picture for each metric. Exit 0 whatever the verdicts are.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import tyro

from config import RunConfig, SampleConfig, UserError, run_script
from events import EOS
from files import make_room, refuse_foreign_picture, save_picture, write_files
from measures import reports
from measures.evaluation import METRICS, MODEL, compare
from measures.piece_evaluation import PIECE_METRICS, compare_pieces
from presets import format_options, is_language_model, is_of_windows, parse_options, require_preset, writes_events

if TYPE_CHECKING:  # torch is loaded when it is needed
    from measures.studies import Drawing

FEW = 20  # riffs below which a verdict says little
RIFFS, PIECES = 1000, 100  # of each row, unless --num-outputs says otherwise


@dataclass(frozen=True)
class Evaluate:
    """Say how good, how varied and how copied riffs are."""

    SECTIONS: ClassVar[dict[str, str]] = {"sample": "sample"}

    runs: tyro.conf.Positional[tuple[str, ...]] = ()  # run folders to put together; none: --run-dir
    preset: str = "riff_2bar"  # which run to judge, if no folder is given
    data: str = ""  # folder of the riffs the run was trained on; default: where it was
    generated: str = ""  # folder of MIDI riffs to judge instead of a model's
    reference: str = ""  # folder of MIDI riffs to judge them by
    beside: tuple[str, ...] = ()  # run folder of a language model of the same riffs (one for each run), to be set beside the VAE
    num_outputs: int = 0  # riffs or pieces of each row; 0: 1000 riffs, 100 pieces
    output_dir: str = ""  # where to write; default: evaluation/ in the run folder; for several runs, or --generated, runs/evaluation
    pictures: bool = True  # draw one picture for each metric
    run: RunConfig = field(default_factory=RunConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        require_preset(self.preset)
        if self.num_outputs and not 10 <= self.num_outputs <= 100_000:
            raise UserError(f"--num-outputs {self.num_outputs}: give 10 to 100000, or 0")
        if bool(self.generated) != bool(self.reference):
            raise UserError("--generated and --reference go together: give both folders, or a run")
        if self.generated and self.runs:
            raise UserError("give run folders or --generated and --reference, not both")
        if self.beside and len(self.beside) != len(self.runs or ("",)):
            raise UserError(f"--beside: {len(self.beside)} folders for {len(self.runs) or 1} runs; give one for each run")


LM_LABELS = {
    "loss": "loss, nats per token", "perplexity": "perplexity", "accuracy": "accuracy", "nats_per_piece": "nats per riff or piece",
    "n-gram loss": "5-grams: loss, nats per token", "n-gram perplexity": "5-grams: perplexity",
}  # fmt: skip


def figure_table(head: str, labels: Mapping[str, str], figures: Sequence[Mapping[str, Any]]) -> str:
    """Figures on training and held-out music, means over the runs with the least and the most."""
    lines = [f"{head:38s}{'training':>28s}{'held-out':>28s}"]
    for key, label in labels.items():
        cells = []
        for part in ("train", "held out"):
            values = [float(figure[part][key]) for figure in figures]
            spread = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3g}{spread}")
        lines.append(f"{label:38s}" + "".join(f"{cell:>28s}" for cell in cells))
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """For JSON: NaN, which it has no word for, becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(f"{float(value):.6g}")
    return value


def output_folder(options: Evaluate, runs: Sequence[Path], metrics: Iterable[str] = METRICS) -> Path:
    """Where to write, made ready before the work.

    Raises:
        UserError: a run is named twice, a folder is not there, or a file there is not ours.
    """
    if options.generated:
        source, default = Path(options.generated), Path("runs/evaluation")
    else:
        if len({run.resolve() for run in runs}) < len(runs):
            raise UserError("a run folder is named twice; name each once")
        source = runs[0]
        default = runs[0] / "evaluation" if len(runs) == 1 else Path("runs/evaluation")
    if source.is_file():
        raise UserError(f"{source}: is a file; give the folder it is in")
    if not source.is_dir():
        maker = "train_lm.py" if is_language_model(options.preset) else "train_vae.py and train_diffusion.py"
        raise UserError(f"{source}: no such folder" + f"; run {maker} first" * (not options.generated))
    folder = Path(options.output_dir or default)
    record, table = folder / "metrics.json", folder / "metrics.md"
    if record.exists() or table.exists():
        try:
            ours = "metrics" in json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            ours = False
        if not ours:
            raise UserError(f"{folder}: holds a metrics.json or metrics.md that evaluate.py did not write; give another --output-dir")
    for key in metrics if options.pictures else ():
        refuse_foreign_picture(folder / f"{key}.png")
    make_room(folder)
    return folder


def evaluate_riffs(options: Evaluate, runs: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Riffs of runs or of a folder. -> metrics, what else to record, and what to print of the models"""
    from measures.model_figures import FIGURE_LABELS
    from measures.studies import study_of_folders, study_of_riff_lm, study_of_run

    count = options.num_outputs or RIFFS
    if options.generated:
        studies = [study_of_folders(options.generated, options.reference, count, options.run.seed)]
    else:
        drawing = drawing_of(options, count)
        for run in runs:
            print(f"{run}: drawing {count} riffs a row", flush=True)
        beside = [Path(run) for run in options.beside] or [None] * len(runs)
        if is_language_model(options.preset):
            studies = [study_of_riff_lm(run, drawing) for run in runs]
        else:
            studies = [study_of_run(run, drawing, other) for run, other in zip(runs, beside, strict=True)]
    if len({study.tokenizer for study in studies}) > 1:
        raise UserError("the runs have different tokens (presets); evaluate them one by one")
    print("measuring", flush=True)
    results = compare(studies, options.run.seed)
    shown, held = len(studies[0].rows[MODEL].tokens), [len(study.held.tokens) for study in studies]
    print(
        introduction([study.name for study in studies], "riffs", shown, held, "half of the reference" if options.generated else "held out")
    )
    facts, tables = [study.facts for study in studies], []
    if not options.generated:
        again = ", ".join(str(fact["drawn_again"]) for fact in facts)
        tables.append(f"copies that generate.py would draw again: {again} of {count}")
    for key, head, labels in (("vae", "VAE", FIGURE_LABELS), ("language_model", "language model (LSTM)", LM_LABELS)):
        if all(key in fact for fact in facts):
            tables.append(figure_table(head, labels, [fact[key] for fact in facts]))
    return results, {"runs": [study.name for study in studies], "riffs": shown, "models": facts}, "\n\n".join(tables)


def evaluate_pieces(options: Evaluate, runs: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Pieces of a run. -> metrics, what else to record, and what to print of the model"""
    from measures.studies import study_of_pieces

    if len(runs) > 1 or options.beside:
        raise UserError("models of events are judged one at a time; give one run folder")
    count = options.num_outputs or PIECES
    print(f"{runs[0]}: drawing {count} pieces a row", flush=True)
    study = study_of_pieces(runs[0], drawing_of(options, count))
    print("measuring", flush=True)
    results = compare_pieces(study.held, study.rows, study.known, study.events, options.run.seed)
    print(introduction([str(runs[0])], "pieces", count, [len(study.held)]))
    ended = np.mean([piece[-1] == EOS for piece in study.rows[MODEL]])
    table = figure_table("language model (LSTM)", LM_LABELS, [study.facts["language_model"]])
    return (
        results,
        {"runs": [str(runs[0])], "pieces": count, "models": [study.facts]},
        f"pieces that ended by themselves: {ended:.0%}\n\n{table}",
    )


def introduction(names: Sequence[str], noun: str, count: int, held: Sequence[int], which: str = "held out") -> str:
    """What is compared with what, and whether it is enough."""
    text = f"\n{', '.join(names)}: {count} new {noun}, judged by {' + '.join(map(str, held))} real ones ({which})"
    if count < FEW or min(held) < FEW:
        text += f"\nSo few {noun} ({count} new, {min(held)} real) say little: with {FEW} or more of each, verdicts begin to mean something."
    return text


def drawing_of(options: Evaluate, count: int) -> Drawing:
    """How the rows of a run are drawn; makes threads and device ready."""
    from measures.studies import Drawing
    from training import choose_device, choose_threads

    choose_threads(options.run.threads)
    return Drawing(count, options.run.seed, choose_device(options.run.device), options.data, options.sample)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(Evaluate, argv)
    if options.run.dry_run:
        print(format_options(options))
        return 0
    if is_of_windows(options.preset) and not options.generated:
        raise UserError(f"{options.preset}: is of windows of songs; evaluate.py judges riffs and pieces, generate.py measures each window")
    begin = time.perf_counter()
    runs = [Path(run) for run in options.runs or [options.run.run_dir]]
    pieces = writes_events(options.preset) and not options.generated
    folder = output_folder(options, runs, PIECE_METRICS if pieces else METRICS)
    results, about, models = evaluate_pieces(options, runs) if pieces else evaluate_riffs(options, runs)
    noun = "pieces" if pieces else "riffs"
    print(reports.plain_words(results, noun=noun))
    print(f"\n{reports.text_table(results, noun)}\n\n{reports.legend(results, noun)}")
    print(f"\n{reports.verdict_lines(results, noun=noun)}\n\n{reports.losers(results)}\n\n{models}")
    record = {**about, "seed": options.run.seed, "settings": dataclasses.asdict(options.sample), "metrics": results}
    meanings = "\n".join(f"- {metric['label']}: {metric['meaning']}" for metric in results.values())
    parts = [reports.plain_words(results, noun=noun), reports.markdown_table(results, noun), f"Bold: not a value that real {noun} have."]
    markdown = "\n\n".join([*parts, meanings]) + "\n"
    text = json.dumps(plain(record), indent=1) + "\n"
    write_files({folder / "metrics.json": text.encode(), folder / "metrics.md": markdown.encode()})
    if options.pictures:
        for key, metric in results.items():
            save_picture(reports.picture(metric, noun), folder / f"{key}.png")
    pictures = ", one picture for each metric" * options.pictures
    print(f"\n{folder}: metrics.json, metrics.md{pictures} ({time.perf_counter() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    run_script(main)
