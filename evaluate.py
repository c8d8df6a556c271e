"""Say how good, how varied and how copied riffs are, beside real riffs and beside rivals that any metric should catch.

python evaluate.py                                      the run of the preset
python evaluate.py runs/seed0 runs/seed1 runs/seed2     several runs put together (training seeds, splits)
python evaluate.py --generated DIR --reference DIR      any two folders of MIDI files; no model is needed

Prints tables and writes them as metrics.json, metrics.md and one picture for each metric. Exit 0 whatever the verdicts are.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

import reports
from baselines import TOKEN_BASELINES, gaussian_mixtures, jittered_latents
from config import (
    DIFFUSION_FILE,
    VAE_FILE,
    DataConfig,
    Generate,
    RunConfig,
    SampleConfig,
    TokenizerConfig,
    UserError,
    format_options,
    require_preset,
    run_script,
)
from dataset import RiffData, load_riffs, plural
from evaluation import METRICS, MODEL, MOST, Row, Study, compare
from files import make_room, refuse_foreign_picture, save_picture, write_files
from novelty import TrainingRiffs

if TYPE_CHECKING:
    from models import RiffVAE

LEAST_HELD = 2  # riffs that real music can be compared with
FEW = 20  # riffs below which a verdict says little


@dataclass(frozen=True)
class Evaluate:
    """Say how good, how varied and how copied riffs are."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()  # run folders to put together; none: --run-dir
    preset: str = "riff_2bar"  # which run to judge, if no folder is given
    data: str = ""  # folder of the riffs the run was trained on; default: where it was
    generated: str = ""  # folder of MIDI riffs to judge instead of a model's
    reference: str = ""  # folder of MIDI riffs to judge them by
    num_outputs: int = 1000  # riffs of each row
    output_dir: str = ""  # where to write; default: evaluation/ in the run folder, in runs/ for several, or in the folder of --generated
    pictures: bool = True  # draw one picture for each metric
    run: RunConfig = field(default_factory=RunConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        require_preset(self.preset)
        if not 10 <= self.num_outputs <= 100_000:
            raise UserError(f"--num-outputs {self.num_outputs}: give 10 to 100000")
        if bool(self.generated) != bool(self.reference):
            raise UserError("--generated and --reference go together: give both folders, or a run")
        if self.generated and self.runs:
            raise UserError("give run folders or --generated and --reference, not both")


# ---------------------------------------------------------------- a trained run


def rows_of(riff_data: RiffData, held_out: bool) -> Row:
    """The training or the held-out riffs of a folder; of very many, a fixed choice."""
    chosen = np.flatnonzero(riff_data.held_out == held_out)
    if len(chosen) > MOST:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MOST, replace=False))
    songs = np.array([riff_data.songs[i] for i in riff_data.song[chosen]])
    return Row(riff_data.tokens[chosen], np.array([riff_data.riffs[i].bpm for i in chosen]), songs)


def token_rivals(train: np.ndarray, tokenizer: TokenizerConfig, count: int, seed: int) -> dict[str, np.ndarray]:
    """The rivals that need no model. int64 [count, steps] each"""
    return {
        name: make(train, tokenizer, count, np.random.default_rng(np.random.SeedSequence([seed, number])))
        for number, (name, make) in enumerate(TOKEN_BASELINES.items())
    }


