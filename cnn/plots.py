"""Arrays -> matplotlib figures, all in one style; no files but those that ``save`` writes.

Figures are made by matplotlib's objects, never by pyplot: no display is needed, and nothing outlives the figure.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from cnn.summary import LayerRow

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
}
# "default" first, so that a user's matplotlibrc changes nothing.
_styled = style.context(["default", _STYLE])

# Okabe and Ito's colours, which the colour-blind tell apart: https://jfly.uni-koeln.de/color/
_BLUE, _VERMILLION, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"

# As in the chapter, dark on white; the limits are fixed, so that a pale image stays pale.
_PICTURE: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 255}

# Width of a figure in inches: that of a slide.
_WIDTH = 11.0

# File names of fonts with Hangul that look well beside the Latin ones; others are taken if these are missing.
_PLAIN_FONTS = ("NotoSansCJK-Regular", "NotoSansKR-Regular", "NanumGothic", "malgun", "AppleSDGothicNeo", "UnDotum")


def _check(name: str, array: np.ndarray, axes: Sequence[str]) -> None:
    """Raises ValueError unless the array has these axes, none of them empty."""
    if array.ndim != len(axes) or 0 in array.shape:
        raise ValueError(f"{name} must be [{','.join(axes)}] with no axis of length 0, not {list(array.shape)}")


def _font_paths() -> Iterator[str]:
    """Returns the paths of the installed fonts, the plain ones with Hangul first."""
    # matplotlib keeps a list of fonts, which is quick to read, but does not have what was installed since.
    for find in (lambda: {font.fname for font in font_manager.fontManager.ttflist}, font_manager.findSystemFonts):
        yield from sorted(find(), key=lambda path: (Path(path).stem not in _PLAIN_FONTS, path))


def _draws(path: str, characters: str) -> bool:
    """Tells whether a font has a glyph of its own for each of the characters."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # It is gone, or FreeType cannot read it.
        return False
    glyphs = {font.get_char_index(ord(character)) for character in characters}
    # A font of last resort has the same box for all of them.
    return 0 not in glyphs and len(glyphs) == len(set(characters))


def _tiles(images: Sequence[np.ndarray], title: str, columns: int, below: float, **shown: Any) -> tuple[Figure, Axes]:
    """Draws images [H, W] or [H, W, C] row by row, with some inches below each for its text."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    across = min(_WIDTH / columns, 3)
    width = across - 0.1
    height = width * images[0].shape[0] / images[0].shape[1]
    down = height + below
    figure = Figure(figsize=(columns * across, rows * down + 1))
    # One Axes, in inches, for all: an Axes for each takes more than twice as long.
    axes = figure.subplots()
    for i, image in enumerate(images):
        left, top = i % columns * across, i // columns * down
        axes.imshow(image, extent=(left, left + width, top + height, top), **shown)
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="0.6", linewidth=0.5))
    axes.set(xlim=(-0.01, columns * across - 0.09), ylim=(rows * down, -0.01), title=title)
    axes.set_axis_off()
    return figure, axes


def _color_bar(figure: Figure, axes: Axes, **options: Any) -> None:
    """Draws the scale of all the images below them, four inches long if there is room."""
    shrink = min(4 / figure.get_figwidth(), 1)
    figure.colorbar(axes.images[0], orientation="horizontal", shrink=shrink, aspect=100 * shrink, pad=0.02, **options)


@_styled
def learning_curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Draws loss and accuracy over the epochs, with their values at the best epoch.

    Args:
      history: a row per epoch with epoch, counted from 1, train_loss, train_accuracy, val_loss and val_accuracy.
      best_epoch: the epoch whose parameters were kept.

    Raises:
      ValueError: the best epoch is not in the history.
    """
    epochs = [row["epoch"] for row in history]
    if best_epoch not in epochs:
        raise ValueError(f"best_epoch is {best_epoch}, but must be an epoch of the history: {epochs}")
    best = history[epochs.index(best_epoch)]
    figure = Figure(figsize=(_WIDTH, 5))
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, split, look in (("train", "training", "o-"), ("val", "validation", "s-")):
            key, colour = f"{key}_{name}", _BLUE if key == "train" else _VERMILLION
            values = [row[key] for row in history]
            axes.plot(epochs, values, look, color=colour, markersize=4, label=f"{split}: {best[key]:.4f}")
        axes.axvline(best_epoch, color=_GREY, linestyle="--", zorder=1)
        title = f"At the best epoch, {best_epoch} (dashed)"
        axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(title=f"{name.capitalize()} by epoch", xlabel="epoch", ylabel=name)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    return figure


