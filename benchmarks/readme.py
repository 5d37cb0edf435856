"""Writes the tables of README.md and docs/*.md from benchmarks/results/*.json; --check compares them.

python -m benchmarks.readme [--check]

A table is written between two marks, which must be on exactly one page, once: ``<!-- NAME: made by
benchmarks/readme.py -->`` and ``<!-- end of NAME -->``.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.detectors_table import detectors_table
from benchmarks.markdown import (
    FRAMEWORKS,
    by_framework,
    failures,
    footnote,
    place_of,
    spread,
    table,
    time_cell,
    versions,
)
from benchmarks.play_table import play_table
from benchmarks.rungs_tables import rungs_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", *(f"docs/{page}.md" for page in ("detection", "ladder", "performance", "scaling", "web")))


def seeds_table(result: dict[str, Any]) -> str:
    """Returns the metrics of the shipped experiments and of the Keras notebook."""
    columns = {
        "val loss": ("val_loss", 4),
        "val accuracy": ("val_accuracy", 4),
        "test accuracy": ("test_accuracy", 4),
        "best epoch": ("best_epoch", 1),
    }
    lines = [f"| | seeds | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    titles = {
        "fashion_cnn": "`experiments.fashion_cnn` (`make train`)",
        "fashion_fast": "`experiments.fashion_fast`",
        "float32": "`experiments.fashion_fast --model.dtype float32`",
        "keras": "the Keras 3 notebook",
    }
    for name, title in titles.items():
        if name not in result["summary"]:
            continue
        means = result["summary"][name]
        cells = [spread(means[key], digits) for key, digits in columns.values()]
        lines.append(f"| {title} | {means['val_loss']['n']} | {' | '.join(cells)} |")
    command = {"command": "python -m benchmarks.seeds"}
    origins = {name: origin | command for name, origin in result["origins"].items()}
    return "\n".join(
        [
            *lines,
            "",
            "Mean ± standard deviation at the epoch with the lowest val loss. "
            f"{footnote(result | {'origins': origins})}.",
        ]
    )


def epoch_table(result: dict[str, Any]) -> str:
    """Returns the seconds per epoch, and the ratios of the peers to ours."""
    rows = result["summary"]
    kinds = dict.fromkeys((row["precision"], row["batch_size"]) for row in rows)
    lines = []
    for precision, batch_size in kinds:
        cells = by_framework([row for row in rows if (row["precision"], row["batch_size"]) == (precision, batch_size)])
        lines.append(
            [f"{precision}, {batch_size}", *(time_cell(cells.get(name), "{:.1f}".format) for name in FRAMEWORKS)]
        )
    rounds = max(row["seconds"]["n"] for row in rows if "seconds" in row)
    counted = f"{rounds} rounds taking turns, one for Keras on JAX" if rounds > 1 else "one round"
    images = f"{result['images']['train']:,} + {result['images']['val']:,} images"
    notes = (
        f"Median seconds, and the median of the ratios to ours in the same round; {counted}; {images}."
        f"{failures(rows)} {footnote(result)}, {versions(result)}."
    )
    return table(["train + validation epoch, batch", *FRAMEWORKS.values()], lines, notes)


def inference_table(result: dict[str, Any]) -> str:
    """Returns images per second by batch size and framework."""
    rows = result["summary"]
    lines = []
    for batch_size in dict.fromkeys(row["batch_size"] for row in rows):
        by_name = by_framework([row for row in rows if row["batch_size"] == batch_size])
        cells = (
            f"{by_name[name]['images_per_second']['median']:,.0f}" if "ways" in by_name.get(name, {}) else "failed"
            for name in FRAMEWORKS
        )
        lines.append([f"{batch_size:,}", *cells])
    keras = ", ".join(
        f"{row['way']} at {row['batch_size']:,}"
        for row in rows
        if row["framework"] == "keras_tensorflow" and "way" in row
    )
    rounds = max(row["images_per_second"]["n"] for row in rows if "ways" in row)
    notes = (
        f"Median images per second of {rounds} rounds, one call per batch, from uint8 to probabilities. For Keras, the "
        f"fastest of three methods (on TensorFlow, {keras}).{failures(rows)} {footnote(result)}, {versions(result)}."
    )
    return table(["batch", *FRAMEWORKS.values()], lines, notes)


def time_to_result_table(result: dict[str, Any]) -> str:
    """Returns the seconds from the start of the process to results as good as the notebook's."""
    titles = {
        "notebook": "the notebook, Keras on TensorFlow",
        "fashion_fast cold": "`experiments.fashion_fast`, first run",
        "fashion_fast warm": "`experiments.fashion_fast`, later run",
        "fashion_cnn warm": "`experiments.fashion_cnn`, later run",
    }
    lines = []
    for variant, title in titles.items():
        cells = []
        for mark, numbers in result["summary"][variant].items():
            notebook = result["summary"]["notebook"][mark]
            bound = "" if numbers["reached"] == numbers["n"] else "≥ "
            share = f"{numbers['over_notebook']:.2f}×" if variant != "notebook" else "1"
            if bound:
                share = "—"
            elif notebook["reached"] < notebook["n"]:
                share = f"≤ {share}"
            cells += [f"{bound}{numbers['median_seconds']:.0f}", f"{numbers['reached']} of {numbers['n']}", share]
        lines.append([title, *cells])
    header = ["seconds from process start to"]
    for mark in result["marks"].values():
        header += [
            f"val loss ≤ {mark['val_loss']}, accuracy ≥ {mark['val_accuracy']}",
            "reached",
            "ratio to the notebook",
        ]
    notes = (
        "Medians; a run that does not reach a mark counts with its whole time, so the median is a lower bound (≥), for "
        "which no ratio is given (—). The marks are the published results of the notebook in the second and the first "
        "edition of the book; in the first run nothing is compiled yet. "
        f"{footnote(result)}."
    )
    return table(header, lines, notes)


