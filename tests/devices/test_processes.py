"""Multi-process runs, over the loopback interface as over a network: training, stopping and failing together."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnn
from cnn import run
from cnn.devices import processes
from cnn.runs import verify as verification
from tests.forked import Forked
from tests.helpers import Interrupted, assert_same, interrupt_after, shrink, without_times
from tests.workers.cluster import CONFIG, LONG

STEPS = 5
"""Steps per epoch: 200 images in batches of 48. A step takes 1/3 second, due to gloo's all-reduce on one machine."""


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _by_options(port, number, index):
    """The options that describe the cluster, and no variables."""
    cluster = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(number), "--process-index", str(index)]
    return ["--distributed", *cluster], {}


def _by_slurm(port, number, index):
    """The variables that SLURM would set; JAX derives the port from the job ID."""
    names = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    values = (port - SLURM_FIRST_PORT, "localhost", number, index, index)
    return ["--distributed"], {f"SLURM_{name}": str(value) for name, value in zip(names, values, strict=True)}


SLURM_FIRST_PORT = 61440


def _start(run_dir, number, *options, port=None, cluster=_by_options, function="main") -> list[Forked]:
    """Starts the processes of one run; a single one is not distributed."""
    port = port or _free_port()
    settings = [cluster(port, number, index) if number > 1 else ([], {}) for index in range(number)]
    command = "tests.workers.cluster", "--run-dir", str(run_dir), *options
    return [Forked(*command, *more, function=function, environment=values) for more, values in settings]


def _finish(started, timeout=150):
    outputs = [process.communicate(timeout=timeout) for process in started]
    return [process.returncode for process in started], outputs


