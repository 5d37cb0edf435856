"""The report's part on the unknown: a table of how well the scores tell it, and which test images are unlike."""

from pathlib import Path
from typing import Any

from cnn.data.splits import Splits
from cnn.report.page import escaped, percent, table
from cnn.training.state import TrainState
from cnn.trust.novelty import ACCEPTED
from cnn.trust.reference import embed, keep_reference, network_digest, novelty
from cnn.trust.unknown import read_unknown

_HEADS = ("images", "score", "AUROC", "95 % interval", "FPR 95", "95 % interval", "above the threshold")


def unknown_section(run_dir: Path, state: TrainState) -> str:
    """Returns the section with the table of ``unknown.json``, HTML; empty without the file.

    Args:
      run_dir: directory of the run.
      state: its best state.

    Raises:
      RunDirError: the file is damaged.
    """
    values = read_unknown(run_dir)
    if values is None:
        return ""
    scores, best = values["scores"], values["best_score"]
    rows = [_row(kind, name, scores[name], name == best) for kind in scores[best]["unknown"] for name in scores]
    flagged, images, share = percent(scores[best]["flagged"], 1), f"{values['images']:,}", percent(ACCEPTED, 0)
    note = (
        " These are the numbers of another network, such as this run's at an earlier epoch: "
        "<code>python -m cnn evaluate --unknown</code> measures again."
    )
    is_other = values.get("network_sha256") != network_digest(run_dir, state)
    return (
        '<section id="unknown" aria-labelledby="unknown-title"><h2 id="unknown-title">The unknown</h2>'
        '<p class="muted">How well the network tells images of other kinds from the test images, by scores that are '
        "higher for what is more unknown. AUROC: the probability that such an image has a higher score than a test "
        f"image, of which there are {images}. FPR 95: the share of such images that is accepted with the threshold "
        f"that accepts {share} of the test images. In bold, the score by which <code>python -m cnn predict</code> says "
        f"that an image is unlike the training images; {flagged} of the test images are above its threshold, and 5 in "
        f'100 validation images.{note if is_other else ""}</p><div class="scroll">{table(_HEADS, rows)}</div></section>'
    )


def _row(kind: str, score: str, values: dict[str, Any], is_best: bool) -> list[str]:
    """The cells of a kind of images and a score, HTML."""
    row = values["unknown"][kind]
    cells = []
    for name in ("auroc", "fpr"):
        low, high = row[f"{name}_interval"]
        cells += [f"{float(row[name]):.4f}", f"{float(low):.4f} to {float(high):.4f}"]
    name = escaped(values["name"])
    return [escaped(kind), f"<strong>{name}</strong>" if is_best else name, *cells, percent(float(row["flagged"]), 1)]


def mark_unlike(run_dir: Path, state: TrainState, splits: Splits, entries: list[dict[str, Any]]) -> None:
    """Adds to an explorer's images whether each is unlike the training images.

    Args:
      run_dir: directory of the run.
      state: its best state.
      splits: its images.
      entries: the explorer's images, with their index "test"; "unlike" is added.
    """
    reference = keep_reference(run_dir, state, splits, may_fail=True)
    shown = novelty(embed(state, splits.test.images[[entry["test"] for entry in entries]]), reference)
    for entry, is_unlike in zip(entries, shown.is_unlike_N, strict=True):
        entry["unlike"] = bool(is_unlike)
