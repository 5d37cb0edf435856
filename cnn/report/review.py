"""The page of suspects: one image after the other is kept, gets another class or is dropped; the result is a CSV."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.data.labels import COLUMNS
from cnn.errors import ConfigError, RunDirError
from cnn.report.explorer import COLUMNS as IN_A_ROW
from cnn.report.explorer import tile_images
from cnn.report.page import WEBP_SIDE, escaped, fill_template, percent, picture_url, render_page, webp
from cnn.report.report import RETRY_HINT
from cnn.runs import outputs, rundir
from cnn.text import printable
from cnn.trust.suspects import Findings, find_wrong_labels

JSON, PAGE = "labels.json", "labels.html"

SIDE = 128
"""Maximum side of an image; of a longer one, each second, third, ... pixel is shown."""

SHEET_BYTES = 1_900_000
"""Maximum size of the sheet of images; base64 adds a third, and the page stays below 3 MB."""


def labels_directory(run_dir: Path, output: Path | None = None) -> Path:
    """Returns the directory for a run's trainings and the page: beside the run, as a run in a run is refused.

    Args:
      run_dir: directory of the run.
      output: another directory; None for RUN_DIR-labels.

    Raises:
      ConfigError: it cannot be used, or holds files of these names that no such command has written.
    """
    named = run_dir if run_dir.name not in ("", "..") else run_dir.resolve()
    directory = output or named.with_name(f"{named.name}-labels")
    if inner := outputs.run_of(directory.resolve()):
        raise ConfigError(f"--output is {str(directory)!r}, which is in the run {inner}; name a directory beside it")
    outputs.check_directory(directory, "labels", [run_dir], [JSON])
    return outputs.check_directory(directory, "page", [run_dir], [PAGE])


def write_labels(
    run_dir: Path, directory: Path, folds: int = 5, report: Callable[[str], None] = lambda line: None
) -> tuple[Findings, list[Path]]:
    """Finds the suspects of a run, writes labels.json and labels.html, and returns the findings and the paths.

    Args:
      run_dir: directory of the run.
      directory: as of ``labels_directory``.
      folds: number of trainings, 3 to 20.
      report: called with a line for each finished fold.

    Raises:
      UserError: the run, its images or the directory cannot be used.
      Stopped: a signal was received, and the training is saved.
    """
    try:
        findings = find_wrong_labels(run_dir, directory, folds, report)
    except RunDirError as error:
        # Of the trainings, whose directory has another option here.
        raise RunDirError(str(error).replace("directory with --run-dir", "directory with --output")) from error
    rundir.write_json(directory / JSON, findings.values, RETRY_HINT)
    rundir.write_text(directory / PAGE, labels_page(run_dir, findings), RETRY_HINT)
    return findings, [directory / JSON, directory / PAGE]


def labels_page(run_dir: Path, findings: Findings) -> str:
    """Returns the page of a run's most doubtful labels."""
    values, sheet = findings.values, encode_images(findings.images)
    shown = values["suspects"][: sheet.images]
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows([COLUMNS, *findings.decisions])
    data = {
        "key": f"labels {findings.key}",
        "classes": findings.names,
        "head": rows.getvalue(),
        "suspects": shown,
        "size": [sheet.height, sheet.width],
        "columns": sheet.columns,
        "src": sheet.url,
    }
    count = len(values["suspects"])
    body = fill_template(
        "review.html",
        run_dir=escaped(printable(run_dir.resolve().name)),
        which=f"the {len(shown):,} most doubtful of {count:,} suspects"
        if len(shown) < count
        else f"{count:,} suspects",
        images=f"{values['images']:,}",
        folds=values["folds"],
        threshold=percent(values["threshold"], 1),
        accuracy=percent(values["out_of_sample_accuracy"], 1),
        earlier=f" The CSV repeats the {len(findings.decisions):,} earlier decisions." if findings.decisions else "",
    )
    return render_page(f"Labels of {printable(run_dir.resolve().name)}", body, data, "review.js")


class Sheet(NamedTuple):
    """Images in rows."""

    url: str
    images: int
    """Their number."""
    height: int
    """Of an image, pixels."""
    width: int
    columns: int


def encode_images(images_MxHxWxC: np.ndarray) -> Sheet:
    """Returns images as one picture below ``SHEET_BYTES``: exact if that is enough, and else as many as fit.

    Args:
      images_MxHxWxC: uint8, the most important first.
    """
    step = -(-max(images_MxHxWxC.shape[1:3]) // SIDE)
    images = images_MxHxWxC[:, ::step, ::step]
    count, height, width = images.shape[:3]
    columns = min(IN_A_ROW, WEBP_SIDE // width)
    count = min(count, WEBP_SIDE // height * columns)
    while count:
        tiles = tile_images(images[:count], columns)
        for options in ({"lossless": True}, {"quality": 80}):
            content = webp(tiles, **options)
            if len(content) <= SHEET_BYTES:
                return Sheet(picture_url(content), count, height, width, columns)
        count = int(count * 0.95 * SHEET_BYTES / len(content))
    return Sheet("data:,", 0, height, width, columns)