def _history(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def _losses(run_dir):
    return [row[name] for row in _history(run_dir) for name in ("train_loss", "val_loss")]


def test_several_processes_match_a_single_process(splits, tmp_path):
    single, run_dir = (tmp_path / name for name in ("single", "run"))
    cnn.fit(CONFIG, single, shrink(splits, 200))
    codes, outputs = _finish(_start(run_dir, 3))
    assert codes == [0] * 3, outputs
    assert _losses(run_dir) == pytest.approx(_losses(single), rel=1e-5)
    results = [json.loads((path / "result.json").read_text()) for path in (run_dir, single)]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    # Only the primary process prints and writes.
    assert "epoch 2/2" in outputs[0][0] and "on 3 x cpu" in outputs[0][0]
    others = [line for output, _ in outputs[1:] for line in output.splitlines()]
    assert all(line.startswith("[Gloo]") for line in others), others
    assert [errors for _, errors in outputs] == [""] * 3
    assert json.loads((run_dir / "config.json").read_text())["devices"]["number"] == 3
    # One process loads the checkpoint of several.
    assert cnn.load_best(run_dir)[0].step == results[0]["best_epoch"] * STEPS
    assert not any(verification.verify(run_dir).values())


def _next_epoch(process):
    """The epoch number of the next line that reports one; all output if there is none."""
    lines = []
    for line in process.stdout:
        if line.startswith("epoch "):
            return int(line.split()[1].split("/")[0])
        lines.append(line)
    return lines, process.stderr.read()


@pytest.fixture
def start():
    """``_start``, with the processes killed at the end of the test."""
    everyone = []

    def started(*arguments, **options):
        everyone.extend(new := _start(*arguments, **options))
        return new

    yield started
    for process in everyone:
        process.kill()
        process.communicate()


def _assert_listens_only_on_its_own_address(port):
    """Of the coordinator, whose processes are training."""
    # /proc/net/tcp: local address and port in hexadecimal; state 0A is listening.
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    rows = [line.split() for line in lines]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    # 127.0.0.1, or the same as an IPv6 address.
    own = {f"0100007F:{port:04X}", f"0000000000000000FFFF00000100007F:{port:04X}"}
    assert listening and listening <= own


def test_a_slurm_job_listens_only_on_its_own_address_saves_all_at_the_same_step_and_one_process_resumes(
    start, tmp_path
):
    run_dir, port = tmp_path / "run", SLURM_FIRST_PORT + os.getpid() % 4096
    started = start(run_dir, 2, port=port, cluster=_by_slurm, function="long")
    assert _next_epoch(started[0]) == 1
    _assert_listens_only_on_its_own_address(port)
    started[1].send_signal(signal.SIGTERM)
    codes, outputs = _finish(started)
    assert codes == [143, 143], outputs
    assert outputs[0][1].startswith("stopped at step ") and not outputs[1][1]
    step = int(outputs[0][1].split()[3].rstrip(","))
    assert (run_dir / "checkpoints" / str(step)).is_dir() and not any(verification.verify(run_dir).values())

    [one] = start(run_dir, 1, function="long")
    assert _next_epoch(one) == step // STEPS + 1


@pytest.mark.parametrize(
    ("victim", "how"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGSTOP)]
)
def test_all_exit_if_one_is_killed_or_hangs_and_one_process_resumes(start, splits, tmp_path, victim, how):
    run_dir, port = tmp_path / "run", _free_port()
    started = start(run_dir, 2, port=port, function="long")
    assert _next_epoch(started[0]) == 1
    _assert_listens_only_on_its_own_address(port)
    start_time = time.monotonic()
    started[victim].send_signal(how)
    other = started[1 - victim]
    other.communicate(timeout=3 * processes.HEARTBEAT_SECONDS)
    assert other.returncode not in (0, None)
    assert time.monotonic() - start_time < 2 * processes.HEARTBEAT_SECONDS
    assert not any(verification.verify(run_dir).values())
    epochs = len(_history(run_dir))
    # A stopped process is alive; a stopped primary process still holds the lock of the directory.
    started[victim].kill()
    started[victim].wait()
    with pytest.raises(Interrupted):
        cnn.fit(LONG, run_dir, shrink(splits, 200), interrupt_after(epochs + 1))
    assert len(_history(run_dir)) == epochs + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coordinator", "127.0.0.1:1"], "are for --distributed; add it"),
        (["--distributed", "--coordinator", "127.0.0.1:1"], "belong together; give all three or none"),
        (["--distributed", "--coordinator", "here", "--processes", "2", "--process-index", "0"], "must be host:port"),
        (["--distributed", "--coordinator", "a:1", "--processes", "2", "--process-index", "2"], "must be from 0 to 1"),
    ],
)
def test_invalid_cluster_options_are_one_line_errors(monkeypatch, tmp_path, capsys, options, message):
    monkeypatch.setattr(sys, "argv", ["cluster", "--run-dir", str(tmp_path / "run"), *options])
    with pytest.raises(SystemExit) as stop:
        run.main(CONFIG)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_cannot_be_joined_is_a_one_line_error(tmp_path):
    [[status], [(_, errors)]] = _finish(_start(tmp_path / "run", 1, "--distributed"))
    assert status == 2
    assert "--distributed could not join other processes" in errors and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_two_processes_stream_images_to_the_same_bits(start, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    # 3 MiB, of which the devices are to hold 1.
    counts = {"x_train": 480, "x_test": 280}
    arrays: Any = {name: draw.integers(0, 256, (count, 64, 64), np.uint8) for name, count in counts.items()}
    np.savez(tmp_path / "own.npz", **arrays, y_train=np.arange(480) % 3, y_test=np.arange(280) % 3)
    own = ("--data.source", str(tmp_path / "own.npz"), "--train.epochs", "1", "--train.monitor", "val_macro_f1")
    runs = {1024: tmp_path / "in_memory", 1: tmp_path / "streamed"}
    for memory, run_dir in runs.items():
        codes, outputs = _finish(start(run_dir, 2, *own, "--data.device_memory", str(memory)))
        assert codes == [0, 0], outputs
    rows = [without_times(_history(run_dir)) for run_dir in runs.values()]
    assert rows[0] == rows[1]
    states = [cnn.load_best(run_dir)[0] for run_dir in runs.values()]
    assert_same(states[0].params, states[1].params)
