"""How benchmarks summarize measurements; the measurements themselves are not tests."""

import contextlib
import json
import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import cnn
from benchmarks import epoch, idle, ladder, readme, roofline, rungs, rungs_tables, time_to_result, weights
from benchmarks.detectors_table import detectors_table
from benchmarks.protocol import images_per_second, mean_seconds
from cnn.cli import load_experiment
from cnn.training.state import abstract_state
from experiments import resnet20
from experiments.fashion_cnn import CONFIG
from tests.helpers import ROOT


def test_a_mark_needs_both_loss_and_accuracy():
    rows = [
        {"epoch": 1, "val_loss": 0.234, "val_accuracy": 0.9190},  # not accurate enough for either
        {"epoch": 2, "val_loss": 0.235, "val_accuracy": 0.9191},  # just the second edition's
        {"epoch": 3, "val_loss": 0.221, "val_accuracy": 0.9300},  # not low enough for the first edition's
    ]
    summary = time_to_result.run_summary([10.0, 20.0, 30.0], rows, 31.0)
    assert summary["marks"] == {
        "second edition": {"reached": True, "seconds": 20.0, "epoch": 2},
        "first edition": {"reached": False, "seconds": 31.0},
    }


def test_time_to_result_is_a_median_and_a_ratio_to_the_notebook():
    def run(seconds):
        return {"marks": {name: {"reached": seconds < 100, "seconds": seconds} for name in time_to_result.MARKS}}

    summary = time_to_result.summarise(
        {"notebook": [run(80.0), run(90.0), run(120.0)], "fast": [run(30.0), run(20.0), run(40.0)]}
    )
    assert summary["notebook"]["first edition"] == {
        **{"median_seconds": 90.0, "reached": 2, "n": 3, "over_notebook": 1.0}
    }
    assert summary["fast"]["first edition"]["over_notebook"] == pytest.approx(1 / 3)


def test_ratios_are_per_round_and_failures_are_kept():
    def row(framework, number, **answer):
        return {"precision": "float32", "batch_size": 32, "round": number, "framework": framework, **answer}

    rows = [
        *(row("ours", 0, seconds=10.0), row("torch", 0, seconds=15.0), row("keras_jax", 0, failed="broken")),
        *(row("ours", 1, seconds=20.0), row("torch", 1, seconds=50.0)),
    ]
    ours, torch, keras_jax = epoch.summarise(rows)
    assert (ours["seconds"]["median"], ours["over_ours"]["median"]) == (15.0, 1.0)
    assert (torch["over_ours"]["min"], torch["over_ours"]["max"]) == (1.5, 2.5)
    assert keras_jax["failed"] == "broken" and "seconds" not in keras_jax


