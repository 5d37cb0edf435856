"""Writes the tables of README.md and of docs/*.md from benchmarks/results/*.json; --check compares them.

python -m benchmarks.readme [--check]

A table is made between two marks, which one of the pages has, and only once: ``<!-- NAME: made by
benchmarks/readme.py -->`` and ``<!-- end of NAME -->``.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/ladder.md", "docs/performance.md", "docs/scaling.md")

FRAMEWORKS = {
    "ours": "this project",
    "keras_tensorflow": "Keras on TensorFlow",
    "torch": "PyTorch",
    "torch_compiled": "PyTorch, compiled",
    "keras_jax": "Keras on JAX",
}


def spread(values: dict[str, float], digits: int) -> str:
    """Returns mean ± standard deviation, which one value alone has not."""
    mean = f"{values['mean']:.{digits}f}"
    return f"{mean} ± {values['std']:.{digits}f}" if values["n"] > 1 else mean


def place_of(machine: dict[str, Any], device: str = "cpu") -> str:
    """Returns what computed, and its versions."""
    place = f"one {device}"
    if device == "cpu":
        place = f"{machine['cores']} cores of {machine['processor']} ({'/'.join(machine['vector_extensions'])})"
    return f"{place}, Python {machine['python']}, jax {machine['versions']['jax']}"


def footnote(result: dict[str, Any]) -> str:
    """Returns what a number must carry: commands and days, and of each machine that they ran on, its versions."""
    commands: dict[str, list[str]] = {}
    for origin in result.get("origins", {"": result}).values():
        whole = {**result, **origin}
        place = place_of(whole["machine"], whole.get("device", "cpu"))
        commands.setdefault(place, []).append(f"`{origin['command']}`, {origin['date']}")
    return "; ".join(f"{'; '.join(dict.fromkeys(on_it))}; {place}" for place, on_it in commands.items())


def seeds_table(result: dict[str, Any]) -> str:
    """Returns the result of the shipped experiment beside the notebook's in Keras."""
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
        "bfloat16": "the same with `--model.dtype bfloat16`",
        "keras": "the notebook in Keras 3",
    }
    for name, title in titles.items():
        if name not in result["summary"]:
            continue
        means = result["summary"][name]
        cells = [spread(means[key], digits) for key, digits in columns.values()]
        lines.append(f"| {title} | {means['val_loss']['n']} | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"Mean ± standard deviation, of the epoch with the lowest val loss. {footnote(result)}."]
    )


def table(header: list[str], rows: list[list[str]], notes: str) -> str:
    """Returns a table in Markdown, its first column text and the others numbers, with notes below it."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
    return "\n".join([*lines, "", notes])


def versions(result: dict[str, Any]) -> str:
    """Returns the versions of the peers, of their JAX and their Python too, which are not ours."""
    found = {}
    for name, packages in result["frameworks"].items():
        found |= packages if name != "ours" and "failed" not in packages else {}
    return f"peers: {', '.join(f'{name} {version}' for name, version in found.items())}"


def by_framework(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the rows of one batch size by their framework."""
    return {row["framework"]: row for row in rows}


def epoch_cell(row: dict[str, Any] | None) -> str:
    """Returns median seconds and, of a peer, how many times ours that is."""
    if row is None or "seconds" not in row:
        return "failed" if row else "not measured"
    ratio = f" ({row['over_ours']['median']:.2f}×)" if row["framework"] != "ours" and "over_ours" in row else ""
    return f"{row['seconds']['median']:.1f}{ratio}"


def failures(rows: list[dict[str, Any]]) -> str:
    """Returns what failed, and why, as a sentence; nothing if nothing did."""
    reasons = [
        f"{FRAMEWORKS[row['framework']]}{', ' + row['precision'] if 'precision' in row else ''} at "
        f"batch {row['batch_size']}: {row['failed'][:100]}"
        for row in rows
        if "failed" in row
    ]
    return f" Failed: {'; '.join(reasons)}." if reasons else ""


