"""The benchmark: what is counted, what is compared, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import Here, assert_one_line
from torch import nn

import benchmark
import training
from config import UserError
from models import MusicVAE
from presets import TrainVAE, preset_options
from products import Product, in_parts, in_threads, multiply, multiply_into, onednn_multiplies, prepared, stop_if_asked
from recurrent import Recurrent
from speed.bench import Bench, Listing, compared, sustained
from speed.machine import CACHED, Machine, Work, multiply_adds, spread
from speed.model_rates import measure_device, train_work
from speed.original import Original
from stepwise import take_step

ROOT = Path(__file__).resolve().parent.parent
MACHINE = Machine({torch.float32: 100.0, torch.bfloat16: 200.0}, cached=1000.0, uncached=10.0)
B, T, INPUTS, HIDDEN = 3, 5, 7, 11
CPU = torch.device("cpu")


# ---------------------------------------------------------------- products


def multiplied(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """A layer's product, as laid out."""
    with torch.no_grad():
        return prepared(layer, lambda some, precision: Product(some.weight, some.bias, precision), torch.float32)(x)


def test_a_product_is_a_linear_layer() -> None:
    """For few rows and for many, and after its weights have changed."""
    layer = nn.Linear(INPUTS, HIDDEN)
    for rows in (0, 1, Product.FEW, Product.FEW + 1, 70):
        x = torch.randn(rows, INPUTS)
        torch.testing.assert_close(multiplied(layer, x), layer(x).detach(), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(multiplied(layer, x), layer(x).detach(), atol=1e-5, rtol=1e-5)
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})
    with torch.inference_mode():
        torch.testing.assert_close(multiplied(layer, x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, Product.FEW, Product.FEW + 1])
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_product_is_written_or_added(precision: torch.dtype, rows: int, add: bool, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against sums that lose what they are added to, and against rooms of the other precision."""
    if not packed:
        monkeypatch.setattr("products.onednn_multiplies", lambda *_: False)
    weight, bias = torch.randn(HIDDEN, INPUTS), None if add else torch.randn(HIDDEN)
    x, room = torch.zeros(rows, INPUTS, dtype=precision), torch.zeros(rows, HIDDEN)
    laid, tolerance = Product(weight, bias, precision).laid(rows), 1e-5 if precision == torch.float32 else 0.1
    for _ in range(2):
        x.copy_(torch.randn(rows, INPUTS))
        expected = nn.functional.linear(x.float(), weight, bias) + (room if add else 0)
        found = multiply_into(x, laid, room, add)
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0.02)
        assert found is room or not add


@pytest.mark.skipif(not onednn_multiplies("cpu", torch.float32), reason="laid out alike for any number of rows")
def test_a_layout_for_one_row_is_for_no_other() -> None:
    """Guards against results of the first row that pass for all."""
    laid, x = Product(torch.randn(HIDDEN, INPUTS), None).laid(1), torch.randn(8, INPUTS)
    with pytest.raises((RuntimeError, IndexError)):
        multiply(x, laid)
    for add in (True, False):
        with pytest.raises((RuntimeError, IndexError)):
            multiply_into(x, laid, torch.zeros(8, HIDDEN), add)


def test_what_nobody_waits_for_stops() -> None:
    """Guards against a Ctrl-C that waits for pieces under way in other threads."""
    began, before = threading.Event(), torch.get_num_threads()

    def work(number: int) -> None:
        if number == 0:
            began.wait(10)
            raise KeyboardInterrupt
        for _ in range(1000):
            stop_if_asked()
            began.set()
            time.sleep(0.01)
        pytest.fail("it was not told")

    torch.set_num_threads(2)
    try:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            in_threads(work, range(2), CPU)
        assert time.monotonic() - start < 5 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    stop_if_asked()  # no pool, nobody asks


def test_a_layout_follows_the_training_step() -> None:
    """Guards against weights from before that are multiplied by: a fused optimizer's changes are not counted by PyTorch."""
    layer, x = nn.Linear(INPUTS, HIDDEN), torch.randn(9, INPUTS)
    optimizer = training.make_optimizer(layer)
    for _ in range(3):
        before = multiplied(layer, x)
        training.clip_and_step(layer, optimizer, layer(x).square().mean(), lr=0.1, grad_clip=1.0)
        after = multiplied(layer, x)
        torch.testing.assert_close(after, layer(x).detach(), atol=1e-5, rtol=1e-5)
        assert (after - before).abs().max() > 0.01


def test_a_layout_is_exact_whoever_asks_for_it() -> None:
    """Guards against a half-precision layout that stays, and against layers made in inference mode."""
    layer = nn.Linear(INPUTS, HIDDEN)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        layout = prepared(layer, lambda some, precision: some.weight @ some.weight.t(), torch.float32)
        assert layout.dtype == torch.float32 and prepared(layer, lambda *_: 1 / 0, torch.float32) is layout
    with torch.inference_mode():
        made = nn.Linear(INPUTS, HIDDEN)
        assert multiplied(made, torch.randn(9, INPUTS)).shape == (9, HIDDEN)


# ---------------------------------------------------------------- counting


def test_products_are_counted_whoever_computes_them() -> None:
    """By hand: a linear layer, an LSTM by oneDNN with its gradients, a GRU, and layers step by step."""
    x = torch.randn(B, INPUTS)
    assert multiply_adds(lambda: nn.Linear(INPUTS, HIDDEN)(x)) == B * INPUTS * HIDDEN
    with torch.no_grad():
        many = torch.randn(20, INPUTS)
        assert multiply_adds(lambda: multiplied(nn.Linear(INPUTS, HIDDEN), many)) == 20 * INPUTS * HIDDEN
    steps = torch.randn(B, T, INPUTS)
    lstm, gru = nn.LSTM(INPUTS, HIDDEN, batch_first=True), nn.GRU(INPUTS, HIDDEN, batch_first=True)
    forward = B * T * 4 * HIDDEN * (INPUTS + HIDDEN)
    with torch.no_grad():
        assert multiply_adds(lambda: lstm(steps)) == forward
        assert multiply_adds(lambda: gru(steps)) == forward * 3 // 4
    assert multiply_adds(lambda: lstm(steps.requires_grad_())[0].sum().backward()) == 3 * forward
    layers = Recurrent("lstm", INPUTS, HIDDEN, 1).requires_grad_(False)
    stepping = layers.stepping()
    states = stepping.begin(torch.randn(B, layers.state_size))
    assert multiply_adds(lambda: take_step(states)) == B * 4 * HIDDEN * HIDDEN
    layers = Recurrent("lstm", INPUTS, HIDDEN, 2).requires_grad_(False)
    stepping = layers.stepping()
    for rows in (1, B, Product.FEW + 1):
        states = stepping.begin(torch.randn(rows, layers.state_size))
        assert multiply_adds(lambda: take_step(states)) == rows * 4 * HIDDEN * 3 * HIDDEN  # noqa: B023
    with torch.no_grad():  # in several threads, if there are several
        parts = multiply_adds(lambda: in_parts(lambda some: nn.Linear(INPUTS, HIDDEN)(torch.randn(600, INPUTS)[some]), 600, CPU))
    assert parts == 600 * INPUTS * HIDDEN


def test_the_floor_is_products_or_weights_whichever_takes_longer() -> None:
    assert MACHINE.floor(Work(500)) == 5
    assert MACHINE.floor(Work(500, torch.bfloat16)) == 2.5
    assert MACHINE.floor(Work(500, rows=50)) == 5  # 10 weights of 4 bytes: cached
    assert MACHINE.floor(Work(500, rows=1)) == 5
    assert MACHINE.floor(Work(5 * CACHED, rows=1)) == pytest.approx(20 * CACHED / 10)
    assert MACHINE.floor(Work(5 * CACHED, rows=1, steps=40)) == pytest.approx(5 * CACHED / 100)


# ---------------------------------------------------------------- figures


def test_rates_stand_beside_what_the_machine_could_do(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(MACHINE, 3, only=("wanted",))
    bench.rate("wanted", "things", 10, lambda: None, lambda: Work(1000))
    bench.rate("other", "things", 10, lambda: None)
    bench.milliseconds("wanted, each", 4, lambda: None)
    values = iter([9.0, 1.0, 5.0, 3.0])  # the first does not count
    bench.take("wanted, as it says", "s", lambda: next(values))
    assert set(bench.results) == {"wanted", "wanted, each", "wanted, as it says"}
    found = bench.results["wanted"]  # at best 1 a second
    assert found["unit"] == "things/s" and found["share"] == pytest.approx(found["median"], rel=1e-3)
    assert found["share_min"] == pytest.approx(found["min"], rel=1e-3) and found["share_max"] == pytest.approx(found["max"], rel=1e-3)
    assert bench.results["wanted, as it says"] == {**spread([1.0, 5.0, 3.0]), "unit": "s"}
    assert "of the machine's best" in capsys.readouterr().out


def test_shares_are_of_what_the_machine_does_at_that_moment() -> None:
    """Guards against 100 % of a rate that was measured when the machine was busy."""
    speeds = iter([1.0, 2.0, 4.0])
    bench = Bench(MACHINE, 3, now=lambda precision: 100 * next(speeds))
    seconds = iter([1.0, 0.5, 0.25])
    bench._seconds = lambda work: next(seconds)  # type: ignore[method-assign]
    bench.rate("keeps up", "things", 10, lambda: None, lambda: Work(50))
    found = bench.results["keeps up"]
    assert [found[key] for key in ("min", "median", "max")] == [10, 20, 40]
    assert [found[key] for key in ("share_min", "share", "share_max")] == [0.5] * 3


def test_figures_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU as a device: what is counted for a few rows holds for all, and nothing is timed before the device is done."""
    waited: list[int] = []
    monkeypatch.setattr("speed.model_rates.ON_DEVICE", (16,))
    only = ("melody_2bar, training", "melody_2bar, decoding on cpu, batch 16, float32")
    bench = Bench(MACHINE, 1, only, lambda: waited.append(1))
    measure_device(bench, CPU)
    assert list(bench.results) == ["melody_2bar, training on cpu, batch 16, bfloat16", only[1]] or not bfloat16_is_quick()
    assert len(waited) == 4
    options = preset_options(TrainVAE, "melody_2bar")
    vae = MusicVAE(options.model, options.tokenizer)
    needed = multiply_adds(train_work(vae, options, 16, torch.float32))
    kind = torch.bfloat16 if bfloat16_is_quick() else torch.float32
    found = bench.results[next(iter(bench.results))]
    assert found["median"] / found["share"] == pytest.approx(16 / MACHINE.floor(Work(needed, kind)), rel=0.1)


def bfloat16_is_quick() -> bool:
    return training.choose_precision("auto", CPU) == torch.bfloat16


def test_a_rival_is_measured_by_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that answers as the original does, and one that ends in the middle."""
    server = tmp_path / "server.py"
    monkeypatch.setattr("speed.original.SERVER", server)
    server.write_text("import sys\nprint('ready', flush=True)\nfor line in sys.stdin: print(int(line.split()[1]) / 4, flush=True)\n")
    turns: list[str] = []
    monkeypatch.setattr("speed.bench.sustained", lambda work, count: turns.append("ours") or work() or 2.0 * count)
    with Original(sys.executable) as original:
        original.start()
        bench = Bench(MACHINE, 3)

        def theirs() -> float:
            turns.append("theirs")
            return original.rate("training", 64)

        bench.times("times", 64, lambda: lambda: None, theirs)
    assert bench.results["times"] == {**spread([8.0, 8.0, 8.0]), "unit": "times"}
    assert turns == ["theirs", *["ours", "theirs"] * 3]
    server.write_text("print('ready')\n")
    with Original(sys.executable) as original:
        original.start()
        with pytest.raises(UserError, match="ended while training was measured at batch 64"):
            original.rate("training", 64)


def test_a_sustained_rate_is_of_calls_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.6, 1.2, 1.8, 1.8])
    monkeypatch.setattr("speed.bench.time.perf_counter", lambda: next(clock))
    calls: list[int] = []
    assert sustained(lambda: calls.append(1), 30) == pytest.approx(len(calls) * 30 / 1.8) and len(calls) == 3