@_styled
def sample(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], korean_names: Sequence[str] | None = None
) -> Figure:
    """Draws images with their classes below, in Korean too if a font is installed that has the characters.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3].
      labels: integers [N].
      class_names: the name of each class.
      korean_names: the name of each class in Korean.

    Raises:
      ValueError: the images are none or of another shape, or not as many as the labels.
    """
    _check("images", images, "NHWC")
    korean = "".join(korean_names or ())
    font = next((Path(path) for path in _font_paths() if _draws(path, korean)), None) if korean else None
    figure, axes = _tiles(list(images), "Images and their classes", 10, 0.5 if font else 0.3, **_PICTURE)
    for tile, label in zip(axes.images, labels, strict=True):
        left, right, bottom, _ = tile.get_extent()
        place: Any = {"xy": ((left + right) / 2, bottom), "textcoords": "offset points", "ha": "center", "va": "top"}
        axes.annotate(class_names[int(label)], xytext=(0, -4), **place)
        if font and korean_names:
            axes.annotate(korean_names[int(label)], xytext=(0, -19), font=font, color=_BLUE, **place)
    return figure


@_styled
def image(image: np.ndarray, title: str) -> Figure:
    """Draws one image, uint8 [H, W, 1] or [H, W, 3], large.

    Raises:
      ValueError: the shape is another.
    """
    _check("image", image, "HWC")
    figure = Figure(figsize=(5.5, 5.5))
    axes = figure.subplots()
    axes.imshow(image, **_PICTURE)
    axes.set_title(title)
    axes.grid(False)
    axes.spines[:].set_visible(True)
    return figure


@_styled
def weights_histogram(trained: np.ndarray, untrained: np.ndarray, name: str) -> Figure:
    """Draws how the values of a layer's kernel, of any shape, are distributed, trained beside untrained.

    Raises:
      ValueError: a kernel is empty or not finite.
    """
    figure = Figure(figsize=(_WIDTH, 4.5))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    bins = np.histogram_bin_edges(np.concatenate([trained.ravel(), untrained.ravel()]), bins=60)
    kernels = (("untrained", untrained, _VERMILLION), ("trained", trained, _BLUE))
    for axes, (state, kernel, colour) in zip(panels, kernels, strict=True):
        _check(state, kernel.ravel(), "N")
        axes.hist(kernel.ravel(), bins=bins, color=colour, edgecolor="white", linewidth=0.5)
        moments = f"μ = {kernel.mean():.4f}, σ = {kernel.std():.4f}"
        axes.set(title=f"The {kernel.size:,} weights of {name}, {state}\n{moments}", xlabel="weight", ylabel="count")
        axes.tick_params(labelleft=True)
    return figure


@_styled
def kernels(kernel: np.ndarray, title: str, columns: int = 16) -> Figure:
    """Draws what each kernel [H, W, C_in, C_out] of a convolution does with the first input channel.

    Raises:
      ValueError: the shape is another.
    """
    _check("kernel", kernel, ("H", "W", "C_in", "C_out"))
    # Weights turn at zero: a diverging map shows where, and the chapter's viridis hides it. The limits are the
    # chapter's, and the same for all kernels, so that trained and untrained ones compare.
    shown = {"cmap": "RdBu_r", "vmin": -0.5, "vmax": 0.5}
    figure, axes = _tiles(list(np.moveaxis(kernel[:, :, 0], -1, 0)), title, columns, 0.1, **shown)
    _color_bar(figure, axes, label="weight", extend="both", ticks=np.linspace(-0.5, 0.5, 5))
    return figure


