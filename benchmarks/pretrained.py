"""Makes the network that ships, cnn/weights/model.safetensors, and its card: the bits repeat on the same machine.

python -m benchmarks.pretrained [--experiment experiments.fashion_full] [--seed 0] [--run-dir runs/pretrained]

Nine minutes on two idle cores. Of a finished run, only the files are written again.
"""

import dataclasses
from pathlib import Path

from benchmarks.measure import run_main
from cnn.cli import enable_onednn_bfloat16, load_experiment
from cnn.exchange.exporting import PRETRAINED, export_run
from cnn.run import epoch_line, warn
from cnn.runs import outputs, rundir
from cnn.runs.fit import fit
from cnn.runs.result import load_images
from cnn.trust.exports import CARD, write_card
from cnn.trust.reference import make_reference, write_reference
from cnn.trust.robustness import evaluate_run, read_robustness

REFERENCE_IMAGES = 1_000
"""Training images that tell the unknown: 0.7 MB."""


def main(
    experiment: str = "experiments.fashion_full", seed: int = 0, run_dir: Path = Path("runs", "pretrained")
) -> None:
    """Train the network that ships, and write its weights and its card.

    Args:
        experiment: Module of the experiment.
        seed: Seed of the training.
        run_dir: Directory of the run; the same command resumes it.
    """
    config = load_experiment(experiment)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    enable_onednn_bfloat16(config)
    result = fit(config, run_dir, report=lambda row: print(epoch_line(row, config.train.epochs), flush=True), warn=warn)
    if read_robustness(run_dir) is None:
        # For the card: what the network is bad at.
        values, _ = evaluate_run(run_dir, report=lambda line: print(line, flush=True))
        rundir.write_json(run_dir / outputs.ROBUSTNESS, values)
    print(export_run(run_dir, "safetensors", PRETRAINED))
    command = f"python -m benchmarks.pretrained --experiment {experiment} --seed {seed}"
    write_card(run_dir, PRETRAINED.with_name(CARD), license="apache-2.0", command=command, warn=warn)
    print(PRETRAINED.with_name(CARD))
    write_reference(None, result.state, make_reference(result.state, load_images(run_dir), REFERENCE_IMAGES))


if __name__ == "__main__":
    run_main(main)
