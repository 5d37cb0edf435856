"""Tables in Markdown, and the notes below them: spread, machine, command, versions, failures."""

from collections.abc import Callable
from typing import Any

FRAMEWORKS = {
    "ours": "this project",
    "keras_tensorflow": "Keras on TensorFlow",
    "torch": "PyTorch",
    "torch_compiled": "PyTorch, compiled",
    "keras_jax": "Keras on JAX",
}


def spread(values: dict[str, float], digits: int) -> str:
    """Returns mean ± standard deviation; the mean only if there is one value."""
    mean = f"{values['mean']:.{digits}f}"
    return f"{mean} ± {values['std']:.{digits}f}" if values["n"] > 1 else mean


def place_of(machine: dict[str, Any], device: str = "cpu") -> str:
    """Returns the machine or device of a result, with versions."""
    place = f"one {device}"
    if device == "cpu":
        place = f"{machine['cores']} cores of {machine['processor']} ({'/'.join(machine['vector_extensions'])})"
    return f"{place}, Python {machine['python']}, jax {machine['versions']['jax']}"


def footnote(result: dict[str, Any]) -> str:
    """Returns the origin of a result: commands and dates, and for each machine its description and versions."""
    commands: dict[str, list[str]] = {}
    for origin in result.get("origins", {"": result}).values():
        merged = {**result, **origin}
        place = place_of(merged["machine"], merged.get("device", "cpu"))
        commands.setdefault(place, []).append(f"`{origin['command']}`, {origin['date']}")
    return "; ".join(f"{'; '.join(dict.fromkeys(on_it))}; {place}" for place, on_it in commands.items())


def table(header: list[str], rows: list[list[str]], notes: str) -> str:
    """Returns a Markdown table, with text in the first column and numbers in the others, and notes below it."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
    return "\n".join([*lines, "", notes])


def versions(result: dict[str, Any]) -> str:
    """Returns the versions of the peers, including their own JAX and Python."""
    peers = {}
    for name, packages in result["frameworks"].items():
        peers |= packages if name != "ours" and "failed" not in packages else {}
    return f"peers: {', '.join(f'{name} {version}' for name, version in peers.items())}"


def time_cell(row: dict[str, Any] | None, written: Callable[[float], str]) -> str:
    """Returns the median seconds of a row as ``written``, and for a peer the median ratio to ours in the same round."""
    if row is None or "seconds" not in row:
        return "failed" if row else "not measured"
    ratio = f" ({row['over_ours']['median']:.2f}×)" if row["framework"] != "ours" and "over_ours" in row else ""
    return f"{written(row['seconds']['median'])}{ratio}"


def by_framework(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the rows of one batch size by their framework."""
    return {row["framework"]: row for row in rows}


def failures(rows: list[dict[str, Any]]) -> str:
    """Returns a sentence with the failures and their causes; an empty string without any."""
    reasons = [
        f"{FRAMEWORKS[row['framework']]}{', ' + row['precision'] if 'precision' in row else ''} at "
        f"batch {row['batch_size']}: {row['failed'][:100]}"
        for row in rows
        if "failed" in row
    ]
    return f" Failed: {'; '.join(reasons)}." if reasons else ""