@_styled
def feature_maps(maps: np.ndarray, title: str, columns: int = 8) -> Figure:
    """Draws what a layer makes of one image, maps [H, W, C], all on one scale that holds zero.

    Raises:
      ValueError: the shape is another.
    """
    _check("maps", maps, "HWC")
    # The scale holds zero and has a length, or matplotlib would stretch it to both sides.
    shown = {"cmap": "viridis", "vmin": min(maps.min(), 0), "vmax": max(maps.max(), 0) if maps.any() else 1}
    figure, axes = _tiles(list(np.moveaxis(maps, -1, 0)), title, columns, 0.1, **shown)
    _color_bar(figure, axes, label="activation, on one scale for all maps")
    return figure


@_styled
def attribution(image: np.ndarray, grad_cam: np.ndarray, gradients: np.ndarray, layer: str, title: str) -> Figure:
    """Draws an image, where a layer sees a class in it, and what each pixel adds to the class.

    Args:
      image: uint8 [H, W, C].
      grad_cam: at least 0, [H', W'], of any size.
      gradients: [H, W, C].
      layer: name of the layer.
      title: what is asked for.

    Raises:
      ValueError: a shape is another.
    """
    for name, array, axes in (("image", image, "HWC"), ("grad_cam", grad_cam, "HW"), ("gradients", gradients, "HWC")):
        _check(name, array, axes)
    figure = Figure(figsize=(_WIDTH, 4.4))
    figure.suptitle(title)
    panels = figure.subplots(1, 3)
    extent = (0, image.shape[1], image.shape[0], 0)
    pixels = gradients.sum(-1)
    most = max(np.abs(pixels).max(), np.finfo(np.float32).tiny)
    panels[0].imshow(image, extent=extent, **_PICTURE)
    panels[1].imshow(image, extent=extent, **_PICTURE)
    highest = max(grad_cam.max(), np.finfo(np.float32).tiny)
    smooth = {"cmap": "inferno", "alpha": 0.65, "interpolation": "bilinear", "vmin": 0, "vmax": highest}
    shown = (
        panels[1].imshow(grad_cam, extent=extent, **smooth),
        panels[2].imshow(pixels, extent=extent, cmap="RdBu_r", vmin=-most, vmax=most),
    )
    labels = "speaks for the class", "adds to (red) or takes from the logit"
    for axes, mappable, label in zip(panels[1:], shown, labels, strict=True):
        figure.colorbar(mappable, ax=axes, orientation="horizontal", shrink=0.8, pad=0.02, label=label)
    titles = "The image", f"Grad-CAM of {layer}", "Integrated gradients"
    for axes, name in zip(panels, titles, strict=True):
        axes.set_title(name)
        axes.set_axis_off()
    return figure


