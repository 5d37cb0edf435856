"""Writes the README's tables from benchmarks/results/*.json; --check says whether they are up to date.

python -m benchmarks.readme [--check]
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def spread(values: dict[str, float], digits: int) -> str:
    """Returns mean ± standard deviation."""
    return f"{values['mean']:.{digits}f} ± {values['std']:.{digits}f}"


def footnote(result: dict[str, Any]) -> str:
    """Returns what a number must carry: command, day, machine and versions."""
    machine = result["machine"]
    vectors = "/".join(machine["vector_extensions"])
    return (
        f"`{result['command']}`, {result['date']}, {machine['cores']} cores of {machine['processor']} ({vectors}), "
        f"Python {machine['python']}, jax {machine['versions']['jax']}"
    )


def seeds_table(result: dict[str, Any]) -> str:
    """Returns the result of the shipped experiment beside the notebook's in Keras."""
    columns = {
        "val loss": ("val_loss", 4),
        "val accuracy": ("val_accuracy", 4),
        "test accuracy": ("test_accuracy", 4),
        "best epoch": ("best_epoch", 1),
    }
    lines = [f"| | seeds | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for name, title in (("ours", "`make train`"), ("keras", "the notebook in Keras 3")):
        means = result["summary"][name]
        cells = [spread(means[key], digits) for key, digits in columns.values()]
        lines.append(f"| {title} | {means['val_loss']['n']} | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"Mean ± standard deviation, of the epoch with the lowest val loss. {footnote(result)}."]
    )


def epoch_table(result: dict[str, Any]) -> str:
    """Returns the seconds for an epoch beside Keras'."""
    ratio = result["keras_over_ours"]
    rows = [
        "| train + validation epoch, batch 32 | median seconds | smallest to largest |",
        "|---|---|---|",
        *(
            f"| {title} | {result[name]['median']:.1f} | {result[name]['min']:.1f} to {result[name]['max']:.1f} |"
            for name, title in (("ours", "this project"), ("keras", "Keras 3 on TensorFlow, with oneDNN"))
        ),
    ]
    verdict = (
        f"Measured in turn, pair by pair: Keras takes {ratio['median']:.2f} times as long "
        f"(median of {ratio['n']} pairs, {ratio['min']:.2f} to {ratio['max']:.2f})."
    )
    keras = result["keras_versions"]
    return "\n".join([*rows, "", f"{verdict} {footnote(result)}, Keras {keras['keras']} on {keras['backend']}."])


TABLES = {"seeds": seeds_table, "epoch": epoch_table}


def render(readme: str) -> str:
    """Returns the README with each table made anew between its two marks."""
    for name, table in TABLES.items():
        result = json.loads((RESULTS / f"{name}.json").read_text())
        begin, end = f"<!-- {name}: made by benchmarks/readme.py -->", f"<!-- end of {name} -->"
        block = f"{begin}\n{table(result)}\n{end}"
        readme, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, b=block: b, readme, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"README.md needs the marks of {name} once, not {count} times")
    return readme


def main(arguments: list[str]) -> None:
    """Writes or checks."""
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = render(before)
    if arguments == ["--check"]:
        if before != after:
            raise SystemExit("README.md is not what benchmarks/results say; run python -m benchmarks.readme")
    else:
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