def test_a_worker_answers_after_a_failure():
    code = "from benchmarks.protocol import serve; serve({'divide': lambda by: {'result': 1 / by}})"
    requests = "".join(json.dumps({"do": "divide", "by": by}) + "\n" for by in (0, 4))
    worker = subprocess.run(
        [sys.executable, "-c", code], input=requests, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    failed, result = map(json.loads, worker.stdout.splitlines())
    assert failed == {"failed": "ZeroDivisionError: division by zero"}
    assert result == {"result": 0.25}


def test_images_per_second_counts_only_timed_calls(monkeypatch):
    calls = []

    def predict(batch):
        calls.append(len(batch))
        return np.zeros((len(batch), 10))

    # A second passes in each call.
    monkeypatch.setattr("time.perf_counter", lambda: float(len(calls)))
    assert images_per_second(predict, np.zeros((40, 28, 28, 1), np.uint8), 16, seconds=3) == 16
    assert calls == [16] * (2 + 3)


def test_a_pass_is_repeated_until_the_seconds_are_over(monkeypatch):
    losses = iter((3.0, 2.0, 1.0))
    times = iter((0.0, 0.4, 0.8, 1.2))
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert mean_seconds(lambda: {"loss": next(losses)}, 8, 1.0) == {"seconds": pytest.approx(0.05), "loss": 1.0}


IDLE, BUSY = {"share": 0.99, "seconds": 0.2, "load": 0.1}, {"share": 0.5, "seconds": 0.4, "load": 2.0}


def test_a_busy_machine_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(idle, "probe", lambda: BUSY)
    monkeypatch.setattr(rungs, "save_images", lambda *arguments: pytest.fail("it measures"))
    with pytest.raises(SystemExit, match="the machine is busy: loops on all cores get 50% of their time"):
        rungs.main(results=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_load_that_does_not_fall_is_refused_though_the_loops_run_alone(monkeypatch):
    found, slept = iter([{**IDLE, "load": load} for load in (2.0, 0.26, 0.25)]), []
    monkeypatch.setattr(idle, "probe", lambda: next(found))
    monkeypatch.setattr("time.sleep", slept.append)
    assert idle.wait_for_load()["load"] == 0.25 and len(slept) == 2
    monkeypatch.setattr(idle, "probe", lambda: {**IDLE, "load": 2.0})
    assert not idle.is_idle(idle.wait_for_load(seconds=0), idle.MOST_LOAD)


def answers(do, rung="", seconds=None, **request):
    return {"predict": {"call": 50.0}, "train": {"seconds": 0.1, "loss": 1.0}}.get(do, {"seconds": 0.2})


def test_a_round_in_which_others_ran_is_measured_again_and_then_given_up(monkeypatch):
    plan, kind = rungs.Plan((32,), 2, 64, False), {"rung": "vit", "precision": "float32"}
    found = [IDLE, BUSY, IDLE, IDLE, IDLE, IDLE]
    probes = iter(found)
    monkeypatch.setattr(idle, "probe", lambda: next(probes))
    kept: list[dict] = []
    rows = rungs.take_turns(kind, {"ours": answers}, plan, kept)
    assert kept == found and [row["round"] for row in rows if row["what"] == "train step"] == [0, 1]
    assert [row["seconds"] for row in rows[:4]] == [0.1, 0.2, 1 / 50, 100 / 50]
    monkeypatch.setattr(idle, "probe", lambda: BUSY)
    with pytest.raises(SystemExit, match="the machine is busy"):
        rungs.take_turns(kind, {"ours": answers}, plan, [])
    assert rungs.take_turns(kind, {"ours": answers}, plan._replace(allow_busy=True), [])


def test_a_framework_that_fails_is_asked_no_more_and_said_in_the_tables(monkeypatch):
    monkeypatch.setattr(idle, "probe", lambda: IDLE)
    asks = {"ours": answers, "torch": lambda do, **request: {"failed": "broken"}}
    process = lambda name, precision: contextlib.nullcontext(asks[name])  # noqa: E731
    asks["ours"] = lambda do, **request: {"MiB": 9.0} if do == "memory" else answers(do, **request)
    measured = rungs.measure(("vit",), ("float32",), list(asks), rungs.Plan((32,), 2, 64, False), process)
    assert {row["framework"]: row.get("failed") for row in measured["costs"]} == {
        **{"ours, first run": None, "ours": None, "torch": "broken"}
    }
    assert {row["framework"] for row in measured["measurements"]} == {"ours"}
    result = {
        **{"command": "a", "date": "2026-01-01", "busy": True, "frameworks": {"ours": {}, "torch": {"torch": "2"}}},
        "machine": {"vector_extensions": [], "cores": 2, "processor": "A", "python": "3", "versions": {"jax": "0"}},
        "images": {"val": 1000, "inference": [1, 100]},
        "compared": [{"rung": "vit", "parameters": 9, "largest_difference": 2e-7}],
        **measured,
    }
    steps, others = rungs_tables.rungs_tables(result).split("\n\n")[:2]
    assert steps.splitlines()[-1] == "| vit, float32, 32 | 100 | failed |"
    assert others.splitlines()[-1] == "| vit, float32 | 200 | 50 | 50 | 0.2 / 0.2 / — | 9 / failed |"
    assert "Other programs ran" in rungs_tables.rungs_tables(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": ()}, "--batches are"),
        ({"batches": (0,)}, "--batches are"),
        ({"images": 1000}, "--images is 1000, but must be a multiple of 128"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"frameworks": ("torch",)}, "--frameworks are torch, but must include ours"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(cnn.ConfigError, match=message):
        rungs.main(**options)


def test_a_rung_that_is_not_measured_keeps_its_result_and_origin(tmp_path):
    def result(*found):
        rows = {name: [{"rung": rung, "at": at} for rung, at in found] for name in ("compared", "costs", "summary")}
        return {**rows, "measurements": [], "busy": False}

    path = tmp_path / "rungs.json"
    first = rungs.with_kept(result(("vit", 1), ("alexnet", 1)), ("vit", "alexnet"), path)
    first["origins"] = dict.fromkeys(first["origins"], {"command": "first"})
    path.write_text(json.dumps({**first, "busy": True}))
    second = rungs.with_kept(result(("lstm", 2), ("vit", 2)), ("vit", "lstm"), path)
    assert [(row["rung"], row["at"]) for row in second["costs"]] == [("lstm", 2), ("alexnet", 1), ("vit", 2)]
    assert second["busy"] and second["origins"]["alexnet"] == {"command": "first"}
    assert second["origins"]["vit"] == second["origins"]["lstm"] != {"command": "first"}


def test_unequal_logits_and_unequal_counts_are_reported(tmp_path):
    def network(parameters, logit):
        return lambda do, **request: {"parameters": parameters, "logits": [[0.0, logit]]}

    asks = {"ours": network(9, 1.0), "near": network(9, 1.00009), "far": network(9, 1.0002), "wide": network(8, 1.0)}
    rows = rungs.compare(("vit",), {**asks, "ended": lambda do, **request: {"failed": "it ended"}}, tmp_path)
    assert [row["equal"] for row in rows] == [True, True, False, False, False]


@pytest.mark.parametrize("rung", get_args(rungs.Rung))
def test_all_our_weights_have_a_name_and_a_layout_of_the_peers(rung):
    state = abstract_state(cnn.ExperimentConfig(model=load_experiment(f"experiments.{rung}").model))
    shapes: Any = {**flatten_dict(state.params, sep="/"), **flatten_dict(state.batch_stats, sep="/")}
    ours = weights.drawn({name: np.zeros(leaf.shape, np.float32) for name, leaf in shapes.items()})
    assert all(np.ptp(array) > 0 for name, array in ours.items() if not name.endswith("kernel"))
    for renamed in (weights.to_keras, weights.to_torch):
        theirs = renamed(ours)
        assert len(theirs) == len(ours)
        assert [array.size for array in theirs.values()] == [array.size for array in ours.values()]
    words = {name.rsplit(".", 1)[1] for name in weights.to_torch(ours)}
    lstm = {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0"}
    assert words <= {"weight", "bias", "running_mean", "running_var", "position", *lstm}
    words = {name.rsplit("/", 1)[1] for name in weights.to_keras(ours)}
    normalization = {"gamma", "beta", "moving_mean", "moving_variance"}
    assert words <= {"kernel", "recurrent_kernel", "bias", "position", *normalization}


def test_flops_of_the_chapters_network():
    # Forward 0.45 + 7.23 + 0.63 + 0.002 million, three times, less the gradient of the images.
    products = {"conv1": 28 * 28 * 9 * 32, "conv2": 14 * 14 * 288 * 64, "dense": 3136 * 100, "logits": 1000}
    assert roofline.flops_per_image(CONFIG) == 2 * (3 * sum(products.values()) - products["conv1"])


def test_a_footnote_of_two_machines_names_both():
    def origin(command, extensions):
        machine = {"vector_extensions": extensions, "cores": 2, "processor": "A", "python": "3.13"}
        return {"command": command, "date": "2026-01-01", "machine": {**machine, "versions": {"jax": "0.12"}}}

    old, new = origin("a", ["avx2"]), origin("b", ["avx2", "avx512f"])
    assert readme.footnote({**new, "origins": {"x": old, "y": new, "z": {**new, "command": "c"}}}) == (
        "`a`, 2026-01-01; 2 cores of A (avx2), Python 3.13, jax 0.12; "
        "`b`, 2026-01-01; `c`, 2026-01-01; 2 cores of A (avx2/avx512f), Python 3.13, jax 0.12"
    )


def test_the_table_of_detectors_has_means_and_spread():
    ours = [{"scenes": 10, "seconds": seconds, "map": 0.5, "map_50": 0.75, "parameters": 9} for seconds in (1.0, 3.0)]
    peer = {**ours[0], "map": 0.25, "parameters": 1234, "versions": {"torch": "2", "torchvision": "0"}}
    machine = {"vector_extensions": [], "cores": 2, "processor": "A", "python": "3", "versions": {"jax": "0"}}
    result = {"command": "a", "date": "2026-01-01", "machine": machine, "runs": {"ours": ours, "torchvision": [peer]}}
    lines = detectors_table({**result, "peer": {"optimizer": "SGD", "precision": "float32"}}).splitlines()
    assert lines[2] == "| `experiments.yolo` | 9 | 10 | 2 | 0.500 ± 0.000 | 0.750 ± 0.000 | 2 |"
    assert lines[3].endswith("`ssdlite320_mobilenet_v3_large` | 1,234 | 10 | 1 | 0.250 | 0.750 | 1 |")


ACCELERATOR = ROOT / "benchmarks" / "results" / "accelerator.json"


def test_seeds_of_another_machine_are_read_if_their_configuration_matches():
    trained = ladder.trained_elsewhere(ACCELERATOR, {"resnet20": resnet20.CONFIG})
    assert [row["seed"] for row in trained["resnet20"]["rows"]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("content", "rung", "message"),
    [
        (None, "resnet20", "must be a ladder.json of another machine"),
        ("[]", "resnet20", "must be a ladder.json of another machine"),
        ('{"rungs": {}}', "resnet20", "has no resnet20"),
        (ACCELERATOR.read_text(), "vit", "has vit with another"),
    ],
)
def test_seeds_of_another_machine_are_refused_with_the_reason(tmp_path, content, rung, message):
    path = tmp_path / "ladder.json"
    if content is not None:
        path.write_text(content)
    # Not of the family of vit.
    with pytest.raises(cnn.ConfigError, match=message):
        ladder.trained_elsewhere(path, {rung: resnet20.CONFIG})
