"""The section of a page that says how far a network's accuracy falls on corrupted and on attacked images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn.report.page import escaped, percent, table
from cnn.runs import rundir
from cnn.trust.corruptions import SEVERITIES
from cnn.trust.robustness import read_robustness


def robustness_section(run_dir: Path) -> str:
    """Returns the section, HTML; empty if the run has no robustness.json.

    Raises:
      RunDirError: the file is damaged.
    """
    values = read_robustness(run_dir)
    if values is None:
        return ""
    clean, result = values["clean"], rundir.read_result(run_dir)
    low, high = clean["accuracy_interval"]
    earlier = result is not None and result["best_epoch"] != values["best_epoch"]
    part = f"{values['images']:,}"
    if values["images"] < values["test_images"]:
        part += f" of the {values['test_images']:,}"
    note = (
        f" These are the numbers of epoch {values['best_epoch']}, which is no longer the best one: "
        "<code>python -m cnn evaluate --robust</code> measures again."
    )
    return (
        '<section id="robustness" aria-labelledby="robustness-title"><h2 id="robustness-title">Robustness</h2>'
        f'<p class="muted">Accuracy on {part} test images, corrupted at '
        f"severities 1 to {SEVERITIES}, with the expected calibration error in brackets. Without corruption: "
        f"{percent(clean['accuracy'])} (95 % interval {percent(low)} to {percent(high)}), error {clean['ece']:.2f}. "
        f"The mean corruption error is {percent(values['mean_corruption_error'])}: the mean over corruptions of their "
        f"mean error over severities.{note if earlier else ''}</p>"
        f'<div class="scroll">{_corruption_table(values)}</div>'
        '<p class="muted small">An image is mirrored or inverted, or it is not: these have one severity.</p>'
        "<h3>Under attack</h3>"
        f'<p class="muted">Accuracy on {values["attacked_images"]:,} test images, each pixel changed by at most this '
        "number of grey levels (of 255), so that the network errs: in one step (FGSM) or in several (PGD). 95 % "
        "intervals are in brackets.</p>"
        f'<div class="scroll">{_attack_table(values)}</div></section>'
    )


def _corruption_table(values: Mapping[str, Any]) -> str:
    def cell(entry: Mapping[str, Any]) -> str:
        return f"{percent(entry['accuracy'], 1)} <small>({entry['ece']:.2f})</small>"

    rows = (
        (escaped(name), *map(cell, entries), *[""] * (SEVERITIES - len(entries)))
        for name, entries in values["corruptions"].items()
    )
    return table(("corruption", *(str(severity) for severity in range(1, SEVERITIES + 1))), rows)


def _attack_table(values: Mapping[str, Any]) -> str:
    def cell(entry: Mapping[str, Any]) -> str:
        low, high = (100 * end for end in entry["accuracy_interval"])
        return f"{percent(entry['accuracy'], 1)} <small>({low:.1f} to {high:.1f})</small>"

    attacks = values["attacks"]
    epsilons = (f"{255 * entry['epsilon']:.3g}" for entry in next(iter(attacks.values())))
    return table(("attack", *epsilons), ((name.upper(), *map(cell, entries)) for name, entries in attacks.items()))
