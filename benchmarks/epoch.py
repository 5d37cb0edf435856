"""Seconds per train + validation epoch, steady state, ours and the peers' taking turns on the same images.

python -m benchmarks.epoch [--precision bfloat16] [--rounds 5] [--images 48000] [--results DIR]

Each framework is a process of its own that has warmed up and is idle while another works; a round goes through all of
them, batch size by batch size, and ratios are taken round by round. Keras on JAX, some five times slower, is measured
in one round. A measurement that raises, or takes or would take over 150 s, is recorded as failed.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import RESULTS, run_main, save_images, summary, write_result
from benchmarks.protocol import warm_up_counts
from benchmarks.workers import FRAMEWORKS, LIMIT, Ask, worker

BATCH_SIZES = {"float32": (32, 128, 512), "bfloat16": (32, 128)}
ONE_ROUND = ("keras_jax",)


def measure_epoch(ask: Ask, batch_size: int, images: int, warm: bool) -> dict[str, Any]:
    """Returns the answer of a framework to a request for an epoch, after two warm-ups unless it is warm.

    The first compiles. The second shows whether an epoch can finish within the limit; if not, it is not started.
    """
    warm_up_images, seconds = sum(warm_up_counts(batch_size, images)), 0.0
    for _ in range(0 if warm else 2):
        answer = ask("warm_up", batch_size=batch_size, images=images)
        if "failed" in answer:
            return {"failed": f"warm-up: {answer['failed']}"}
        seconds = answer["seconds"] * (images + images // 4) / warm_up_images
    if seconds > LIMIT:
        return {"failed": f"would take about {seconds:.0f} s, as warming up on {warm_up_images:,} images says"}
    return ask("epoch", batch_size=batch_size, images=images)


def measure(precision: str, rounds: int, images: int, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Prints each measurement, and returns the versions of the frameworks and a row per measurement."""
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        asks = {name: stack.enter_context(worker(name, path, precision)) for name in FRAMEWORKS}
        versions = {name: ask("versions") for name, ask in asks.items()}
        warm, failed = set(), set()
        for number in range(rounds):
            for batch_size in BATCH_SIZES[precision]:
                for name, ask in asks.items():
                    kind = (name, batch_size)
                    if (number and name in ONE_ROUND) or kind in failed:
                        continue
                    answer = measure_epoch(ask, batch_size, images, warm=kind in warm)
                    if "failed" in answer:
                        failed.add(kind)
                        # Its process may have ended and been replaced.
                        warm = {other for other in warm if other[0] != name}
                    else:
                        warm.add(kind)
                    row = {"precision": precision, "batch_size": batch_size, "round": number, "framework": name}
                    rows.append({**row, **answer})
                    told = answer.get("failed") or f"{answer['seconds']:6.2f} s   val loss {answer['val_loss']:.4f}"
                    print(f"{precision}, batch {batch_size:3}, round {number + 1}   {name:16} {told}", flush=True)
    return versions, rows


def summarise(rows: list[dict[str, Any]], keys: tuple[str, ...] = ("precision", "batch_size")) -> list[dict[str, Any]]:
    """Returns for each kind of row and each framework the seconds, and the ratios to ours in the same round.

    Args:
      rows: each with its framework and round, and its seconds or the reason why it failed.
      keys: what makes the kind of a row.
    """
    seconds: dict[tuple[Any, ...], dict[str, dict[int, float]]] = {}
    failures: dict[tuple[Any, ...], str] = {}
    for row in rows:
        kind, framework = tuple(row[key] for key in keys), row["framework"]
        by_round = seconds.setdefault(kind, {}).setdefault(framework, {})
        if "seconds" in row:
            by_round[row["round"]] = row["seconds"]
        else:
            failures[*kind, framework] = row["failed"]
    summaries = []
    for kind, by_framework in seconds.items():
        for framework, mine in by_framework.items():
            summed: dict[str, Any] = {**dict(zip(keys, kind, strict=True)), "framework": framework}
            ours = by_framework.get("ours", {})
            ratios = [value / ours[number] for number, value in mine.items() if number in ours]
            if (*kind, framework) in failures:
                summed["failed"] = failures[*kind, framework]
            if mine:
                summed["seconds"] = summary(list(mine.values()))
            if ratios:
                summed["over_ours"] = summary(ratios)
            summaries.append(summed)
    return summaries


def main(
    precision: Literal["float32", "bfloat16"] = "float32",
    rounds: int = 5,
    images: int = 48_000,
    results: Path = RESULTS,
) -> None:
    """Measure epochs, print each, and write epoch.json, or epoch_bfloat16.json.

    Args:
        precision: Type of the layers; the peers' bfloat16 is mixed_bfloat16 and autocast.
        rounds: Number of rounds.
        images: Number of training images; a fourth of this number validates.
        results: Directory for the JSON file.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "images.npz")
        save_images(path)
        versions, rows = measure(precision, rounds, images, path)
    write_result(
        "epoch" if precision == "float32" else f"epoch_{precision}",
        {
            "what": "seconds for a train + validation epoch",
            "images": {"train": images, "val": images // 4},
            "frameworks": versions,
            "summary": summarise(rows),
            "measurements": rows,
        },
        results,
    )


if __name__ == "__main__":
    run_main(main)
