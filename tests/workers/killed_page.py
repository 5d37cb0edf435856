"""A run that is killed while it writes live.html for the second time, half of it."""

import os
import signal
import sys
from itertools import count
from pathlib import Path

import cnn
from cnn.report import live
from cnn.runs import rundir
from cnn.runs.files import replacing
from tests.helpers import NARROW, shrink

CONFIG = cnn.ExperimentConfig(model=NARROW, train=cnn.TrainConfig(epochs=3, patience=9))


def splits() -> cnn.Splits:
    return shrink(cnn.load_data(CONFIG.data), 200)


def main() -> None:
    write_text, writings, run_dir = rundir.write_text, count(1), Path(sys.argv[1])

    def killed(path, text, *hint):
        if path.name != rundir.LIVE or next(writings) == 1:
            return write_text(path, text, *hint)
        with replacing(path) as temporary:
            temporary.write_text(text[: len(text) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    rundir.write_text, live.INTERVAL = killed, 0
    with live.live_page(CONFIG, run_dir, splits()) as track:
        cnn.fit(CONFIG, run_dir, splits(), track=track)
