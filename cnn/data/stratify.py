"""Classes from labels, and splits drawn by class from the content of the images, whatever their names."""

import hashlib
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn.errors import DataError
from cnn.text import listed, printable, shown

TRAIN, VAL, TEST = range(3)


def number_classes(labels: Sequence[str | int], names: Sequence[str] = ()) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of the classes and the label of each image as an index into them, int32 [N].

    Classes are in the order of their names as strings, by code point, or of their numbers; a number without a name is
    "class 0", "class 1", ...

    Args:
      labels: names or numbers.
      names: names by number, where the source gives them; there may be more than occur.

    Raises:
      DataError: there is only one class, or two names differ in case or spaces only.
    """
    distinct: Sequence[Any] = range(len(names)) if names else sorted(set(labels))
    index: dict[str | int, int] = {label: position for position, label in enumerate(distinct)}
    written = names or [label if isinstance(label, str) else f"class {label}" for label in distinct]
    named = check_names(written)
    if len(named) < 2:
        raise DataError(f"there is only one class, {listed(map(shown, named))}, but at least 2 are needed")
    return named, np.fromiter((index[label] for label in labels), np.int32, len(labels))


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of classes, unprintable characters escaped.

    Raises:
      DataError: two differ in case or spaces only.
    """
    named = tuple(printable(name) for name in names)
    same: dict[str, str] = {}
    for name in named:
        key = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        if key in same:
            raise DataError(f"two classes are named {shown(same[key])} and {shown(name)}; rename one, or merge them")
        same[key] = name
    return named


def draw_splits(
    digests: np.ndarray,
    labels: np.ndarray,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    sources: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the split of each image, int8 [N]: ``TRAIN``, ``VAL`` or ``TEST``.

    Within each class, images are ranked by SHA-256 of the seed and the image's content; the first are test images, the
    next validation images. So names of files and classes have no influence, and an image that is added to a class
    moves few others. Equal images are one and stay together; those with several labels are classes of their own.

    Args:
      digests: of the images that are trained on, uint8 [N, 32]; equal ones are kept together.
      labels: class of each image, integers [N].
      val_fraction: fraction of the distinct images left by the test split, in each class; 0 draws none.
      test_fraction: fraction of the distinct images of each class; 0 draws none.
      seed: a non-negative integer.
      sources: digests of the images before they were resized, by which they are ranked, so that the split is the same
        at every size; uint8 [N, 32].
    """
    group_of = group_equal(digests)
    groups = group_of.max(initial=-1) + 1
    ranks = [b"\xff" * 32] * groups
    prefix = f"{seed} ".encode()
    for group, source in zip(group_of, digests if sources is None else sources, strict=True):
        ranks[group] = min(ranks[group], hashlib.sha256(prefix + source.tobytes()).digest())
    label_of, several = labels_of_groups(group_of, labels)
    strata: dict[tuple[int, ...], list[int]]
    strata = {(label,): np.flatnonzero(label_of == label).tolist() for label in np.unique(label_of[label_of >= 0])}
    for group, labels_of in several.items():
        strata.setdefault(labels_of, []).append(group)
    split_of_group = np.full(groups, TRAIN, np.int8)
    for labels_of, members in strata.items():
        members.sort(key=ranks.__getitem__)
        least = int(len(labels_of) == 1)
        test = _share(len(members), test_fraction, least, least + least * (val_fraction > 0))
        val = _share(len(members) - test, val_fraction, least, least)
        split_of_group[members[:test]] = TEST
        split_of_group[members[test : test + val]] = VAL
    return split_of_group[group_of]


def _share(count: int, fraction: float, least: int, leave: int) -> int:
    """A fraction of a number of images, rounded: at least ``least``, and leaving ``leave``, where there are enough."""
    if not fraction:
        return 0
    return max(0, min(max(math.floor(count * fraction + 0.5), least), count - leave))


def group_equal(digests: np.ndarray) -> np.ndarray:
    """Returns the group of each image, integers [N]; equal digests have one group, and groups the digests' order."""
    rows = np.ascontiguousarray(digests).view(np.dtype((np.void, digests.shape[1])))[:, 0]
    return np.unique(rows, return_inverse=True)[1].reshape(-1)


def labels_of_groups(group_of: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[int, tuple[int, ...]]]:
    """Returns the label of each group of equal images, -1 if there are several, and by group those that are several."""
    classes = int(labels.max(initial=0)) + 1
    groups, label_of = np.divmod(np.unique(group_of.astype(np.int64) * classes + labels), classes)
    starts, counts = np.unique(groups, return_index=True, return_counts=True)[1:]
    several = {
        int(groups[starts[row]]): tuple(label_of[starts[row] : starts[row] + counts[row]].tolist())
        for row in np.flatnonzero(counts > 1)
    }
    return np.where(counts > 1, -1, label_of[starts]), several


def check_classes(names: Sequence[str], group_of: np.ndarray, labels: np.ndarray, least: int) -> None:
    """Checks that each class has as many distinct images as splits are drawn from it.

    Args:
      names: names of the classes.
      group_of: as of ``group_equal``.
      labels: class of each image, integers [N].
      least: the smallest number of distinct images of a class that have no other label.

    Raises:
      DataError: a class has fewer.
    """
    label_of, _ = labels_of_groups(group_of, labels)
    counts = np.bincount(label_of[label_of >= 0], minlength=len(names))
    few = [f"{shown(name)} has {count}" for name, count in zip(names, counts, strict=True) if count < least]
    if few:
        raise DataError(
            f"too few different images: {listed(few)}, but each class must have at least {least}; add images, or "
            "remove the class"
        )