def epoch_table(result: dict[str, Any]) -> str:
    """Returns the seconds for an epoch, and how many times ours the peers' are."""
    rows = result["summary"]
    kinds = dict.fromkeys((row["precision"], row["batch_size"]) for row in rows)
    lines = []
    for precision, batch_size in kinds:
        found = by_framework([row for row in rows if (row["precision"], row["batch_size"]) == (precision, batch_size)])
        lines.append([f"{precision}, {batch_size}", *(epoch_cell(found.get(name)) for name in FRAMEWORKS)])
    rounds = max(row["seconds"]["n"] for row in rows if "seconds" in row)
    counted = f"{rounds} rounds in turn, one for Keras on JAX" if rounds > 1 else "one round"
    images = f"{result['images']['train']:,} + {result['images']['val']:,} images"
    notes = (
        f"Median seconds, and the median of the ratios to ours of the same round; {counted}; {images}."
        f"{failures(rows)} {footnote(result)}, {versions(result)}."
    )
    return table(["train + validation epoch, batch", *FRAMEWORKS.values()], lines, notes)


def inference_table(result: dict[str, Any]) -> str:
    """Returns images a second by batch size and framework."""
    rows = result["summary"]
    lines = []
    for batch_size in dict.fromkeys(row["batch_size"] for row in rows):
        found = by_framework([row for row in rows if row["batch_size"] == batch_size])
        cells = (
            f"{found[name]['images_per_second']['median']:,.0f}" if "ways" in found.get(name, {}) else "failed"
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
        f"Median images a second of {rounds} rounds, a call a batch, from uint8 to probabilities. Of Keras' three "
        f"ways, the fastest (on TensorFlow, {keras}).{failures(rows)} {footnote(result)}, {versions(result)}."
    )
    return table(["batch", *FRAMEWORKS.values()], lines, notes)


