import numpy as np
import pytest

from cnn.figures import kernel_plots
from tests.figures.examples import KERNEL, all_axes, shown, texts


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: kernel_plots.kernels(KERNEL[..., 0], "title"), r"kernel must be \[H,W,C_in,C_out\]"),
        (lambda: kernel_plots.kernels_compared(KERNEL, KERNEL[0], "title", ("a", "b")), r"trained must be \[H,W,C_in"),
        (lambda: kernel_plots.kernels_by_epoch(KERNEL[0], [0], "title"), r"kernels must be \[E,H,W,N\]"),
    ],
    ids=["kernel", "kernels compared", "kernels by epoch"],
)
def test_a_kernel_of_a_wrong_shape_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_kernels_show_the_first_input_channel_on_a_scale_centred_on_zero():
    axes, bar = all_axes(kernel_plots.kernels(KERNEL, "Kernels of conv1"))
    np.testing.assert_array_equal(shown(axes), KERNEL[:, :, 0].transpose(2, 0, 1))
    assert {tile.get_clim() for tile in axes.images} == {(-0.5, 0.5)}
    tops = [tile.get_extent()[3] for tile in axes.images]
    assert tops == [tops[0]] * 16 + [tops[16]] * 2 and tops[0] < tops[16]
    assert (axes.get_title(), bar.get_xlabel(), bar.get_xlim()) == ("Kernels of conv1", "weight", (-0.5, 0.5))


def test_trained_and_untrained_kernels_share_one_scale():
    """Of 3 x 3 weights for 9 inputs and 12 outputs, 8 x 8 kernels; 18 outputs of one input are all shown."""
    wide = np.arange(3 * 3 * 9 * 12, dtype=np.float32).reshape(3, 3, 9, 12) / 1e5
    figure = kernel_plots.kernels_compared(-wide, wide, "conv2", ("untrained", "trained"))
    untrained, trained, _ = all_axes(figure)
    for axes, kernel in ((untrained, -wide), (trained, wide)):
        np.testing.assert_array_equal(shown(axes), kernel[:, :, :8, :8].transpose(2, 3, 0, 1).reshape(64, 3, 3))
    # The largest shown weight is 0.00959, and 98 % of them are below 0.009.
    assert {tile.get_clim() for axes in (untrained, trained) for tile in axes.images} == {(-0.01, 0.01)}
    assert figure.get_suptitle() == "conv2: the first 8 of 12 kernels, by the first 8 of 9 input channels"
    one = kernel_plots.kernels_compared(KERNEL[:, :, :1], KERNEL[:, :, :1], "conv1", ("untrained", "trained"))
    assert [len(axes.images) for axes in all_axes(one)[:2]] == [18, 18]
    assert one.get_suptitle() == "conv1: its 18 kernels"


def test_kernels_of_one_pixel_are_shown_as_a_matrix():
    kernel = np.arange(20.0).reshape(1, 1, 10, 2)
    untrained, trained, _ = all_axes(kernel_plots.kernels_compared(kernel, -kernel, "logits", ("untrained", "trained")))
    np.testing.assert_array_equal(shown(untrained)[0], kernel[0, 0].T)
    np.testing.assert_array_equal(shown(trained)[0], -kernel[0, 0].T)
    assert (trained.get_xlabel(), trained.get_ylabel()) == ("input", "unit")


@pytest.mark.parametrize(("strongest", "limit"), [(0.031, 0.04), (0.2, 0.2), (3.0, 0.5)])
def test_weight_limit_ignores_a_few_strong_weights(strongest, limit):
    weights = np.full(1000, -strongest)
    weights[:5] = 100
    assert kernel_plots.weight_limit(weights) == pytest.approx(limit)


def test_kernels_by_epoch_are_rows_and_epochs_are_columns():
    kernels = np.random.default_rng(0).normal(0, 0.1, (3, 2, 2, 5))
    axes, _ = all_axes(kernel_plots.kernels_by_epoch(kernels, [0, 1, 4], "Kernels"))
    np.testing.assert_array_equal(shown(axes), kernels.transpose(3, 0, 1, 2).reshape(15, 2, 2))
    assert len({tile.get_clim() for tile in axes.images}) == 1
    assert len({tile.get_extent()[3] for tile in axes.images[:3]}) == 1
    assert texts(axes) == ["0", "1", "4", "epoch"]
