"""Draw what the tokens look like: riffs, training curves and the latent space, as PNG files; no window is needed.

python visualize_tokens.py                 all pictures of the run
python visualize_tokens.py data            riffs of the training folder
python visualize_tokens.py samples         held-out riffs, their reconstructions and new riffs side by side
python visualize_tokens.py latent          where real and generated riffs lie in the latent space (PCA)
python visualize_tokens.py curves          training and held-out curves of both models
python visualize_tokens.py FILE.mid ...    any MIDI files
python visualize_tokens.py FILE.mid --tab  the same with its tab above
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from config import DIFFUSION_FILE, MAX_PITCH, VAE_FILE, GuitarConfig, SampleConfig, SongConfig, TokenizerConfig, UserError, run_script
from dataset import RiffData, load_riffs, read_file_riffs
from family.windows import kit_of, read_windows
from files import new_picture, save_picture
from guitar.tab import board_for
from midi_utils import MidiError, Riff
from output.pictures import LINE, draw_riff, draw_tab, draw_window, parts_of
from presets import TrainVAE, is_of_windows, preset_options, require_preset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL, MADE = "#1f3b57", "#d1603d"


@dataclass(frozen=True)
class Visualize:
    """Draw riffs, training curves and the latent space as PNG files."""

    what: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # data, samples, latent, curves, or MIDI files; nothing draws all four
    preset: str = "riff_2bar"  # which run to draw, if --run-dir is not given
    run_dir: str = ""  # folder of the run; default runs/<preset>
    output_dir: str = ""  # where to write the pictures; default: pictures/ in the run folder
    num_outputs: int = 6  # riffs per column of the token grids
    seed: int = 0  # seed of the first sample shown
    tab: bool = False  # draw the tab over each piano roll
    guitar: GuitarConfig = field(default_factory=GuitarConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        require_preset(self.preset)
        if not 1 <= self.num_outputs <= 32:
            raise UserError(f"--num-outputs {self.num_outputs}: give 1 to 32 riffs")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: give 0 or more")


# ---------------------------------------------------------------- riffs


def token_grid(
    columns: dict[str, list[tuple[str, np.ndarray]]], tokenizer: TokenizerConfig, heading: str, options: Visualize | None = None
) -> Figure:
    """Columns of riffs side by side.

    Args:
        columns: heading -> (title, tokens [T]) from top to bottom.
        options: say whether to draw the tab too, and on which guitar.
    """
    rows = max(len(column) for column in columns.values())
    board = None
    if options is not None and options.tab:
        board = board_for([Riff(tokens) for column in columns.values() for _, tokens in column], tokenizer, options.guitar)
        heading += f"; tab: {board.name}"
    high = 1.25 if board is None else 2.2
    figure = new_picture(3.4 * len(columns) + 0.4, high * rows + 0.6)
    grid = figure.add_gridspec(rows, len(columns))
    for at, (name, riffs) in enumerate(columns.items()):
        for row, (title, tokens) in enumerate(riffs):
            title = f"{name}: {title}" if name.strip() else title
            if board is None:
                draw_riff(figure.add_subplot(grid[row, at]), tokens, tokenizer, title)
                continue
            upper, lower = grid[row, at].subgridspec(2, 1, height_ratios=[3, 4], hspace=0.02)
            axes = figure.add_subplot(upper)
            draw_tab(axes, tokens, tokenizer, board)
            draw_riff(figure.add_subplot(lower), tokens, tokenizer)
            axes.set_title(title.encode("utf-8", "replace").decode(), fontsize=6.5, loc="left", pad=2, parse_math=False)
    figure.suptitle(heading, fontsize=9)
    return figure


def in_columns(music: Sequence[tuple[str, np.ndarray]]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Three columns without a heading, filled one after the other. music: (title, tokens or steps)"""
    size = max(1, -(-len(music) // 3))
    return {" " * (at // size + 1): list(music[at : at + size]) for at in range(0, len(music), size)}


def picture_of_data(run: Run, options: Visualize) -> Figure:
    riff_data = run.riff_data()
    chosen = np.linspace(0, len(riff_data.riffs) - 1, min(len(riff_data.riffs), 3 * options.num_outputs)).astype(int)
    riffs = [(riff_data.riffs[i].name, riff_data.tokens[i]) for i in dict.fromkeys(chosen.tolist())]
    return token_grid(
        in_columns(riffs), riff_data.tokenizer, f"{len(riffs)} of the {len(riff_data.riffs)} riffs of {riff_data.folder}", options
    )


def picture_of_samples(run: Run, options: Visualize) -> Figure:
    import torch

    from sampling import reconstruct, sample_riffs

    riff_data, vae = run.riff_data(), run.vae()
    held = np.flatnonzero(riff_data.held_out if riff_data.held_out.any() else ~riff_data.held_out)
    shown = held[np.linspace(0, len(held) - 1, min(options.num_outputs, len(held))).astype(int)]
    again = reconstruct(vae, torch.from_numpy(riff_data.tokens[shown])).numpy()
    seeds = list(range(options.seed, options.seed + options.num_outputs))
    diffusion = run.diffusion()
    made, _ = sample_riffs(vae, diffusion, seeds, options.sample)
    columns = {
        "held out" if riff_data.held_out.any() else "data": [(riff_data.riffs[i].name, riff_data.tokens[i]) for i in shown],
        "reconstruction": [(riff_data.riffs[i].name, tokens) for i, tokens in zip(shown, again, strict=True)],
        "new": [(f"seed {seed}", tokens) for seed, tokens in zip(seeds, made, strict=True)],
    }
    prior = "diffusion" if diffusion is not None else "N(0, I)"
    heading = f"real riffs, their reconstructions, and new riffs ({prior}, temperature {options.sample.temperature:g})"
    return token_grid(columns, vae.tokenizer, heading, options)


def picture_of_files(paths: Sequence[Path], run: Run, options: Visualize) -> Figure:
    """The riffs of some MIDI files, at most 30 of them.

    Raises:
        UserError: a file holds none.
    """
    if is_of_windows(options.preset) or run.is_of_windows():
        return picture_of_song_files(paths, run)
    riffs, tokenizer = [], run.tokenizer()
    for path in paths:
        try:
            found, _ = read_file_riffs(path, run.lenient(), tokenizer)
        except MidiError as error:
            raise UserError(f"{path}: {error}; python check_midi.py {path} says more") from None
        riffs += [(f"{path.stem}, bar {riff.first_bar}", riff.tokens) for riff in found]
    shown = riffs[:30]
    return token_grid(in_columns(shown), tokenizer, f"{len(shown)} of {len(riffs)} riffs", options)


# ---------------------------------------------------------------- windows of songs


def picture_of_song_files(paths: Sequence[Path], run: Run) -> Figure:
    """What a run, or a preset of the family, reads in some MIDI files: at most 30 windows, drums and lines alike.

    Raises:
        UserError: a file holds none.
    """
    windows, titles = [], []
    for path in paths:
        songs = dataclasses.replace(run.songs(), hop=0, min_notes_per_bar=0.0, kit=kit_of(path, run.songs().kit))
        try:
            found, _ = read_windows(path, songs, run.lenient(), run.tokenizer())
        except MidiError as error:
            raise UserError(f"{path}: {error}") from None
        windows += [window.steps for window in found]
        titles += [f"{path.stem}, bar {window.first_bar} {window.part}" for window in found]
    shown = list(zip(titles, windows, strict=True))[:30]
    return window_grid(in_columns(shown), run.tokenizer(), f"{len(shown)} of {len(windows)} windows")


def window_grid(columns: dict[str, list[tuple[str, np.ndarray]]], tokenizer: TokenizerConfig, heading: str) -> Figure:
    """Columns of windows side by side. columns: heading -> (title, steps) from top to bottom"""
    rows, parts = max(map(len, columns.values())), parts_of(tokenizer)
    high = 1.25 if tokenizer.representation in ("mono", "trio") else 1.4
    figure = new_picture(3.4 * len(columns) + 0.4, high * rows * parts + 0.6)
    grid = figure.add_gridspec(rows * parts, len(columns))
    for at, (name, some) in enumerate(columns.items()):
        for row, (title, one) in enumerate(some):
            axes = [figure.add_subplot(grid[row * parts + part, at]) for part in range(parts)]
            draw_window(axes, one, tokenizer, f"{name.strip()}  {title}".strip())
    figure.suptitle(heading, fontsize=9)
    return figure


def picture_of_windows(run: Run, options: Visualize, samples: bool) -> Figure:
    """Windows of a model of the MusicVAE family: real ones, or held-out ones, what the model makes of them, and new ones."""
    import torch

    from checkpoints import load_same_windows
    from latents import as_steps
    from sampling import reconstruct, sample_riffs

    vae, content = run._vae()
    windows = load_same_windows(content, vae.tokenizer, "", run.folder / VAE_FILE)
    held = windows.held_out_tokens if len(windows.held_out_tokens) else windows.some_train_tokens(1024, options.seed)
    real = windows.some_train_tokens(options.num_outputs * 3, options.seed)
    columns: dict[str, list[np.ndarray]] = {" " * (i + 1): list(real[i::3]) for i in range(3)}
    heading = f"{len(real)} of the {len(windows.train_index)} windows of {windows.folder}"
    if samples:
        shown = held[np.linspace(0, len(held) - 1, min(options.num_outputs, len(held))).astype(int)]
        steps, diffusion = as_steps(shown), run.diffusion()
        with torch.inference_mode():
            again = reconstruct(vae, steps).numpy()
        seeds = range(options.seed, options.seed + options.num_outputs)
        made = sample_riffs(vae, diffusion, seeds, options.sample, pitches=windows.config.pitches)[0]
        after = {"all": "reconstruction", "hits": "its score, played", "taps": "its taps, played"}[vae.tokenizer.given]
        columns = {"held out" if len(windows.held_out_tokens) else "data": list(shown), after: list(again), "new": list(made)}
        heading = f"real windows, what the model makes of them, and new ones ({'diffusion' if diffusion is not None else 'N(0, I)'})"
    return window_grid({name: [("", one) for one in some] for name, some in columns.items()}, vae.tokenizer, heading)


# ---------------------------------------------------------------- latent space and curves


def picture_of_latent(run: Run, options: Visualize) -> Figure:
    """PCA of the latents of real riffs, fitted on the training riffs, with generated ones (diffusion and N(0, I)) laid over."""
    import torch

    from sampling import sample_riffs

    riff_data, vae = run.riff_data(), run.vae()
    with torch.inference_mode():
        mu, logvar = vae.encoder(torch.from_numpy(riff_data.tokens))
    draws = np.random.default_rng(options.seed).standard_normal(mu.shape)
    z = mu.numpy() + np.exp(0.5 * logvar.numpy()) * draws
    train, held = z[~riff_data.held_out], z[riff_data.held_out]
    center = train.mean(axis=0)
    _, scale, axes_ = np.linalg.svd(train - center, full_matrices=False)
    axes_ = np.pad(axes_, ((0, max(0, 4 - len(axes_))), (0, 0)))  # few riffs or a small z have fewer components than the picture
    share = np.pad(scale**2 / max((scale**2).sum(), 1e-12), (0, 4))
    seeds = range(options.seed, options.seed + 256)
    groups = {"training riffs": (train, REAL, "o"), "held-out riffs": (held, "#3f8f5f", "^")}
    if (diffusion := run.diffusion()) is not None:
        groups["new, diffusion"] = (sample_riffs(vae, diffusion, seeds, options.sample)[1], MADE, "x")
    groups["N(0, I)"] = (np.random.default_rng(options.seed + 1).standard_normal((256, z.shape[1])), LINE, ".")
    figure = new_picture(9, 4.5)
    for at, (first, second) in enumerate(((0, 1), (2, 3))):
        if second >= len(axes_):
            break
        axes = figure.add_subplot(1, 2, at + 1)
        for name, (points, color, mark) in groups.items():
            place = (points - center) @ axes_[[first, second]].T
            axes.scatter(
                place[:, 0], place[:, 1], s=14, c=color, marker=mark, alpha=0.7, linewidths=0.8, label=name, zorder=1 + (mark != ".")
            )
        axes.set_xlabel(f"component {first + 1} ({share[first]:.0%})", fontsize=8)
        axes.set_ylabel(f"component {second + 1} ({share[second]:.0%})", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_aspect("equal", adjustable="datalim")
    figure.axes[0].legend(fontsize=7)
    figure.suptitle("z of real and new riffs, along the training riffs' principal components (share of variance)", fontsize=9)
    return figure


def picture_of_curves(run: Run, options: Visualize) -> Figure:
    """What the two logs say: VAE loss parts, KL and accuracy, and the denoiser's loss in all and by quarter of t."""
    from training import read_log

    vae, diffusion = (read_log(run.folder / f"{name}.jsonl") for name in ("train_vae", "train_diffusion"))
    if not vae:
        raise UserError(f"{run.folder}: no train_vae.jsonl with lines of the log in it; run train_vae.py first, or give another --run-dir")
    figure = new_picture(11, 3.2)
    panels = [
        (vae, "VAE, nats per riff", {"reconstruction": REAL, "kl": MADE}),
        (vae, "VAE, accuracy (teacher-forced)", {"accuracy": REAL}),
        (
            diffusion,
            "denoiser, mean squared error",
            {"loss": REAL, "quarter_1": "#3f8f5f", "quarter_2": "#7a6fb0", "quarter_3": "#c99a2e", "quarter_4": MADE},
        ),
    ]
    for at, (lines, title, colors) in enumerate(panels):
        axes = figure.add_subplot(1, 3, at + 1)
        for name, color in colors.items():
            for split, dash in (("train", "-"), ("held out", "--")):
                points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
                if points:
                    alone = "." * (len(points) == 1)  # a line of one point is none
                    label = f"{name.replace('_', ' ')}, {split}"
                    axes.plot(*zip(*points, strict=True), dash + alone, color=color, linewidth=1.2, label=label)
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_ylim(bottom=0)
        if axes.lines:
            axes.legend(fontsize=6)
        else:
            axes.text(0.5, 0.5, "not trained yet", ha="center", transform=axes.transAxes, color=LINE)
    return figure


# ---------------------------------------------------------------- main


class Run:
    """The models and riffs of a run folder, loaded when first asked for."""

    def __init__(self, options: Visualize) -> None:
        self.folder = Path(options.run_dir or Path("runs") / options.preset)
        self.preset, self.prior = options.preset, options.sample.prior
        self._loaded: dict = {}

    def _vae(self) -> tuple:
        if "vae" not in self._loaded:
            from checkpoints import load_vae

            self._loaded["vae"] = load_vae(self.folder / VAE_FILE)
        return self._loaded["vae"]

    def is_of_windows(self) -> bool:
        """Whether there is a model, and it is one of windows of songs."""
        if not (self.folder / VAE_FILE).exists():
            return False
        from checkpoints import songs_config

        return songs_config(self._vae()[1], self.folder / VAE_FILE).songs

    def songs(self) -> SongConfig:
        """How the run reads songs, or the preset before there is a run."""
        if self.is_of_windows():
            from checkpoints import songs_config

            return songs_config(self._vae()[1], self.folder / VAE_FILE)
        return preset_options(TrainVAE, self.preset).songs

    def vae(self):
        return self._vae()[0]

    def diffusion(self):
        from checkpoints import load_diffusion

        path = self.folder / DIFFUSION_FILE
        return load_diffusion(path, self.vae())[0] if self.prior == "diffusion" and path.exists() else None

    def riff_data(self) -> RiffData:
        """The riffs the run was trained on; of the preset's folder before there is a run."""
        if "riffs" not in self._loaded:
            if (self.folder / VAE_FILE).exists():
                from checkpoints import load_same_riffs

                vae, content = self._vae()
                self._loaded["riffs"] = load_same_riffs(content, vae.tokenizer, "", self.folder / VAE_FILE)
            else:
                options = preset_options(TrainVAE, self.preset)
                self._loaded["riffs"] = load_riffs(options.dataset, options.tokenizer)
        return self._loaded["riffs"]

    def tokenizer(self) -> TokenizerConfig:
        """The tokens of the run, or of the preset before there is a run."""
        if (self.folder / VAE_FILE).exists():
            return self.vae().tokenizer
        return preset_options(TrainVAE, self.preset).tokenizer

    def lenient(self):
        """The preset's rules for files, but what is not fit for training may be drawn too: songs, any pitch, notes off the grid."""
        return dataclasses.replace(preset_options(TrainVAE, self.preset).dataset, max_bars=0, low=1, high=MAX_PITCH, max_off_grid=1.0)


def main(argv: Sequence[str] | None = None) -> int:
    options = tyro.cli(Visualize, args=argv, config=(tyro.conf.OmitArgPrefixes,))
    run = Run(options)
    folder = Path(options.output_dir or run.folder / "pictures")
    drawers: dict[str, Callable[[Run, Visualize], Figure]] = {
        "data": picture_of_data,
        "samples": picture_of_samples,
        "latent": picture_of_latent,
        "curves": picture_of_curves,
    }
    if run.is_of_windows():
        drawers |= {name: partial(picture_of_windows, samples=name == "samples") for name in ("data", "samples")}
    files = [Path(word) for word in options.what if word not in drawers]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such file; give MIDI files or some of {', '.join(drawers)}")
    every = [name for name in drawers if name != "latent" or not run.is_of_windows()]
    wanted = [name for name in options.what or every if name in drawers]
    if "latent" in wanted and run.is_of_windows():
        raise UserError("latent: is for riffs; of windows of songs there are data, samples and curves")
    if {"samples", "latent"} & set(wanted):
        run.vae()  # before anything is written
    for name in wanted:
        save_picture(drawers[name](run, options), folder / f"{name}.png")
        print(folder / f"{name}.png")
    if files:
        path = folder / f"file_{files[0].stem}.png"
        save_picture(picture_of_files(files, run, options), path)
        print(path)
    return 0


if __name__ == "__main__":
    run_script(main)
