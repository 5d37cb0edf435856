"""Which cells are assigned to an object; a loss that is least where everything is right."""

from typing import Any

import jax
import numpy as np
import pytest

from cnn.detection.loss import assign, cell_scores, detection_losses, is_right

PADDING = (0, 0, 0, 0, -1)


def outputs(rows=4, columns=4, classes=3) -> Any:
    return np.zeros((1, rows, columns, 5 + classes), np.float32)


def labels(*rows) -> Any:
    return np.array([rows], np.float32)


def test_the_cells_nearer_than_a_cell_to_a_centre_are_assigned_to_an_object():
    # Cells are 1/4 wide; this centre is the corner of four of them, and the next one the centre of a cell.
    assigned = assign(outputs(), labels((0.15, 0.15, 0.35, 0.35, 2), (0.8, 0.8, 0.95, 0.95, 1), PADDING))
    expected = np.zeros((4, 4), bool)
    expected[:2, :2] = expected[3, 3] = True
    np.testing.assert_array_equal(assigned.is_object[0], expected)
    assert np.asarray(assigned.classes)[0][expected].tolist() == [2, 2, 2, 2, 1]
    np.testing.assert_allclose(assigned.boxes[0, 3, 3], (0.8, 0.8, 0.95, 0.95))


def test_between_two_objects_a_cell_is_assigned_to_the_nearer_and_padding_has_none():
    near, far = (0.1, 0.1, 0.16, 0.16, 1), (0.2, 0.1, 0.3, 0.16, 2)
    for rows in ((near, far), (far, near)):
        assert assign(outputs(), labels(*rows)).classes[0, 0, 0] == 1
    assert not assign(outputs(), labels(PADDING, PADDING)).is_object.any()


def perfect(rows):
    """Outputs as they should be."""
    exact, assigned = outputs(), assign(outputs(), rows)
    exact[..., :4], exact[..., 4] = assigned.boxes, np.where(assigned.is_object, 20, -20)
    exact[..., 5:] = 40 * np.eye(3)[np.asarray(assigned.classes)]
    return exact, assigned


ROWS = labels((0.15, 0.15, 0.35, 0.4, 2), (0.6, 0.5, 0.95, 0.95, 1), PADDING)


def test_the_loss_is_0_where_all_is_right_and_every_mistake_raises_it():
    exact, assigned = perfect(ROWS)
    assert detection_losses(exact, assigned)[0] < 1e-4 and is_right(exact, assigned)[0]
    # Index of an output; what is added to it.
    for at, more in {(0, 0, 2): 0.3, (0, 0, 4): -40, (3, 0, 4): 40, (0, 0, 5): 99}.items():
        wrong = exact.copy()
        wrong[0][at] += more
        assert detection_losses(wrong, assigned)[0] > 1 / 4, at
        # Another cell sees the object that this one does not.
        assert is_right(wrong, assigned)[0] == (at == (0, 0, 4))


def test_an_object_that_no_cell_sees_is_a_mistake_and_an_empty_image_may_be_right():
    exact, assigned = perfect(ROWS)
    exact[0, 2:, 2:, 4] = -20
    assert not is_right(exact, assigned)[0]
    empty, nothing = perfect(labels(PADDING))
    assert is_right(empty, nothing)[0]
    # Of two objects at one place, cells are assigned to the first alone.
    both, same = perfect(labels((0.15, 0.15, 0.35, 0.4, 2), (0.15, 0.15, 0.35, 0.4, 2)))
    assert not is_right(both, same)[0]


def test_gradients_are_those_of_differences():
    draw = np.random.default_rng(0)
    with jax.enable_x64(True):
        exact, assigned = perfect(ROWS)
        near = exact.astype(np.float64)
        near[..., :4] += draw.normal(0, 0.02, near[..., :4].shape)
        near[..., 5:] = draw.normal(0, 1, near[..., 5:].shape)
        # With this objectness, its loss does not depend on its target, through which no gradient flows.
        near[..., 4] = 0
        direction, step = draw.normal(0, 1, near.shape), 1e-6

        def total(values):
            return detection_losses(values, assigned).sum()

        slope = (jax.grad(total)(near) * direction).sum()
        difference = (total(near + step * direction) - total(near - step * direction)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_no_gradient_of_a_box_flows_through_the_target_of_its_objectness():
    exact, assigned = perfect(ROWS)
    exact[..., :4] += 0.01
    gradients = []
    for objectness in (-5, 5):
        exact[..., 4] = objectness
        gradients.append(jax.grad(lambda values: detection_losses(values, assigned).sum())(exact)[..., :4])
    np.testing.assert_array_equal(*gradients)
    assert np.abs(gradients[0]).max() > 0.1


def test_scores_are_objectness_times_class():
    values = outputs()
    values[0, 1, 2] = (0.1, 0.2, 0.3, 0.4, 0, *np.log([0.5, 0.3, 0.2]))
    boxes, scores = cell_scores(values)
    np.testing.assert_allclose(boxes[0, 6], (0.1, 0.2, 0.3, 0.4), rtol=1e-6)
    np.testing.assert_allclose(scores[0, 6], (0.25, 0.15, 0.1), rtol=1e-5)
    assert pytest.approx(1 / 6) == scores[0, 0, 0]