def time_to_result_table(result: dict[str, Any]) -> str:
    """Returns the seconds from typing to results as good as the notebook's."""
    titles = {
        "notebook": "the notebook in Keras on TensorFlow",
        "fashion_fast cold": "`experiments.fashion_fast`, the first time",
        "fashion_fast warm": "`experiments.fashion_fast`, again",
        "fashion_cnn warm": "`experiments.fashion_cnn`, again",
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
        header += [f"val loss ≤ {mark['val_loss']}, accuracy ≥ {mark['val_accuracy']}", "reached", "over the notebook"]
    notes = (
        "Medians; of a run that does not reach a mark its whole time counts, so that the median may be too low (≥), "
        "and of such a median no ratio is given (—). "
        "The marks are the published results of the notebook in the book's second and first edition; the first time, "
        "nothing is compiled yet. "
        f"{footnote(result)}."
    )
    return table(header, lines, notes)


def startup_table(result: dict[str, Any]) -> str:
    """Returns the seconds to the first step, and the memory of an epoch."""
    titles = {
        "ours cold": "this project, the first time",
        "ours cached": "this project, again",
        "keras_tensorflow": FRAMEWORKS["keras_tensorflow"],
        "torch": FRAMEWORKS["torch"],
    }
    memory, compilation = result["peak_memory"], result["compile_seconds"]
    lines = []
    for label, title in titles.items():
        kept = memory[label]
        seconds = result["first_step_seconds"][label]["median"]
        lines.append([title, f"{seconds:.1f}", f"{kept['MiB']:,.0f}" if "MiB" in kept else "failed"])
    notes = (
        f"Medians of {result['first_step_seconds']['ours cold']['n']}; memory of a process that has trained and "
        f"validated for an epoch at batch 32. To compile a whole epoch takes us {compilation['cold']['median']:.1f} s "
        f"the first time and {compilation['cached']['median']:.1f} s again. {footnote(result)}."
    )
    return table(["", "seconds from process start to the first step", "MiB at most"], lines, notes)


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
    header = ["batch", "GFLOP a step", "seconds a pass", "GFLOP/s", "share of the peak"]
    notes = (
        f"The peak is that of 2048³ products, {result['matmul_gflop_per_second']:.0f} GFLOP/s. "
        f"{result['flops_per_image'] / 1e6:.2f} MFLOP an image, those of the matrix products alone as the direct sum "
        f"has them, of which Winograd's algorithm computes about half: conv2's, nine "
        f"tenths of them, take it 2.25 times fewer multiplications; float32, "
        f"{result['images']:,} images a pass. {footnote(result)}."
    )
    return table(header, lines, notes)


def scaling_table(result: dict[str, Any]) -> str:
    """Returns what steps on many devices cost, as it was computed from those on one."""
    steps, many = result["step_seconds"], result["many"]
    lines = [
        [
            f"{row['devices']} by {row['link']}",
            f"{1000 * row['all_reduce_seconds']:.2f}",
            *(f"{share:.0%}" for share in row["efficiency"].values()),
            # Where one image a device is enough, none loses half.
            f"{row['images_a_device_at_half'] * row['devices']:,}" if row["images_a_device_at_half"] > 1 else "none",
        ]
        for row in many
    ]
    measured = ", ".join(f"{1000 * seconds:.2f} ms on {images}" for images, seconds in steps.items())
    header = [
        "devices",
        "all-reduce, ms",
        *(f"share at {images} images a device" for images in steps),
        "batch that loses half",
    ]
    notes = (
        f"A step on one device, measured: {measured} images. The gradients are "
        f"{result['gradient_bytes'] / 1e6:.2f} MB. The share is what is left of the devices' rate; a batch that is "
        f"smaller than the last column's loses more than half of it. {footnote(result)}."
    )
    return table(header, lines, notes)


def devices_table(result: dict[str, Any]) -> str:
    """Returns what an epoch comes to on several devices."""
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
    """Returns what each rung has, costs and reaches."""
    header = [
        "rung",
        "parameters",
        "MFLOP an image",
        "epochs",
        "seconds an epoch",
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
        "Mean ± standard deviation over n seeds, of the epoch with the lowest val loss; FLOPs of the forward pass. "
        f"Trained by {footnote({**result, 'origins': origins})}. "
        f"Seconds are those of training alone, by `python -m benchmarks.ladder`; {place_of(result['machine'])}, idle."
    )
    return table(header, rows, notes)


def ablation_table(result: dict[str, Any]) -> str:
    """Returns what the recipe comes to without one of its ingredients, or with one more."""
    whole = next(iter(result["variants"].values()))["summary"]["val_accuracy"]["mean"]
    rows = []
    for name, variant in result["variants"].items():
        numbers = variant["summary"]
        change = 100 * (numbers["val_accuracy"]["mean"] - whole)
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
    header = ["recipe", "changed", "val loss", "val accuracy", "its points over the full recipe", "test accuracy"]
    notes = f"{count} seeds each, {result['epochs']} epochs of `{result['experiment']}`. {footnote(result)}."
    return table(header, rows, notes)


def transfer_table(result: dict[str, Any]) -> str:
    """Returns test accuracy by images a class, for each task and way to begin."""
    rows, header = [], ["task", "begun", "few images a class", "more", "most"]
    for task, ways in result["tasks"].items():
        for way, counts in ways.items():
            cells = [f"{count}: {spread(values, 3)}" for count, values in counts.items()]
            rows.append([task, way, *cells])
    count = len(next(iter(next(iter(result["tasks"]["digits"].values())).values()))["values"])
    notes = f"Images a class: mean ± standard deviation of {count} seeds, each with images of its own. "
    return table(header, rows, f"{notes}{footnote(result)}.")


TABLES = {
    "seeds": seeds_table,
    "ladder": ladder_table,
    "ablation": ablation_table,
    "transfer": transfer_table,
    "epoch": epoch_table,
    "epoch_bfloat16": epoch_table,
    "inference": inference_table,
    "time_to_result": time_to_result_table,
    "startup": startup_table,
    "roofline": roofline_table,
    "scaling": scaling_table,
    "devices": devices_table,
}


def marks(name: str) -> tuple[str, str]:
    """Returns the two lines that a table lies between."""
    return f"<!-- {name}: made by benchmarks/readme.py -->", f"<!-- end of {name} -->"


def render(page: str, results: Path = RESULTS) -> str:
    """Returns a page with each table that it has marks for made anew; what has no result says so."""
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
                raise SystemExit(f"{' and '.join(pages)} need {mark} once together, not {count} times")


def main(arguments: list[str]) -> None:
    """Writes or checks."""
    before = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
    check_marks(before)
    after = {name: render(page) for name, page in before.items()}
    for name in PAGES:
        if before[name] != after[name]:
            if arguments == ["--check"]:
                raise SystemExit(f"{name} is not what benchmarks/results say; run python -m benchmarks.readme")
            (ROOT / name).write_text(after[name], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
