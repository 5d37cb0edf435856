"""How benchmarks summarize measurements; the measurements themselves are not tests."""

import json
import subprocess
import sys

import numpy as np
import pytest

import cnn
from benchmarks import epoch, ladder, readme, roofline, time_to_result
from benchmarks.protocol import images_per_second
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
