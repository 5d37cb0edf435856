"""The image that a network is looked at by."""

import numpy as np

import cnn
from cnn.look.subject import subject


def test_it_is_the_first_training_image_and_of_a_detector_a_test_scene_with_an_object():
    images = np.arange(6, dtype=np.uint8).reshape(2, 1, 1, 3)
    empty, full = np.full((1, 5), -1), np.array([[0, 0, 1, 1, 2]])
    garments, scenes = cnn.Split(images, np.array([1, 0])), cnn.Split(images, np.stack([empty, full]))
    splits = cnn.Splits(garments, scenes, scenes)
    image, description = subject("classification", splits, ["a", "b"])
    assert image.tolist() == images[0].tolist() and description == "the first training image (b)"
    assert subject("classification", splits)[1] == "the first training image"
    image, description = subject("detection", splits, ["a", "b"])
    assert image.tolist() == images[1].tolist() and description == "test scene 1"
    none = splits._replace(test=cnn.Split(images, np.stack([empty, empty])))
    assert subject("detection", none)[1] == "test scene 0"