def startup_table(result: dict[str, Any]) -> str:
    """Returns the seconds to the first step, and the memory of an epoch."""
    titles = {
        "ours cold": "this project, first run",
        "ours cached": "this project, later run",
        "keras_tensorflow": FRAMEWORKS["keras_tensorflow"],
        "torch": FRAMEWORKS["torch"],
    }
    memory, compilation = result["peak_memory"], result["compile_seconds"]
    lines = []
    for label, title in titles.items():
        peak = memory[label]
        seconds = result["first_step_seconds"][label]["median"]
        lines.append([title, f"{seconds:.1f}", f"{peak['MiB']:,.0f}" if "MiB" in peak else "failed"])
    notes = (
        f"Medians of {result['first_step_seconds']['ours cold']['n']}; peak memory of a process that trains "
        f"and validates for an epoch at batch 32. Compiling a whole epoch takes this project "
        f"{compilation['cold']['median']:.1f} s in the first run and {compilation['cached']['median']:.1f} s in later "
        f"ones. {footnote(result)}."
    )
    return table(["", "seconds from process start to the first step", "peak memory, MiB"], lines, notes)


def roofline_table(result: dict[str, Any]) -> str:
    """Returns the share of the machine's matrix-product rate that training reaches."""
    lines = [
        [
            str(step["batch_size"]),
            f"{step['gflop_per_step']:.2f}",
            f"{step['seconds_per_epoch']:.1f}",
            f"{step['gflop_per_second']:.0f}",
            f"{step['share']:.0%}",
        ]
        for step in result["steps"]
    ]
    header = ["batch", "GFLOP per step", "seconds per pass", "GFLOP/s", "share of the peak"]
    notes = (
        f"The peak is that of 2048³ products, {result['matmul_gflop_per_second']:.0f} GFLOP/s. "
        f"{result['flops_per_image'] / 1e6:.2f} MFLOP per image: the matrix products only, counted for the direct sum. "
        f"Winograd's algorithm computes about half of them: for conv2, nine tenths of the total, it needs 2.25 times "
        f"fewer multiplications. float32, {result['images']:,} images per pass. {footnote(result)}."
    )
    return table(header, lines, notes)


def scaling_table(result: dict[str, Any]) -> str:
    """Returns the cost of steps on many devices, computed from the measured step on one."""
    steps, many = result["step_seconds"], result["many"]
    lines = [
        [
            f"{row['devices']} by {row['link']}",
            f"{1000 * row['all_reduce_seconds']:.2f}",
            *(f"{share:.0%}" for share in row["efficiency"].values()),
            # Where one image per device is enough, no batch loses half.
            f"{row['images_a_device_at_half'] * row['devices']:,}" if row["images_a_device_at_half"] > 1 else "none",
        ]
        for row in many
    ]
    measured = ", ".join(f"{1000 * seconds:.2f} ms on {images}" for images, seconds in steps.items())
    header = [
        "devices",
        "all-reduce, ms",
        *(f"share at {images} image{'s' * (int(images) > 1)} per device" for images in steps),
        "batch that loses half",
    ]
    notes = (
        f"A step on one device, measured: {measured} images. The gradients are "
        f"{result['gradient_bytes'] / 1e6:.2f} MB. The share is the fraction of the devices' rate that remains; a "
        f"batch smaller than that of the last column loses more than half of it. {footnote(result)}."
    )
    return table(header, lines, notes)


def devices_table(result: dict[str, Any]) -> str:
    """Returns the losses and correct counts of an epoch by number of devices."""
    header = ["layers in", "devices", "train loss", "correct", "val loss", "correct"]
    lines = [
        [
            row["dtype"],
            str(row["devices"]),
            f"{row['train_loss']:.8f}",
            f"{row['train_correct']:,}",
            f"{row['val_loss']:.8f}",
            f"{row['val_correct']:,}",
        ]
        for row in result["rows"]
    ]
    images = result["images"]
    notes = (
        f"One epoch of {images['train']:,} images in batches of {result['batch_size']}, one seed, and "
        f"{images['val']:,} validation images. {footnote(result)}."
    )
    return table(header, lines, notes)