def test_compared_says_better_as_more_than_one() -> None:
    def figure(median: float, unit: str) -> dict[str, object]:
        return {"median": median, "min": 0.9 * median, "max": 1.1 * median, "unit": unit}

    old = {
        "rate": figure(100, "riffs/s"),
        "time": figure(4, "ms"),
        "near": figure(10, "s"),
        "gone": figure(1, "s"),
        "other": figure(1, "s"),
    }
    new = {
        "rate": figure(300, "riffs/s"),
        "time": figure(8, "ms"),
        "near": figure(11, "s"),
        "new": figure(1, "s"),
        "other": figure(1, "ms"),
    }
    lines = compared(new, old)
    assert [line.split()[:3] for line in lines] == [["3.00", "x", "rate"], ["0.50", "x", "time"], ["0.91", "x", "near"]]
    assert [line.endswith("(within the spread)") for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--repeats", "0"], "--repeats 0: give 1 or more"),
        (["--threads", "-2"], "--threads -2: give 0"),
        (["--largest", "nan"], "--largest nan: give millions"),
        (["--compare", "nowhere.json"], "--compare nowhere.json: no such file"),
        (["--compare", __file__], f"--compare {__file__}: is no benchmark.json"),
        (["--only", "fingered", ""], "--only: one of the words is empty"),
        (["--only", "nonsense"], "--only nonsense: no figure has such a name; --list names them all"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--device", "tpu"], "--device tpu: give auto, cpu, cuda or cuda:N"),
        (["--original", "no-such-python"], "--original no-such-python: is nothing that can be run"),
        (["--original", sys.executable, "--only", "times the original"], f"--original {sys.executable}: is no Python with TensorFlow"),
        (["--only", "times the original"], "--only times the original: these figures need --original PYTHON, see README.md"),
        (["--original", sys.executable, "--only", "fingered"], f"--original {sys.executable}: no figure that is asked for needs it"),
    ],
)
def test_refusals(flags: list[str], said: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speed.machine.measure_machine", lambda *_: 1 / 0)  # nothing is measured before the mistake is seen
    assert_one_line(here("benchmark", *flags, "--output-dir", str(tmp_path / "out")), "benchmark", said)
    assert not (tmp_path / "out").exists()


def test_a_figure_is_measured_recorded_and_compared(here: Here, tmp_path: Path) -> None:
    flags = ["--threads", "1", "--repeats", "1", "--only", "fingered", "--output-dir", str(tmp_path)]
    assert here("benchmark", *flags).code == 0
    some = tmp_path / "benchmark_some.json"  # not the record of all
    record = json.loads(some.read_text())
    assert set(record["figures"]) == {"one riff fingered"} and record["machine"]["float32_multiply_adds_per_second"] > 1e8
    assert_one_line(here("benchmark", *flags, "--compare", str(some)), "benchmark", "this call would overwrite it")
    assert json.loads(some.read_text()) == record
    old = some.rename(tmp_path / "old.json")
    result = here("benchmark", *flags, "--compare", str(old))
    assert result.code == 0 and " x  one riff fingered" in result.out
    flags[flags.index("fingered")], written = "tab", some.read_bytes()
    assert_one_line(here("benchmark", *flags, "--compare", str(old)), "benchmark", "none of the figures that are asked for is in it")
    old.write_text(json.dumps({"figures": {"times the original, sampling, batch 1, float32": record["figures"]["one riff fingered"]}}))
    flags[flags.index("tab")] = "sampling"  # without the original, such figures are not measured
    assert_one_line(here("benchmark", *flags, "--compare", str(old)), "benchmark", "none of the figures that are asked for is in it")
    damaged = {name: {**figure, "median": "much"} for name, figure in record["figures"].items()}
    old.write_text(json.dumps({"figures": damaged}))
    assert_one_line(here("benchmark", *flags, "--compare", str(old)), "benchmark", "is no benchmark.json")
    assert some.read_bytes() == written, "the mistake was seen after measuring"
    listed = here("benchmark", "--list", "--only", "fingered", "--output-dir", str(tmp_path)).out.split("\n")
    assert listed == ["one riff fingered", ""]


def test_what_was_measured_before_ctrl_c_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against half an hour of measurements that are lost."""

    def interrupt(bench: Bench) -> None:
        if not isinstance(bench, Listing):
            raise KeyboardInterrupt

    monkeypatch.setattr("speed.machine.measure_machine", lambda *_: MACHINE)
    monkeypatch.setattr(benchmark, "all_measures", lambda *_: [lambda bench: bench.take("figure", "ms", lambda: 1.0), interrupt])
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(["--output-dir", str(tmp_path), "--threads", "1", "--repeats", "2"])
    assert json.loads((tmp_path / "benchmark.json").read_text())["figures"]["figure"]["median"] == 1.0
    whole = tmp_path / "benchmark.json"
    whole.write_text("a whole record")
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(["--output-dir", str(tmp_path), "--threads", "1", "--repeats", "2"])
    assert whole.read_text() == "a whole record" and "figure" in json.loads((tmp_path / "benchmark_stopped.json").read_text())["figures"]


def test_figures_are_listed_without_being_measured(here: Here) -> None:
    names = here("benchmark", "--list").out.splitlines()
    assert len(names) == len(set(names)) > 100 and {"one riff fingered", "whole riffs, 64", "generate.py --help"} <= set(names)
    assert "times the original, sampling, batch 64, bfloat16" in names


@pytest.mark.parametrize("script", ["train_vae", "train_diffusion", "train_lm", "generate", "benchmark"])
def test_help_is_given_without_torch(script: str) -> None:
    """Guards against an import that makes --help take seconds."""
    code = f"import runpy, sys; sys.argv = ['{script}.py', '--help']\ntry: runpy.run_path('{script}.py', run_name='__main__')\n"
    code += "except SystemExit: print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "--" in done.stdout and done.stderr.strip() == "False"
