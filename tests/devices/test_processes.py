"""Many real processes on this machine's loopback, as on many hosts: they train as one, stop as one and end as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cnn
from cnn.devices import processes
from cnn.runs import verify as verification
from tests.helpers import ROOT

STEPS = 5
"""Of an epoch: 200 images in batches of 48. A step takes a third of a second, as gloo's sums do on one machine."""

WORKER = """
import sys
import cnn
from cnn import run
from cnn.runs import fit as train
from tests.helpers import NARROW
config = cnn.ExperimentConfig(
    model=NARROW, optim=cnn.OptimConfig(batch_size=48), log=cnn.LogConfig(figures=False),
    train=cnn.TrainConfig(epochs=2, patience=400))
def small(config):
    return cnn.Splits(*(cnn.Split(s.images[:200], s.labels[:200]) for s in cnn.load_data(config)))
train.load_data = small
run.main(config)
"""


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _by_options(port, number, index):
    """Options that tell a process of its cluster, and no variables."""
    cluster = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(number), "--process-index", str(index)]
    return ["--distributed", *cluster], {}


def _by_slurm(port, number, index):
    """The variables that SLURM would set; JAX makes the port from the job's number."""
    names = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    values = (port - SLURM_FIRST_PORT, "localhost", number, index, index)
    return ["--distributed"], {f"SLURM_{name}": str(value) for name, value in zip(names, values, strict=True)}


SLURM_FIRST_PORT = 61440


def _start(run_dir, number, *options, port=None, cluster=_by_options) -> list[Any]:
    """Starts so many processes of one run; one alone is not distributed."""
    port = port or _free_port()
    told = [cluster(port, number, index) if number > 1 else ([], {}) for index in range(number)]
    return [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, "--run-dir", str(run_dir), *options, *more_options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **variables},
        )
        for more_options, variables in told
    ]


def _finish(started, timeout=150):
    outputs = [process.communicate(timeout=timeout) for process in started]
    return [process.returncode for process in started], outputs


def _history(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def _losses(run_dir):
    return [row[name] for row in _history(run_dir) for name in ("train_loss", "val_loss")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    codes, outputs = _finish(_start(run_dir, 1))
    assert codes == [0], outputs
    return run_dir


@pytest.mark.parametrize("number", [2, 4])
def test_many_processes_come_to_what_one_comes_to(alone, tmp_path, number):
    run_dir = tmp_path / "run"
    codes, outputs = _finish(_start(run_dir, number))
    assert codes == [0] * number, outputs
    assert _losses(run_dir) == pytest.approx(_losses(alone), rel=1e-5)
    results = [json.loads((path / "result.json").read_text()) for path in (run_dir, alone)]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    # The first alone prints and writes.
    assert "epoch 2/2" in outputs[0][0] and f"on {number} x cpu" in outputs[0][0]
    others = [line for output, _ in outputs[1:] for line in output.splitlines()]
    assert all(line.startswith("[Gloo]") for line in others), others
    assert [errors for _, errors in outputs] == [""] * number
    assert json.loads((run_dir / "config.json").read_text())["devices"]["number"] == number
    # What many have saved, one loads.
    assert cnn.load_best(run_dir)[0].step == results[0]["best_epoch"] * STEPS
    assert not any(verification.verify(run_dir).values())


def _next_epoch(process):
    """The number of the epoch that the next such line of output tells of; the whole output if none does."""
    lines = []
    for line in process.stdout:
        if line.startswith("epoch "):
            return int(line.split()[1].split("/")[0])
        lines.append(line)
    return lines, process.stderr.read()


@pytest.fixture
def start():
    """``_start``, whose processes are gone when the test is."""
    everyone = []

    def started(*arguments, **options):
        everyone.extend(new := _start(*arguments, **options))
        return new

    yield started
    for process in everyone:
        process.kill()
        process.communicate()


def test_sigterm_to_one_saves_on_all_at_the_same_step_and_another_number_goes_on(start, tmp_path):
    run_dir, long = tmp_path / "run", ("--train.epochs", "500")
    started = start(run_dir, 2, *long)
    assert _next_epoch(started[0]) == 1
    started[1].send_signal(signal.SIGTERM)
    codes, outputs = _finish(started)
    assert codes == [143, 143], outputs
    assert outputs[0][1].startswith("stopped at step ") and not outputs[1][1]
    step = int(outputs[0][1].split()[3].rstrip(","))
    assert (run_dir / "checkpoints" / str(step)).is_dir() and not any(verification.verify(run_dir).values())

    [one] = start(run_dir, 1, *long)
    assert _next_epoch(one) == step // STEPS + 1


@pytest.mark.parametrize(
    ("victim", "how"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGSTOP)]
)
def test_when_one_is_killed_or_stops_all_end_and_a_restart_goes_on(start, tmp_path, victim, how):
    run_dir, long = tmp_path / "run", ("--train.epochs", "500")
    started = start(run_dir, 2, *long)
    assert _next_epoch(started[0]) == 1
    begin = time.monotonic()
    started[victim].send_signal(how)
    other = started[1 - victim]
    other.communicate(timeout=3 * processes.HEARTBEAT_SECONDS)
    assert other.returncode not in (0, None)
    assert time.monotonic() - begin < 2 * processes.HEARTBEAT_SECONDS
    assert not any(verification.verify(run_dir).values())
    epochs = len(_history(run_dir))
    # One that is stopped is alive, and if it is the first, the directory is its own.
    started[victim].kill()
    started[victim].wait()
    [one] = start(run_dir, 1, *long)
    assert _next_epoch(one) == epochs + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coordinator", "127.0.0.1:1"], "are for --distributed; add it"),
        (["--distributed", "--coordinator", "127.0.0.1:1"], "belong together; give all three or none"),
        (["--distributed", "--coordinator", "here", "--processes", "2", "--process-index", "0"], "must be host:port"),
        (["--distributed", "--coordinator", "a:1", "--processes", "2", "--process-index", "2"], "must be from 0 to 1"),
        (["--distributed"], "--distributed finds no other processes"),
    ],
)
def test_what_cannot_be_joined_is_one_line(tmp_path, options, message):
    worker = subprocess.run(
        [sys.executable, "-c", WORKER, "--run-dir", str(tmp_path / "run"), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert worker.returncode == 2
    assert message in worker.stderr and worker.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cluster", [_by_options, _by_slurm])
def test_the_coordinator_listens_on_its_own_address_alone(start, tmp_path, cluster):
    port = SLURM_FIRST_PORT + os.getpid() % 4096
    started = start(tmp_path / "run", 2, "--train.epochs", "500", port=port, cluster=cluster)
    assert _next_epoch(started[0]) == 1
    # /proc/net/tcp: local address and port in hexadecimal; state 0A is listening.
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    rows = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    listening |= {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    # 127.0.0.1, or the same as an address of IPv6.
    own = {f"0100007F:{port:04X}", f"0000000000000000FFFF00000100007F:{port:04X}"}
    assert listening and listening <= own