def ladder_table(result: dict[str, Any]) -> str:
    """Returns size, cost and accuracy of each rung."""
    header = [
        "rung",
        "parameters",
        "MFLOP per image",
        "epochs",
        "seconds per epoch",
        "val accuracy",
        "test accuracy",
        "n",
    ]
    rows = [
        [
            f"`{name}`",
            f"{rung['parameters']:,}",
            f"{rung['flops'] / 1e6:.2f}",
            str(rung["epochs"]),
            f"{rung['epoch_seconds']:.1f}",
            spread(rung["summary"]["val_accuracy"], 4),
            spread(rung["summary"]["test_accuracy"], 4),
            str(len(rung["rows"])),
        ]
        for name, rung in result["rungs"].items()
    ]
    origins = {name: dict(origin) for name, origin in result["origins"].items()}
    for name, rung in result["rungs"].items():
        if rung.get("device", "cpu") != "cpu":
            versions = {"python": rung["trained_with"]["python"], "versions": {"jax": rung["trained_with"]["jax"]}}
            origins[name] |= {"device": rung["device"], "machine": versions}
    notes = (
        "Mean ± standard deviation over n seeds, at the epoch with the lowest val loss; FLOPs of the forward pass. "
        f"Trained by {footnote({**result, 'origins': origins})}. "
        f"Seconds are of training only, by `python -m benchmarks.ladder`; {place_of(result['machine'])}, idle."
    )
    return table(header, rows, notes)


def ablation_table(result: dict[str, Any]) -> str:
    """Returns the metrics of the recipe with one ingredient removed, or one added."""
    full = next(iter(result["variants"].values()))["summary"]["val_accuracy"]["mean"]
    rows = []
    for name, variant in result["variants"].items():
        numbers = variant["summary"]
        change = 100 * (numbers["val_accuracy"]["mean"] - full)
        rows.append(
            [
                name,
                ", ".join(f"`{field} {value}`" for field, value in variant["changes"].items()),
                spread(numbers["val_loss"], 4),
                spread(numbers["val_accuracy"], 4),
                f"{change:+.2f}",
                spread(numbers["test_accuracy"], 4),
            ]
        )
    count = len(next(iter(result["variants"].values()))["rows"])
    header = ["recipe", "changed", "val loss", "val accuracy", "points over the full recipe", "test accuracy"]
    notes = f"{count} seeds each, {result['epochs']} epochs of `{result['experiment']}`. {footnote(result)}."
    return table(header, rows, notes)


def transfer_table(result: dict[str, Any]) -> str:
    """Returns test accuracy by images per class, for each task and initialization."""
    rows, header = [], ["task", "initialization", "few images per class", "more", "most"]
    for task, starts in result["tasks"].items():
        for start, counts in starts.items():
            cells = [f"{count}: {spread(values, 3)}" for count, values in counts.items()]
            rows.append([task, start, *cells])
    count = len(next(iter(next(iter(result["tasks"]["digits"].values())).values()))["values"])
    notes = f"Images per class: mean ± standard deviation of {count} seeds, each with its own images. "
    return table(header, rows, f"{notes}{footnote(result)}.")


TABLES = {
    "seeds": seeds_table,
    "ladder": ladder_table,
    "detectors": detectors_table,
    "ablation": ablation_table,
    "transfer": transfer_table,
    "epoch": epoch_table,
    "epoch_bfloat16": epoch_table,
    "rungs": rungs_tables,
    "inference": inference_table,
    "time_to_result": time_to_result_table,
    "startup": startup_table,
    "roofline": roofline_table,
    "scaling": scaling_table,
    "devices": devices_table,
    "play": play_table,
}


def marks(name: str) -> tuple[str, str]:
    """Returns the two lines that enclose a table."""
    return f"<!-- {name}: made by benchmarks/readme.py -->", f"<!-- end of {name} -->"


def render(page: str, results: Path = RESULTS) -> str:
    """Returns a page with the tables between its marks generated from the results."""
    for name, make in TABLES.items():
        begin, end = marks(name)
        if begin in page:
            path = results / f"{name}.json"
            made = make(json.loads(path.read_text())) if path.exists() else "Not measured yet."
            block = f"{begin}\n{made}\n{end}"
            page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, b=block: b, page, flags=re.DOTALL)
    return page


def check_marks(pages: dict[str, str]) -> None:
    """Raises SystemExit unless both marks of every table that has a result are on exactly one page, once."""
    for name in (name for name in TABLES if (RESULTS / f"{name}.json").exists()):
        for mark in marks(name):
            count = sum(page.count(mark) for page in pages.values())
            if count != 1:
                raise SystemExit(f"{mark} must be once in {', '.join(pages)}, but is there {count} times")


def main(arguments: list[str]) -> None:
    """Writes the pages, or checks them."""
    before = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
    check_marks(before)
    after = {name: render(page) for name, page in before.items()}
    for name in PAGES:
        if before[name] != after[name]:
            if arguments == ["--check"]:
                raise SystemExit(f"{name} differs from benchmarks/results; run python -m benchmarks.readme")
            (ROOT / name).write_text(after[name], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