@_styled
def probabilities(
    images: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draws images, each beside the probabilities of its classes, the true and the predicted one marked.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3].
      probabilities: [N, K].
      labels: the true classes, integers [N].
      class_names: the names of the K classes.

    Raises:
      ValueError: the shapes are others.
    """
    _check("images", images, "NHWC")
    _check("probabilities", probabilities, "NK")
    pairs = min(2, len(images))
    rows = -(-len(images) // pairs)
    figure = Figure(figsize=(_WIDTH / 2 * pairs, 2.7 * rows))
    grid = figure.add_gridspec(rows, 2 * pairs, width_ratios=[2, 3] * pairs)
    for i, (picture, values, label) in enumerate(zip(images, probabilities, labels, strict=True)):
        true, predicted = int(label), int(values.argmax())
        left, right = (figure.add_subplot(grid[divmod(2 * i + side, 2 * pairs)]) for side in (0, 1))
        left.imshow(picture, **_PICTURE)
        left.set(title=f"true: {class_names[true]}", xticks=[], yticks=[], anchor="N")
        left.spines[:].set(visible=True, color="0.6")
        marks, colours = [""] * len(values), [_GREY] * len(values)
        marks[predicted], colours[predicted] = f"predicted: {values[predicted]:.1%}", _VERMILLION
        mark = "correct" if true == predicted else "true"
        marks[true], colours[true] = f"{mark}: {values[true]:.1%}", _GREEN
        bars = right.barh(range(len(values)), values, color=colours)
        right.bar_label(bars, marks, padding=3, fontsize="small")
        right.set_yticks(range(len(values)), class_names, fontsize="small")
        right.set_title(f"predicted: {class_names[predicted]}", loc="left")
        # Room to the right of 1 for the marks; the axis itself ends there.
        right.set(xticks=(0, 0.5, 1), xlim=(0, 1.6), ylim=(len(values) - 0.5, -0.5))
        right.set_xlabel("probability", x=0.5 / 1.6)
        right.spines["bottom"].set_bounds(0, 1)
        right.grid(visible=False, axis="y")
    return figure


@_styled
def model_diagram(rows: "Sequence[LayerRow]") -> Figure:
    """Draws a network's layers in the order of ``rows`` with their shapes, as Keras' ``plot_model`` does.

    Raises:
      ValueError: there are no layers.
    """
    if not rows:
        raise ValueError("rows must have at least one layer")
    figure = Figure(figsize=(6, len(rows)))
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.35, 0))
    axes.set_title(f"Layers: {len(rows)}, parameters: {sum(row.parameters for row in rows):,}", pad=12)
    axes.set_axis_off()
    for i, row in enumerate(rows):
        head = f"{row.name} ({row.kind})", f"{row.parameters:,} parameters" if row.parameters else ""
        cells = [head, (f"input: {row.input_shape}", f"output: {row.output_shape}")]
        colours = [["#CCE3F0"] * 2, ["white"] * 2]
        bottom = axes.transLimits.transform((0, i + 0.65))[1]
        axes.table(cells, colours, "center", bbox=Bbox.from_bounds(0, bottom, 1, 0.65 / (len(rows) - 0.35)))
        if i:
            arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (0.5, i), (0.5, i - 0.35), arrowprops=arrow)
    return figure


@_styled
def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws how many images of each class (row) were taken for each class (column), the right ones left pale.

    Args:
      counts: integers [K, K].
      names: of the classes, [K].

    Raises:
      ValueError: the shape is another.
    """
    _check("counts", counts, ("K", "K"))
    figure = Figure(figsize=(0.75 * len(names) + 2.5, 0.6 * len(names) + 2))
    axes = figure.subplots()
    # Of the right ones there are so many more that they would leave no colour for the others.
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    most = max(wrong.max(), 1)
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=1.2 * most)
    for (row, column), count in np.ndenumerate(counts):
        colour = _BLUE if row == column else "white" if count > 0.6 * most else "black" if count else "0.7"
        axes.text(
            column, row, f"{count:,}", ha="center", va="center", color=colour, weight=700 if row == column else 400
        )
    places = range(len(names))
    axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    right, all_of_them = int(np.trace(counts)), int(counts.sum())
    axes.set(
        xlabel="taken for",
        ylabel="class",
        title=f"{all_of_them - right:,} of {all_of_them:,} images are taken for another class",
    )
    axes.grid(False)
    axes.tick_params(length=0)
    return figure


@_styled
def reliability(found: Mapping[str, Any]) -> Figure:
    """Draws how often a network is right over how sure it is, a panel for each; on the diagonal, both are the same.

    Args:
      found: by title, what ``cnn.evaluation.reliability`` returns.
    """
    figure = Figure(figsize=(_WIDTH, 5))
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (title, bins) in zip(panels, found.items(), strict=True):
        there = bins.share > 0
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="as sure as it is right")
        # An area for each bin, of its share of the images.
        sizes = 20 + 400 * bins.share[there]
        shown = {"color": _BLUE, "alpha": 0.8, "clip_on": False, "zorder": 3}
        axes.scatter(bins.confidence[there], bins.accuracy[there], sizes, label="images, by area", **shown)
        axes.set(
            title=f"{title}\nexpected calibration error {bins.error:.4f}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1)
        )
        axes.set_aspect("equal")
    panels[0].set_ylabel("accuracy")
    panels[0].legend(loc="upper left", markerscale=0.5)
    return figure


@_styled
def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG: the same bytes for a figure of the same arrays, and the whole file or none.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # None keeps matplotlib from writing its version.
        figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
