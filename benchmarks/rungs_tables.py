"""The two tables of ``benchmarks.rungs``: training steps, and all else."""

from typing import Any

from benchmarks.markdown import FRAMEWORKS, footnote, table, time_cell, versions

Kind = tuple[str, str, str, int]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.{1 if seconds < 0.1 else 0}f}"


def _best_peer(rows: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    peers = [row for name, row in rows.items() if name != "ours" and "over_ours" in row]
    return min(peers, key=lambda row: row["over_ours"]["median"], default=None)


def _ours_and_best(rows: dict[str, dict[str, Any]]) -> str:
    """Returns our milliseconds, and the ratio and name of the fastest peer."""
    best = _best_peer(rows)
    ratio = f" ({best['over_ours']['median']:.2f}×, {FRAMEWORKS[best['framework']]})" if best else ""
    return f"{time_cell(rows.get('ours'), _milliseconds)}{ratio}"


def _rates(rows: dict[str, dict[str, Any]], images: int) -> str:
    """Returns our images per second, and those of the fastest peer."""
    named = [rows.get("ours"), _best_peer(rows)]
    rates = [f"{images / row['seconds']['median']:,.0f}" for row in named if row and "seconds" in row]
    return " / ".join(rates) or "failed"


def _memory(costs: dict[str, dict[str, Any]], names: list[str]) -> str:
    return " / ".join(f"{costs[name]['MiB']:,.0f}" if "MiB" in costs.get(name, {}) else "failed" for name in names)


def _compile(costs: dict[str, dict[str, Any]]) -> str:
    names = ("ours, first run", "ours", "torch_compiled")
    cells = (f"{costs[name]['compile_seconds']:.1f}" if "MiB" in costs.get(name, {}) else "—" for name in names)
    return " / ".join(cells)


def rungs_tables(result: dict[str, Any]) -> str:
    """Returns the milliseconds of training steps, and below them validation, inference, compilation and memory."""
    rows: dict[Kind, dict[str, dict[str, Any]]] = {}
    for row in result["summary"]:
        kind = (row["rung"], row["precision"], row["what"], row["images"])
        rows.setdefault(kind, {})[row["framework"]] = row
    costs: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in result["costs"]:
        costs.setdefault((row["rung"], row["precision"]), {})[row["framework"]] = row
    names = [name for name in FRAMEWORKS if name in result["frameworks"]]
    steps = [
        [
            f"{rung}, {precision}, {images}",
            *(time_cell(by_name.get(name) or costs[rung, precision].get(name), _milliseconds) for name in names),
        ]
        for (rung, precision, what, images), by_name in rows.items()
        if what == "train step"
    ]
    val, calls = result["images"]["val"], result["images"]["inference"]
    others = [
        [
            f"{rung}, {precision}",
            _ours_and_best(rows[rung, precision, "validation", val]),
            *(_rates(rows[rung, precision, "inference", images], images) for images in calls),
            _compile(of_kind),
            _memory(of_kind, names),
        ]
        for (rung, precision), of_kind in costs.items()
    ]
    titles = [FRAMEWORKS[name] for name in names]
    header = [
        "",
        f"{val:,} validation images, ms",
        *(f"images a second in calls of {images}" for images in calls),
        "seconds to compile",
        "peak memory, MiB",
    ]
    rounds = max(row["seconds"]["n"] for row in result["summary"] if "seconds" in row)
    difference = max(row["largest_difference"] for row in result["compared"])
    counts = {row["rung"]: row["parameters"] for row in result["compared"]}
    busy = " Other programs ran during the measurement." if result["busy"] else ""
    notes = (
        f"Medians of {rounds} rounds taking turns, and the medians of the ratios to ours in the same round. "
        f"Validation: ours, and the fastest peer. Inference: ours / the fastest peer. Compiling the training steps: "
        f"ours in the first run / in later runs, from the cache / the first step of PyTorch, compiled. Peak memory of "
        f"a process that trains at the largest batch: {' / '.join(titles)}. Parameters: "
        f"{', '.join(f'{rung} {count:,}' for rung, count in counts.items())}, the same in all frameworks; the logits "
        f"of 32 test images from the same weights differ by at most {difference:.0e}.{busy} {footnote(result)}, "
        f"{versions(result)}."
    )
    first = table(["ms a training step of batch", *titles], steps, "").rstrip()
    return f"{first}\n\n{table(header, others, notes)}"
