"""The section on explanations: which ones it recommends, and how many images it explains."""

import re

import numpy as np
import pytest

from cnn.look.faithfulness import RANDOM, Curves, Explained
from cnn.report.explanations import image_count, verdict

NOISE = np.random.default_rng(0).normal(0, 0.01, 40)


def _explained(**scores):
    """Explanations whose insertion minus deletion areas have these means, over 40 images with some noise."""

    def one(score, number):
        deletion = 0.4 + np.roll(NOISE, number)[:, None] + np.zeros((1, 21))
        return Explained(np.zeros((40, 1, 1)), Curves(deletion, deletion + score - np.roll(NOISE, 7 * number)[:, None]))

    return {name.replace("_", " "): one(score, number) for number, (name, score) in enumerate(scores.items())}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (
            {"Grad-CAM": -0.1, "SmoothGrad": 0.3, "Occlusion": 0.5, RANDOM: 0.0},
            "Most faithful: Occlusion. Not better than a random order: Grad-CAM.",
        ),
        ({"SmoothGrad": 0.3, "Occlusion": 0.1, RANDOM: 0.0}, "Most faithful: SmoothGrad."),
        (
            {"SmoothGrad": 0.5, "Occlusion": 0.4999, RANDOM: 0.0},
            "Most faithful: SmoothGrad and Occlusion, which these images do not tell apart.",
        ),
        (
            {"SmoothGrad": -0.2, "Occlusion": 0.0, RANDOM: 0.1},
            "No explanation is measurably better than a random order of the pixels.",
        ),
    ],
    ids=["one useless", "all useful", "two alike", "all useless"],
)
def test_the_best_explanations_are_named_and_those_that_are_not_better_than_chance(scores, expected):
    assert verdict(_explained(**scores)) == expected


def test_the_page_has_the_areas_of_each_explanation_and_an_example(runs):
    text = (runs.first / "report.html").read_text(encoding="utf-8")
    section = re.search(r'<section id="explanations".*?</section>', text, re.DOTALL)
    assert section and "pixels of 100 test images" in section[0]
    rows = dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', section[0]))
    assert rows.keys() == {"Grad-CAM of pool2", "Integrated gradients", "SmoothGrad", "Occlusion", RANDOM}
    assert all(re.fullmatch(r"\d\.\d{3} ± \d\.\d{3}", cell) for cell in rows.values())
    assert 'alt="Explanations of Test image 0"' in section[0]
    assert 'alt="The training images nearest to Test image 0"' in section[0]
    # Without pixels in its layers, there is no Grad-CAM.
    dense = (runs.dense / "report.html").read_text(encoding="utf-8")
    assert "SmoothGrad" in dense and "Grad-CAM of" not in dense.split('id="explanations"')[1]


@pytest.mark.parametrize(
    ("flops", "available", "expected"),
    [(0, 10_000, 100), (10**9 // 30, 10_000, 30), (10**15, 10_000, 10), (10**15, 3, 3), (0, 40, 40)],
)
def test_fewer_images_are_explained_of_a_network_with_many_flops(flops, available, expected):
    assert image_count(flops, available) == expected