def latent_rivals(
    vae: RiffVAE, riff_data: RiffData, seen: np.ndarray, count: int, seed: int, decoded: Callable[[np.ndarray, int], np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The rivals that stand in for the diffusion model.

    Args:
        seen: int64 [n, steps], riffs that the diffusion model was trained on.
        decoded: latents [count, Z] and a number -> tokens.

    Returns:
        tokens of each, int64 [count, steps]; and the components of the mixtures.
    """
    import torch

    from latents import latent_table

    device = next(vae.parameters()).device
    table = latent_table(vae, seen, device)
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(table.mu.shape), dtype=np.float32))
    mixtures, components = gaussian_mixtures((table.mu + table.std * noise).numpy(), count, seed % 2**32)
    rows = {name: decoded(z, number) for number, (name, z) in enumerate(mixtures.items())}
    own = latent_table(vae, riff_data.train_tokens[:MOST], device).mu.numpy()
    rows["nearest-neighbour jitter"] = decoded(jittered_latents(own, count, np.random.default_rng(seed)), 2)
    return rows, components


def study_of_run(folder: Path, options: Evaluate) -> Study:
    """Draw every row of a run.

    Raises:
        UserError: no models there, nothing was held out, or the riffs changed.
    """
    import torch

    from checkpoints import load_diffusion, load_same_riffs, load_vae, training_riffs
    from config import VAETrainConfig
    from latents import latent_table, prior_tokens
    from sampling import decode, reconstruct, sample_riffs
    from training import choose_device
    from vae_figures import final_figures

    print(f"{folder}: drawing {options.num_outputs} riffs a row", flush=True)
    device = choose_device(options.run.device)
    vae, content = load_vae(folder / VAE_FILE, str(device))
    diffusion, its_content = load_diffusion(folder / DIFFUSION_FILE, vae, str(device))
    riff_data = load_same_riffs(content, vae.tokenizer, options.data, folder / VAE_FILE)
    if riff_data.held_out.sum() < LEAST_HELD:
        raise UserError(f"{folder}: no riffs were held out to compare with; train on two songs or more, with --holdout above 0")
    count, seed, sample = options.num_outputs, options.run.seed, options.sample
    pitch_range = (content["data"]["lowest"], content["data"]["highest"])
    seeds = range(seed, seed + count)

    def decoded(z: np.ndarray, number: int) -> np.ndarray:
        uniform = np.random.default_rng(np.random.SeedSequence([seed, number, 7])).random((len(z), vae.tokenizer.steps), dtype=np.float32)
        parts = zip(torch.from_numpy(z).split(1024), torch.from_numpy(uniform).split(1024), strict=True)
        return np.concatenate([decode(vae, a.to(device), b.to(device), sample, pitch_range).cpu().numpy() for a, b in parts])

    def encode(tokens: np.ndarray) -> np.ndarray:
        return latent_table(vae, tokens, device).mu.double().numpy()

    known = training_riffs(content, vae.tokenizer)
    prior = diffusion if sample.prior == "diffusion" else None
    rows = {MODEL: sample_riffs(vae, prior, seeds, sample, pitch_range)[0]}  # first draws: copies count, as they do for the rivals
    rows["N(0, I) prior"] = sample_riffs(vae, None, seeds, sample, pitch_range)[0]
    its = its_content["options"]
    seen = {"latents": its["train"]["latents"], "transpose": its["train"]["prior_transpose"], "seed": its["run"]["seed"]}
    rivals, components = latent_rivals(vae, riff_data, prior_tokens(riff_data, **seen)[:4096], count, seed, decoded)
    rows |= rivals
    rows |= token_rivals(riff_data.train_tokens, vae.tokenizer, count, seed)
    train, held = rows_of(riff_data, False), rows_of(riff_data, True)
    made = {name: Row(tokens, np.full(len(tokens), content["data"]["bpm"])) for name, tokens in rows.items()}
    again = reconstruct(vae, torch.from_numpy(held.tokens)).numpy()
    made["held-out, autoencoded"] = dataclasses.replace(held, tokens=again)
    trained = VAETrainConfig(
        **{k: v for k, v in content["options"]["train"].items() if k in {f.name for f in dataclasses.fields(VAETrainConfig)}}
    )
    facts = {"vae": final_figures(vae, riff_data, trained, device), "mixture_components": components, "step": content["step"]}
    facts["drawn_again"] = int(known.nearest(rows[MODEL]).too_close(Generate.max_copy).sum())
    return Study(str(folder), vae.tokenizer, train, held, known, made, encode, facts)


# ---------------------------------------------------------------- two folders


def study_of_folders(options: Evaluate) -> Study:
    """Riffs of one folder, judged by another whose songs are parted: half of them stand for training, half for comparison.

    Raises:
        UserError: a folder without usable riffs, or a reference of one song.
    """
    tokenizer = TokenizerConfig()
    reference = load_riffs(DataConfig(data=options.reference, holdout=0.5), tokenizer)
    made = load_riffs(DataConfig(data=options.generated, holdout=0.0, max_bars=0), tokenizer, generated=True)
    for folder, riff_data in ((options.generated, made), (options.reference, reference)):
        refused = sum(not row.riffs for row in riff_data.rows)
        print(f"{folder}: {plural(len(riff_data.tokens), 'riff')} of {plural(len(riff_data.rows), 'file')}, {refused} of them refused")
    calls = generate_calls(Path(options.generated))
    if calls > 1:
        print(f"{options.generated}: generate.py wrote these in {calls} calls with different models or settings; they are judged as one")
    if reference.held_out.sum() < LEAST_HELD:
        raise UserError(f"{options.reference}: needs riffs of two songs or more (the part of a file name before _ is its song)")
    train, held = rows_of(reference, False), rows_of(reference, True)
    names = np.array([reference.songs[i] for i in reference.song])
    known = TrainingRiffs(reference.tokens, reference.names, tokenizer, names)  # copies of any of them count
    shown = np.sort(np.random.default_rng(options.run.seed).permutation(len(made.tokens))[: options.num_outputs])
    rows = {MODEL: Row(made.tokens[shown], np.array([made.riffs[i].bpm for i in shown]))}
    rivals = token_rivals(reference.train_tokens, tokenizer, options.num_outputs, options.run.seed)
    rows |= {name: Row(tokens, np.full(len(tokens), float(np.median(train.bpm)))) for name, tokens in rivals.items()}
    refused = Counter(row.reason for row in made.rows if not row.riffs)
    return Study(options.generated, tokenizer, train, held, known, rows, facts={"refused": dict(refused)})


def generate_calls(folder: Path) -> int:
    """How many different models and settings the JSON files of generate.py in a folder tell of."""
    found = set()
    for path in folder.rglob("riff_seed*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found.add(json.dumps([record["vae"], record["diffusion"], record["settings"]], sort_keys=True))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return len(found)


# ---------------------------------------------------------------- main


def vae_table(studies: Sequence[Study]) -> str:
    """Losses and accuracies of the VAEs, means over the runs with the least and the most."""
    from vae_figures import FIGURE_LABELS

    figures = [study.facts["vae"] for study in studies]
    lines = [f"{'VAE':38s}{'training riffs':>28s}{'held-out riffs':>28s}"]
    for key, label in FIGURE_LABELS.items():
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


def output_folder(options: Evaluate, runs: Sequence[Path]) -> Path:
    """Where to write, made ready before the work.

    Raises:
        UserError: a run is named twice, a folder is not there, or a file there is not ours.
    """
    if options.generated:
        source = Path(options.generated)
        default = source / "evaluation"
    else:
        if len({run.resolve() for run in runs}) < len(runs):
            raise UserError("a run folder is named twice; name each once")
        source = runs[0]
        default = runs[0] / "evaluation" if len(runs) == 1 else Path("runs/evaluation")
    if not source.is_dir():
        raise UserError(f"{source}: no such folder" + "; run train_vae.py and train_diffusion.py first" * (not options.generated))
    folder = Path(options.output_dir or default)
    record, table = folder / "metrics.json", folder / "metrics.md"
    if record.exists() or table.exists():
        try:
            ours = "metrics" in json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            ours = False
        if not ours:
            raise UserError(f"{folder}: holds a metrics.json or metrics.md that evaluate.py did not write; give another --output-dir")
    for key in METRICS if options.pictures else ():
        refuse_foreign_picture(folder / f"{key}.png")
    make_room(folder)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    options = tyro.cli(Evaluate, args=argv, config=(tyro.conf.OmitArgPrefixes,))
    if options.run.dry_run:
        print(format_options(options))
        return 0
    begin = time.perf_counter()
    runs = [Path(run) for run in options.runs or [options.run.run_dir or f"runs/{options.preset}"]]
    folder = output_folder(options, runs)
    if options.generated:
        studies = [study_of_folders(options)]
    else:
        from training import choose_threads

        choose_threads(options.run.threads)
        studies = [study_of_run(run, options) for run in runs]
    if len({study.tokenizer for study in studies}) > 1:
        raise UserError("the runs have different tokens (presets); evaluate them one by one")
    print("measuring", flush=True)
    results = compare(studies, options.run.seed)

    count = len(studies[0].rows[MODEL].tokens)
    held = [len(study.held.tokens) for study in studies]
    real = " + ".join(map(str, held))
    print(f"\n{', '.join(study.name for study in studies)}: {count} new riffs, judged by {real} real ones that were held out")
    print(reports.plain_words(results))
    if count < FEW or min(held) < FEW:
        print(f"So few riffs ({count} new, {min(held)} real) say little: with {FEW} or more of each, verdicts begin to mean something.")
    print(f"\n{reports.text_table(results)}\n\n{reports.legend(results)}")
    print(f"\n{reports.verdict_lines(results)}\n\n{reports.losers(results)}")
    record: dict[str, Any] = {"runs": [study.name for study in studies], "riffs": count, "seed": options.run.seed}
    record |= {"settings": dataclasses.asdict(options.sample), "metrics": results}
    record["models"] = [study.facts for study in studies]
    if not options.generated:
        again = ", ".join(str(study.facts["drawn_again"]) for study in studies)
        print(f"\ncopies that generate.py would draw again: {again} of {options.num_outputs}\n\n{vae_table(studies)}")
    markdown = f"{reports.markdown_table(results)}\n\nBold: not a value that real riffs have.\n"
    text = json.dumps(plain(record), indent=1) + "\n"
    write_files({folder / "metrics.json": text.encode(), folder / "metrics.md": markdown.encode()})
    if options.pictures:
        for key, metric in results.items():
            save_picture(reports.picture(metric), folder / f"{key}.png")
    print(
        f"\n{folder}: metrics.json, metrics.md"
        + ", one picture for each metric" * options.pictures
        + f" ({time.perf_counter() - begin:.0f} s)"
    )
    return 0


if __name__ == "__main__":
    run_script(main)
