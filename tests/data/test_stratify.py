"""Properties of classes and splits."""

import hashlib

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from cnn.data.stratify import TEST, TRAIN, VAL, check_classes, draw_splits, group_equal, number_classes
from cnn.errors import DataError

FRACTIONS = st.floats(0.01, 0.9)
SEEDS = st.integers(0, 2**32 - 1)
# Images by a number for their content, with their labels; a number that occurs twice is a copy.
IMAGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=80)


def digests(contents):
    rows = [hashlib.sha256(content.to_bytes(2, "big")).digest() for content in contents]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)


def split(contents, labels, val=0.2, test=0.2, seed=42):
    return draw_splits(digests(contents), np.asarray(labels), val, test, seed)


def split_images(images, seed):
    contents, labels = zip(*images, strict=True)
    return split(contents, labels, seed=seed)


@given(IMAGES, FRACTIONS, FRACTIONS, SEEDS)
def test_equal_images_share_a_split_and_every_class_is_in_all_three(images, val, test, seed):
    contents, labels = zip(*images, strict=True)
    codes = split(contents, labels, val, test, seed)
    assert set(codes) <= {TRAIN, VAL, TEST}
    assert len(set(zip(contents, codes, strict=True))) == len(set(contents))
    for label in set(labels):
        # Images of this class alone.
        pure = {content for content in contents if {one for other, one in images if other == content} == {label}}
        found = {code for content, code in zip(contents, codes, strict=True) if content in pure}
        assert len(pure) < 3 or found == {TRAIN, VAL, TEST}


@given(IMAGES, SEEDS, st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_classes_matter(images, seed, random):
    by_content = dict(zip(images, split_images(images, seed), strict=True))
    renamed = [7, 3, 9, 5]
    shuffled = random.sample(images, len(images))
    codes = split_images([(content, renamed[label]) for content, label in shuffled], seed)
    assert dict(zip(shuffled, codes, strict=True)) == by_content


@given(st.lists(st.integers(3, 60), min_size=2, max_size=5), FRACTIONS, FRACTIONS, SEEDS)
def test_each_class_has_its_fractions_to_half_an_image(counts, val, test, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    codes = split(range(len(labels)), labels, val, test, seed)
    for label, count in enumerate(counts):
        tests, vals = (np.sum(codes[labels == label] == code) for code in (TEST, VAL))
        assert abs(tests - np.clip(count * test, 1, count - 2)) <= 0.5
        assert abs(vals - np.clip((count - tests) * val, 1, count - tests - 1)) <= 0.5


@given(st.lists(st.integers(20, 60), min_size=2, max_size=5), st.floats(0.1, 0.5), SEEDS)
def test_counts_of_the_classes_are_scikit_learns(counts, test, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = train_test_split(labels, test_size=test, stratify=labels, random_state=seed % 1000)[1]
    actual = labels[split(range(len(labels)), labels, 0, test, seed) == TEST]
    # scikit-learn rounds the sum of all classes up, and each of them up or down.
    assert np.abs(np.bincount(actual) - np.bincount(expected)).max() <= 1


@given(IMAGES, st.integers(1000, 2000), SEEDS)
def test_another_image_moves_at_most_two_others_and_none_of_other_classes(images, content, seed):
    assume(len({label for _, label in images}) > 1)
    images = list({content: label for content, label in images}.items())
    before = split_images(images, seed)
    after = split_images([*images, (content, 0)], seed)[:-1]
    moved = [label for (_, label), one, other in zip(images, before, after, strict=True) if one != other]
    assert set(moved) <= {0} and len(moved) <= 2


@given(IMAGES, FRACTIONS, SEEDS)
def test_a_fraction_of_0_draws_none(images, fraction, seed):
    contents, labels = zip(*images, strict=True)
    assert VAL not in split(contents, labels, 0, fraction, seed)
    assert TEST not in split(contents, labels, fraction, 0, seed)


def test_the_seed_selects_the_images():
    labels = np.arange(300) % 3
    assert len({split(range(300), labels, seed=seed).tobytes() for seed in range(20)}) == 20


def test_the_split_stays_what_it_is():
    """A run that is resumed years later has the same split."""
    codes = split(range(20), np.arange(20) % 2)
    assert "".join(map(str, codes)) == "00000020020211200110"


def test_classes_are_in_the_order_of_plain_strings_or_of_numbers():
    names, labels = number_classes(["apple", "10", "_x", "2", "Zebra", "1"])
    assert names == ("1", "10", "2", "Zebra", "_x", "apple")
    assert labels.tolist() == [5, 1, 4, 2, 3, 0] and labels.dtype == np.int32
    names, labels = number_classes([10, 2, 1])
    assert names == ("class 1", "class 2", "class 10") and labels.tolist() == [2, 1, 0]
    assert number_classes([1, 0], ["cat", "dog"])[0] == ("cat", "dog")
    assert number_classes(["a\nb", "\udcff"])[0] == ("a\\nb", "\\xff")


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", " cat"), ("e\u0301", "\u00e9"), ("a b", "a  b")])
def test_two_classes_of_one_name_are_refused(names):
    with pytest.raises(DataError, match="two classes are named"):
        number_classes(names)


def test_a_class_with_too_few_different_images_is_refused():
    group_of = group_equal(digests([1, 2, 3, 4, 4, 4, 5, 5]))
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    check_classes(("cat", "dog"), group_of, labels, 1)
    # The image that is in both counts for neither.
    with pytest.raises(DataError, match="different images: 'dog' has 1, but each class must have at least 2; add"):
        check_classes(("cat", "dog"), group_of, labels, 2)
