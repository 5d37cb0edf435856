"""Seconds for a train + validation epoch at batch 32, steady state, ours and Keras' in turn on the same images.

python -m benchmarks.epoch [ROUNDS]

Both processes are warm (an epoch that is not counted) and wait while the other works, so that each pair is measured
in the same minute; the ratio is taken pair by pair. Ours: a call of train_epoch and one of evaluate, the metrics read
at the end. Keras: a call of fit with validation data, on TensorFlow with oneDNN.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

import cnn
from benchmarks.measure import PEERS_PYTHON, save_images, summary, write_result
from experiments.fashion_cnn import CONFIG


def our_epochs(splits: cnn.Splits) -> Callable[[], float]:
    """Returns what trains and validates for an epoch and returns its seconds."""
    train, val = jax.device_put((splits.train, splits.val))
    state = cnn.create_state(CONFIG)

    def epoch() -> float:
        nonlocal state
        begin = time.perf_counter()
        state, train_metrics = cnn.train_epoch(state, train, batch_size=CONFIG.optim.batch_size)
        jax.device_get((train_metrics, cnn.evaluate(state, val)))
        return time.perf_counter() - begin

    return epoch


def main(rounds: int = 5) -> None:
    """Measures, prints each pair, and writes epoch.json."""
    with tempfile.TemporaryDirectory() as directory:
        images = Path(directory, "images.npz")
        ours = our_epochs(save_images(images))
        command = [str(PEERS_PYTHON), "benchmarks/keras_peer.py", str(images), "epochs"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as peer:
            assert peer.stdin and peer.stdout
            about_keras = json.loads(peer.stdout.readline())
            pairs = []
            for number in range(rounds + 1):
                ours_seconds = ours()
                peer.stdin.write("\n")
                peer.stdin.flush()
                keras_seconds = json.loads(peer.stdout.readline())["seconds"]
                note = f"ratio {keras_seconds / ours_seconds:.2f}" if number else "warm-up, not counted"
                print(f"ours {ours_seconds:6.2f} s   Keras {keras_seconds:6.2f} s   {note}", flush=True)
                if number:
                    pairs.append((ours_seconds, keras_seconds))
            peer.stdin.close()
    write_result(
        "epoch",
        {
            "what": "seconds for a train + validation epoch, batch 32, 48,000 + 12,000 images",
            "keras_versions": about_keras,
            "ours": summary([a for a, _ in pairs]),
            "keras": summary([b for _, b in pairs]),
            "keras_over_ours": summary([b / a for a, b in pairs]),
        },
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
