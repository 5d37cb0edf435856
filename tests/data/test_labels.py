"""Decisions on labels: applied by index before the split, which they do not move; wrong rows by their line."""

import csv
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.config import DataConfig
from cnn.data import labels
from cnn.data.cache import load_arrays
from cnn.data.splits import data_digest, find_origins, load_data, load_named, prepare_data
from cnn.errors import ConfigError, DataError
from cnn.resolution import class_names

pytestmark = pytest.mark.usefixtures("offline")

NAMES = ("cat", 'a "dog", big', "ëlk")


def write(path, *rows, head="index,given,action,label"):
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_published_images_are_changed_and_dropped_by_their_index_and_keep_their_split(installed, tmp_path):
    published, names, before = load_arrays(DataConfig()), class_names(DataConfig()), load_data(DataConfig())
    given = [names[label] for label in published.train_labels]
    other = names[(published.train_labels[3] + 1) % 10]
    rows = f"3,{given[3]},change,{other}", f"7,{given[7]},drop,", f"11,{given[11]},drop,", f"5,{given[5]},keep,"
    config = DataConfig(labels=write(tmp_path / "labels.csv", *rows))
    after, (indices, decisions) = load_data(config), find_origins(config)
    expected = published.train_labels.astype(np.int32)
    expected[3] = names.index(other)
    assert sorted(indices) == sorted(set(range(20)) - {7, 11}) and len(decisions) == 4
    parts = np.split(indices, [len(after.train.labels)])
    for split, old, part in zip(after[:2], before[:2], parts, strict=True):
        np.testing.assert_array_equal(split.images, published.train_images[part])
        np.testing.assert_array_equal(split.labels, expected[part], strict=True)
        assert {image.tobytes() for image in split.images} <= {image.tobytes() for image in old.images}
    assert find_origins(DataConfig())[0].shape == (20,)
    assert len({data_digest(after), data_digest(before)}) == 2
    np.testing.assert_array_equal(after.test.labels, before.test.labels)


def test_own_images_are_changed_and_dropped_and_keep_their_split(folder, tmp_path):
    plain = DataConfig(name="images", source=str(folder))
    before = load_data(plain)
    train = len(before.train.labels)
    given = np.concatenate([before.train.labels, before.val.labels]).tolist()
    rows = f"0,{given[0]},change,{(given[0] + 1) % 10}", f"{train},{given[train]},drop,"
    config = dataclasses.replace(plain, labels=write(tmp_path / "labels.csv", *rows))
    after = load_data(config)
    np.testing.assert_array_equal(after.train.images, before.train.images)
    assert after.train.labels.tolist() == [(given[0] + 1) % 10, *given[1:train]]
    np.testing.assert_array_equal(after.val.images, before.val.images[1:])
    assert find_origins(config)[0].tolist() == [*range(train), *range(train + 1, len(given))]
    # The same file of the resolved configuration, as a run has it.
    assert data_digest(load_named(load_named(config)[0])[1]) == data_digest(after)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.data())
def test_what_is_written_is_read_and_applied(tmp_path_factory, given_labels, data):
    chosen = data.draw(st.lists(st.integers(0, len(given_labels) - 1), unique=True))
    decisions = []
    for image in chosen:
        action = data.draw(st.sampled_from(labels.ACTIONS))
        label = data.draw(st.sampled_from(NAMES)) if action == "change" else ""
        decisions.append(labels.Decision(image, NAMES[given_labels[image]], action, label))
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([labels.COLUMNS, *decisions])
    array = np.array(given_labels, np.int32)
    assert labels.read_decisions(str(path), array, NAMES) == decisions
    changed, stays = labels.relabel(decisions, array, NAMES)
    by_image = {decision.image: decision for decision in decisions}
    for image, label in enumerate(given_labels):
        decision = by_image.get(image)
        assert stays[image] == (decision is None or decision.action != "drop")
        assert NAMES[changed[image]] == ((decision and decision.label) or NAMES[label])
    assert array.tolist() == given_labels


@pytest.mark.parametrize(
    "rows, message",
    [
        (["3,cat,keep,"], "line 2: index is 3, but must be at most 2, the last image's"),
        (["-1,cat,keep,"], "line 2: index is '-1', but must be a number from 0"),
        (["", "0,cat,keep,", "x,cat,keep,"], "line 4: index is 'x', but must be a number from 0"),
        (["0,cat,keep,", "1,ëlk,drop,", "0,cat,drop,"], "line 4: image 0 is also in line 2; remove one"),
        (["0,cat,change,bird"], "line 2: label is 'bird', but must be cat, a \"dog\", big, ëlk"),
        (["0,cat,remove,"], "line 2: action is 'remove', but must be keep, change, drop"),
        (["0,cat,drop,ëlk"], "line 2: label is 'ëlk', but must be empty with drop"),
        (["1,cat,drop,"], "line 2: given is 'cat', but must be 'ëlk', as in the data; the file may be of other images"),
        (["0,cat"], "line 2: 2 values, but must be 4: index, given, action, label"),
        (['0,"cat,keep,'], "line 2: unexpected end of data"),
    ],
)
def test_a_wrong_row_is_one_line_with_its_number(tmp_path, rows, message):
    path = write(tmp_path / "labels.csv", *rows)
    with pytest.raises(DataError) as error:
        labels.read_decisions(path, np.array([0, 2, 1]), NAMES)
    assert str(error.value) == f"{path}, {message}"


def test_what_is_not_such_a_file_is_one_line(tmp_path, installed):
    (tmp_path / "latin.csv").write_bytes("index,given,action,label\n0,ëlk,keep,\n".encode("latin-1"))
    cases = {
        "missing.csv": "which cannot be read: No such file or directory; python -m cnn labels",
        "latin.csv": "which cannot be read: not UTF-8",
        "other.csv": "line 1: it is not index,given,action,label; python -m cnn labels RUN_DIR makes such a file",
    }
    write(tmp_path / "other.csv", head="image,label")
    for name, message in cases.items():
        with pytest.raises(DataError, match=message) as error:
            load_data(DataConfig(labels=str(tmp_path / name)))
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="--data.labels is 'x.csv', but must be left out here"):
        prepare_data(DataConfig(labels="x.csv"))
