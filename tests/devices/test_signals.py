"""SIGTERM and SIGINT: the run is saved, its exit status is the signal's, and the same command resumes it."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from itertools import count

import pytest

import cnn
from cnn.devices import signals
from cnn.errors import Stopped
from cnn.runs import verify as verification
from tests.forked import Forked
from tests.helpers import narrow


def _epoch(line):
    return int(line.split()[1].split("/")[0]) if line.startswith("epoch ") else line


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_and_the_same_command_resumes(tmp_path, number, status):
    options = "--run-dir", str(tmp_path / "run")
    process = Forked("tests.workers.long_run", *options)
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert _epoch(lines[1]) == 1, (lines, process.communicate())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    notice, stopped = errors.splitlines()
    assert notice.startswith("stopping: the run is saved within about ")
    assert stopped.startswith("stopped at step ")
    assert f"the same command with --run-dir {tmp_path / 'run'} resumes it" in stopped
    step = int(stopped.split()[3].rstrip(","))
    assert (tmp_path / "run" / "checkpoints" / str(step)).is_dir()
    assert not any(verification.verify(tmp_path / "run").values())
    again = Forked("tests.workers.long_run", *options)
    lines = [again.stdout.readline() for _ in range(3)]
    again.kill()
    again.communicate()
    assert lines[1].startswith("found an unfinished run") and _epoch(lines[2]) == step // 63 + 1


@pytest.mark.parametrize("checks", [1, 3, 11])
def test_a_signal_is_noticed_within_an_eighth_of_an_epoch(monkeypatch, config, small, tmp_path, checks):
    checked = count(1)

    @contextmanager
    def catch_signals(notice):
        yield lambda: signal.SIGTERM if next(checked) == checks else 0

    monkeypatch.setattr(signals, "catch_signals", catch_signals)
    # Eight times in an epoch of 16 steps, and once more after it, when it is saved.
    with pytest.raises(Stopped, match=f"stopped at step {2 * (checks - (checks > 8))}, which is saved"):
        cnn.fit(narrow(config), tmp_path, small)


def test_a_second_signal_ends_the_process_at_once():
    process = Forked("tests.workers.two_signals")
    assert process.stdout.readline() == "received 15\n"
    time.sleep(2)  # until it is in that call
    assert process.returncode is None
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < 5
    assert (process.returncode, output, errors) == (143, "", "")


def test_a_second_interrupt_of_a_caller_raises_and_the_run_can_be_resumed(config, small, tmp_path, capfd):
    """From Python, as in a notebook: the process and all of its variables stay."""
    steps = []

    def interrupt(row, state):
        steps.append(int(state.step))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt) as interrupted:
        cnn.fit(narrow(config, epochs=2), tmp_path, small, track=interrupt)
    assert not isinstance(interrupted.value, Stopped) and steps == [16]
    assert capfd.readouterr().err.startswith("stopping: the run is saved within")
    assert cnn.fit(narrow(config, epochs=2), tmp_path, small).summary["stopped_epoch"] == 2


def test_in_a_thread_no_signal_is_caught_and_the_main_thread_is_interrupted():
    entered, leave = threading.Event(), threading.Event()
    seen: list[int] = []

    def train():
        with signals.catch_signals() as received:
            entered.set()
            leave.wait(10)
            seen.append(received())

    thread = threading.Thread(target=train)
    thread.start()
    assert entered.wait(10)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    leave.set()
    thread.join()
    assert seen == [0]


def test_handlers_are_restored_and_ignored_signals_stay_ignored():
    before = [signal.getsignal(number) for number in signals.STOPPING]
    with signals.catch_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not received() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert received() == signal.SIGTERM
    assert [signal.getsignal(number) for number in signals.STOPPING] == before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    of_the_users = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with signals.catch_signals() as received:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            assert received() == 0
    finally:
        signal.signal(signal.SIGINT, before[1])
        signal.signal(signal.SIGUSR1, of_the_users)
