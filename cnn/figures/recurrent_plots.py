"""How a recurrent network reads an image -> a matplotlib figure, in the style of ``cnn/figures/plots.py``."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cnn.figures.explanation_plots import ORANGE
from cnn.figures.image_plots import PICTURE
from cnn.figures.plots import BLUE, GREEN, GREY, VERMILLION, WIDTH, check, styled
from cnn.text import shortened

COLOURS = VERMILLION, BLUE, GREEN, ORANGE
"""Of the classes whose probability is drawn, from the likeliest at the end; all others are grey."""


@styled
def reading(
    image: np.ndarray, hidden: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Draws an image, the hidden state after each of its rows, and the class probabilities after each row.

    Args:
      image: uint8 [H, W, C].
      hidden: [H, F], from -1 to 1.
      probabilities: [H, K], if the row were the last.
      class_names: of the classes.
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong.
    """
    check("image", image, "HWC")
    check("hidden", hidden, "HF")
    check("probabilities", probabilities, "HK")
    rows = len(image)
    figure = Figure(figsize=(WIDTH, 4.4))
    pixels, states, chances = figure.subplots(1, 3, sharey=True, width_ratios=(1.45, 1.5, 1.2))
    top_to_bottom = {"aspect": "auto", "extent": (0, 1, rows + 0.5, 0.5), "interpolation": "nearest"}
    pixels.imshow(image[..., 0] if image.shape[2] == 1 else image, **top_to_bottom, **PICTURE)
    pixels.set(title="the image", ylabel="row", xticks=[])
    drawn = states.imshow(hidden, cmap="RdBu_r", vmin=-1, vmax=1, **top_to_bottom)
    states.set(title=f"the hidden state, {hidden.shape[1]} units", xticks=[])
    figure.colorbar(drawn, ax=states, shrink=0.8, pad=0.02)
    steps = np.arange(1, rows + 1)
    likeliest = [int(label) for label in np.argsort(-probabilities[-1], kind="stable")]
    chosen = likeliest[: len(COLOURS)]
    for place, label in reversed(list(enumerate(likeliest))):
        look = {"color": COLOURS[place], "linewidth": 2} if place < len(COLOURS) else {"color": GREY, "linewidth": 0.8}
        chances.plot(probabilities[:, label], steps, **look)
    handles = [chances.lines[-1 - place] for place in range(len(chosen))]
    names = [shortened(class_names[label], 24) for label in chosen]
    chances.legend(handles, names, fontsize="small", loc="upper right")
    chances.set(title="probability after each row", xlim=(-0.02, 1.02), ylim=(rows + 0.5, 0.5))
    for axes in (pixels, states):
        axes.grid(visible=False)
    figure.suptitle(title)
    return figure
