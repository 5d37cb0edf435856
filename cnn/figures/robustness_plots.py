"""The figures of robustness: accuracy and calibration by severity, and what the corruptions look like."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn.figures.image_plots import tiled_figure, write_below
from cnn.figures.plots import BLUE, GREY, VERMILLION, WIDTH, check, styled


@styled
def robustness(values: Mapping[str, Any]) -> Figure:
    """Draws accuracy and calibration error by severity, a panel for each corruption, and accuracy under attack.

    Args:
      values: the content of ``robustness.json``.
    """
    clean, corruptions = values["clean"], values["corruptions"]
    curves = {name: entries for name, entries in corruptions.items() if len(entries) > 1}
    single = {name: entries[0] for name, entries in corruptions.items() if len(entries) == 1}
    columns = 4
    rows = -(-(len(curves) + 2) // columns)
    figure = Figure(figsize=(WIDTH, 2.3 * rows))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, entries) in zip(panels, curves.items(), strict=False):
        severities = np.arange(len(entries) + 1)
        _line(axes, severities, [entry["accuracy"] for entry in (clean, *entries)], BLUE, "o-", "accuracy")
        _line(axes, severities, [entry["ece"] for entry in (clean, *entries)], VERMILLION, "s--", "calibration error")
        axes.set(title=name, xlabel="severity", xticks=severities, ylim=(0, 1))
    bars, attacked, *unused = panels[len(curves) :]
    positions = np.arange(len(single))
    for key, colour, left in (("accuracy", BLUE, -0.2), ("ece", VERMILLION, 0.2)):
        drawn = bars.bar(positions + left, [entry[key] for entry in single.values()], 0.4, color=colour)
        bars.bar_label(drawn, fmt="%.2f", padding=2, fontsize="small")
    bars.set_xticks(positions, list(single))
    bars.set(title="without severity")
    bars.grid(visible=False, axis="x")
    for (name, entries), look in zip(values["attacks"].items(), ("o-", "s--"), strict=False):
        accuracies = [entry["accuracy"] for entry in entries]
        epsilons = [round(255 * entry["epsilon"], 2) for entry in entries]
        # Each level is twice the one before.
        attacked.plot(range(len(epsilons)), accuracies, look, color="black", markersize=4, label=name.upper())
        attacked.set_xticks(range(len(epsilons)), [f"{epsilon:g}" for epsilon in epsilons])
    attacked.set(title=f"attacked ({values['attacked_images']:,} images)", xlabel="maximum change, of 255")
    attacked.legend(fontsize="small")
    for axes in panels[: len(panels) - len(unused)]:
        axes.axhline(clean["accuracy"], color=GREY, linestyle=":", zorder=1)
    for axes in unused:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "center"} if unused else {"loc": "lower right"}
    (unused or panels)[0].legend(handles, labels, fontsize="small", **place)
    figure.suptitle(
        f"{values['images']:,} test images: accuracy {clean['accuracy']:.4f} on the images as they are (dotted), "
        f"mean corruption error {values['mean_corruption_error']:.4f}"
    )
    return figure


def _line(axes: Any, severities: np.ndarray, values: Sequence[float], colour: str, look: str, label: str) -> None:
    axes.plot(severities, values, look, color=colour, markersize=4, label=label, clip_on=False)


@styled
def corruptions(image: np.ndarray, corrupted: Mapping[str, Sequence[np.ndarray]], severities: Sequence[int]) -> Figure:
    """Draws an image under each corruption: one of degree in a column of its severities, the others in the first one.

    Args:
      image: uint8 [H, W, C].
      corrupted: by name, the image at each of the severities, or only one image.
      severities: of the rows.

    Raises:
      ValueError: a shape is wrong.
    """
    check("image", image, "HWC")
    first = {"the image": image} | {name: images[0] for name, images in corrupted.items() if len(images) == 1}
    columns = [list(first.items())]
    for name, images in corrupted.items():
        if len(images) > 1:
            pairs = zip(severities, images, strict=True)
            columns.append([(f"{name} {severity}", picture) for severity, picture in pairs])
    # Row by row; a column that is shorter than the others ends with white tiles.
    blank = "", np.full_like(image, 255)
    rows = max(map(len, columns))
    tiles = [(column + [blank] * rows)[row] for row in range(rows) for column in columns]
    title = "An image under each corruption, at severities " + ", ".join(map(str, severities))
    # Not dark on white, as elsewhere: a brighter image must look brighter.
    shown = {"cmap": "gray", "vmin": 0, "vmax": 255}
    figure, axes = tiled_figure([picture for _, picture in tiles], title, len(columns), 0.3, **shown)
    for tile, (text, _) in zip(axes.images, tiles, strict=True):
        write_below(axes, tile, text, fontsize="small")
    return figure
