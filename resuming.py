"""How a run is taken up again where it stopped, or from the weights of another: what must be the same, and what is said about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from checkpoints import keep_aside, read_checkpoint
from config import BASE_MODEL, TrainRunConfig, UserError
from training import Processes


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What a train script writes to its run folder."""

    last: Path  # what a resumed run needs
    best: Path  # the model
    log: Path


class TrainOptions(Protocol):
    """What the options of every train script have."""

    @property
    def run(self) -> TrainRunConfig: ...
    @property
    def model(self) -> Any: ...
    @property
    def train(self) -> Any: ...


def find_state(
    files: RunFiles, kind: str, options: TrainOptions, same: Mapping[str, tuple[Any, str]], processes: Processes
) -> dict[str, Any] | None:
    """The state to resume from, in every process; see start_or_resume.

    Raises:
        UserError: as there, in the main process; the others leave with it, without a word.
    """
    found, refusal = None, None
    if processes.is_main:
        try:
            found = start_or_resume(files, kind, options, same)
        except UserError as error:
            refusal = str(error)
    found, refusal = processes.from_main((found, refusal))
    if refusal is not None:
        processes.close()
        if processes.is_main:
            raise UserError(refusal)
        raise SystemExit(2)
    return found


def start_or_resume(files: RunFiles, kind: str, options: TrainOptions, same: Mapping[str, tuple[Any, str]]) -> dict[str, Any] | None:
    """Find the state to resume from, and make sure the run asked for is the same run.

    Args:
        kind: of the checkpoint.
        same: what must not have changed: key in the checkpoint -> (value now, what it is in words).

    Returns:
        the checkpoint, or None to start from the beginning; with --restart, make_way is to follow.

    Raises:
        UserError: the model or the data changed; the differences are listed.
    """
    if not options.train.init_from.strip():
        raise UserError(f"--init-from is empty; name a {kind} checkpoint, or none")
    if options.run.restart:
        return None
    path, best_path = files.last, files.best
    if not path.exists():
        if best_path.exists():
            raise UserError(f"{best_path}: would be overwritten, for {path.name} is not there to go on from; --restart keeps it aside")
        if files.log.exists() and files.log.stat().st_size:
            raise UserError(f"{files.log}: would be overwritten, and is of no run that is here; --restart keeps it aside")
        return None
    state = read_checkpoint(path, kind)
    if not {"optimizer", "best"} <= set(state):
        raise UserError(f"{path}: is a model, not the state of a run; move it away, or use --restart")
    model_config = dataclasses.asdict(options.model)
    changed = [f"{name} {state['model'].get(name)} -> {value}" for name, value in model_config.items() if state["model"].get(name) != value]
    if changed:
        raise UserError(f"{path}: the model changed ({', '.join(changed)}); use the old options, another --run-dir, or --restart")
    init_from, began = options.train.init_from, state["options"]["train"].get("init_from", "none")
    if init_from != began:
        raise UserError(
            f"--init-from {init_from}: {path.parent} began with --init-from {began}; give that to go on, or --restart, or another --run-dir"
        )
    if state["best"]["step"] is not None and not best_path.exists():
        raise UserError(f"{best_path}: is gone, though {path.name} is there; put it back, or --restart to begin anew")
    for key, (value, words) in same.items():
        if state[key] != value:
            now = plain_options(options)
            asked = ", ".join(
                filter(None, (changed_options(state["options"].get(part, {}), now.get(part, {})) for part in ("dataset", "songs")))
            )
            why = f", or which are used ({asked})" if asked else ""
            if isinstance(value, Mapping):
                why = f" ({changed_options(state[key], value)})"
            raise UserError(f"{path}: {words} changed since this run began{why}; give another --run-dir, or --restart to begin anew")
    return state


def make_way(files: RunFiles, options: TrainOptions, processes: Processes) -> None:
    """With --restart, what is there is kept aside: once all that the new run begins with has been read, and could be."""
    if not options.run.restart:
        return
    processes.any(False)  # waits for all
    if processes.is_main:
        for file in (files.last, files.best, files.log):
            aside = keep_aside(file)
            if aside:
                print(f"kept {file.name} as {aside.name}")


def take_over(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], options: TrainOptions, is_main: bool
) -> tuple[int, dict[str, Any]]:
    """Take over a state's optimizer, but not its old options: what is asked for now holds. Says where the run goes on.

    How the optimizer computes is the state's: a run that began before training.make_optimizer fused it goes on bit for bit as it began.

    Returns:
        the step reached, and what is known of the best model.
    """
    optimizer.load_state_dict(state["optimizer"])
    for group in optimizer.param_groups:
        group["weight_decay"] = options.train.weight_decay
    if is_main:
        print(resume_remark(state["step"], options.train.steps, changed_options(state["options"], plain_options(options))))
    return state["step"], state["best"]


def read_initial(path: str, kind: str) -> dict[str, Any]:
    """The checkpoint named with --init-from.

    Raises:
        UserError: it cannot be used.
    """
    if path == BASE_MODEL and not Path(path).exists():  # the default, from another working directory
        path = str(Path(__file__).parent / BASE_MODEL)
    try:
        return read_checkpoint(path, kind)
    except UserError as error:
        raise UserError(f"--init-from {str(error).split(';')[0]}; name a {kind} checkpoint, or none") from None


def resume_remark(step: int, steps: int, changed: str) -> str:
    """What a resumed run says first."""
    if step >= steps:
        return f"already at step {step}, --steps {steps} asks for no more; to train anew with other options: --restart"
    return f"resuming at step {step}" + (f"; changed: {changed}" if changed else "")


def changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between the options of a run and those it is resumed with, for a remark; steps, places and intervals do not count."""
    silent = {"steps", "preset", "init_from", "data", "run_dir", "device", "threads", "dry_run", "restart"}
    silent |= {"log_interval", "eval_interval", "save_interval"}
    parts = []
    for name, value in new.items():
        if name in silent or name not in old:
            continue
        if isinstance(value, Mapping):
            parts.append(changed_options(old[name], value))
        elif old[name] != value:
            parts.append(f"{name} {old[name]} -> {value}")
    return ", ".join(part for part in parts if part)


def plain_options(options: Any) -> dict[str, Any]:
    """A script's options as nested dicts of plain types, for the record in the checkpoint."""
    return json.loads(json.dumps(dataclasses.asdict(options)))
