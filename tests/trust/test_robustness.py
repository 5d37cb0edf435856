"""The robustness of a run, on the command line, against evaluating each corruption by hand."""

import copy
import json

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.intervals import accuracy_interval
from cnn.look.scores import reliability
from cnn.trust import robustness
from cnn.trust.corruptions import CORRUPTIONS
from tests.helpers import narrow
from tests.trust.examples import robustness_values


@pytest.fixture(scope="module")
def evaluated(config, small, tmp_path_factory):
    """A run whose robustness was evaluated twice, in the run and elsewhere; what was printed the first time."""
    place = tmp_path_factory.mktemp("robust")
    cnn.fit(narrow(config, epochs=2), place / "run", small)
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnn.runs.result.load_data", lambda config: small)
        patch.setattr("builtins.print", lambda *lines, **options: printed.extend(map(str, lines)))
        main(["evaluate", str(place / "run"), "--robust"])
        first = list(printed)
        # Over the first file; figures have been drawn.
        patch.setattr("cnn.look.run_figures.write_figures", lambda directory, drawings: [])
        main(["evaluate", str(place / "run"), "--robust"])
        assert printed[len(first) :] == first[: -len(robustness.FIGURES)]
        patch.setattr(robustness, "CORRUPTIONS", {name: CORRUPTIONS[name] for name in ("mirror", "inversion")})
        (place / "few").mkdir()
        main(["evaluate", str(place / "run"), "--robust", "--robust-images", "9", "--output", str(place / "few")])
    return place, first


@pytest.fixture(scope="module")
def values(evaluated):
    return robustness.read_robustness(evaluated[0] / "run")


def test_the_table_equals_evaluating_each_corruption_by_hand(evaluated, values, small):
    place, printed = evaluated
    state, _ = cnn.load_best(place / "run")
    for name, severity in (("shift", 3), ("noise", 5), ("mirror", 1)):
        images = robustness.corrupted(small.test.images, name, severity)
        assert (images != small.test.images).any()
        entry, predicted = values["corruptions"][name][severity - 1], np.asarray(cnn.predict(state, images))
        right = int((predicted.argmax(1) == small.test.labels).sum())
        assert entry["accuracy"] == right / 110 and entry["accuracy_interval"] == list(accuracy_interval(right, 110))
        assert entry["ece"] == pytest.approx(reliability(predicted, small.test.labels).error)
        (row,) = [line.split() for line in printed if line.startswith(name)]
        assert row[severity] == f"{right / 110:.4f}" and row[len(row) // 2 + severity] == f"{entry['ece']:.4f}"
    np.testing.assert_array_equal(robustness.corrupted(small.test.images, "mirror", 1), small.test.images[:, :, ::-1])
    assert values["clean"]["accuracy"] == pytest.approx(float(cnn.evaluate(state, small.test).accuracy))


def test_the_mean_error_weighs_each_corruption_the_same(values):
    errors = [[1 - entry["accuracy"] for entry in entries] for entries in values["corruptions"].values()]
    assert [len(error) for error in errors] == [len(entry.strengths) for entry in CORRUPTIONS.values()]
    assert values["mean_corruption_error"] == pytest.approx(np.mean([np.mean(error) for error in errors]))
    assert values["mean_corruption_error"] > 1 - values["clean"]["accuracy"]


def test_attacks_start_from_the_clean_accuracy_and_pgd_is_at_least_as_strong(values):
    fgsm, pgd = ([entry["accuracy"] for entry in entries] for entries in values["attacks"].values())
    assert values["attacked_images"] == 110 and fgsm[0] == pgd[0] == values["clean"]["accuracy"]
    assert np.all(np.asarray(pgd) <= fgsm) and pgd[-1] < pgd[0] / 2


def test_everything_is_written_and_a_part_of_the_images_is_said_to_be_one(evaluated, values):
    place, printed = evaluated
    assert values["images"] == values["test_images"] == 110 and printed[0] == "110 of 110 test images"
    assert sorted(path.name for path in (place / "run" / "figures").iterdir()) == sorted(robustness.FIGURES)
    few = json.loads((place / "few" / "robustness.json").read_text())
    assert few["images"] == few["attacked_images"] == 9 and few["test_images"] == 110


def test_a_part_is_at_equal_distances(small):
    assert robustness._spread(10, None).tolist() == robustness._spread(10, 99).tolist() == list(range(10))
    assert robustness._spread(10, 3).tolist() == [0, 3, 6]


def test_parts_are_of_one_size_and_their_padding_is_left_out():
    images, labels, calls = np.zeros((10, 2, 3, 1), np.uint8), np.arange(10), []

    def function(start, images, labels):
        calls.append((start, len(images), len(labels)))
        return {"labels": labels + 100}

    np.testing.assert_array_equal(robustness.by_parts(function, 24, images, labels)["labels"], np.arange(100, 110))
    assert calls == [(0, 4, 4), (4, 4, 4), (8, 4, 4)]
    assert len(robustness.by_parts(function, 1, images, labels)["labels"]) == 10 and calls[-1] == (9, 1, 1)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--robust", "--robust-images", "0"], "--robust-images is 0, but must be an integer from 1 to "),
        (["--robust-images", "5"], "--robust-images has an effect only with --robust; name that, or leave it out"),
    ],
)
def test_bad_options_are_one_line(tmp_path, options, message):
    with pytest.raises(cnn.ConfigError, match=f"^{message}"):
        main(["evaluate", str(tmp_path), *options])


def test_what_another_program_has_written_is_kept(evaluated, tmp_path):
    (tmp_path / "robustness.json").write_text('{"mine": 1}')
    with pytest.raises(cnn.ConfigError, match="robustness.json', which this command has not written"):
        main(["evaluate", str(evaluated[0] / "run"), "--robust", "--output", str(tmp_path)])
    assert (tmp_path / "robustness.json").read_text() == '{"mine": 1}'


def _set(path, value):
    def change(values):
        *outer, last = path
        for name in outer:
            values = values[name]
        values[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set(["clean"], 0.5),
        _set(["clean", "accuracy"], 1.5),
        _set(["clean", "accuracy_interval"], [0.5]),
        _set(["corruptions"], []),
        _set(["corruptions", "snow"], []),
        _set(["corruptions", "blur"], []),
        _set(["corruptions", "blur", 2], {}),
        _set(["attacks", "pgd"], []),
        _set(["attacks", "fgsm", 1, "epsilon"], 0.5),
        _set(["attacks", "fgsm", 1, "accuracy"], "0.5"),
        _set(["images"], True),
        _set(["mean_corruption_error"], None),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, change):
    values = robustness_values()
    (tmp_path / "robustness.json").write_text(json.dumps(values))
    assert robustness.read_robustness(tmp_path) == values
    damaged = copy.deepcopy(values)
    change(damaged)
    (tmp_path / "robustness.json").write_text(json.dumps(damaged))
    with pytest.raises(cnn.RunDirError, match=r"^cannot read .*robustness\.json: .*; remove it, or python -m cnn eval"):
        robustness.read_robustness(tmp_path)


def test_a_file_that_is_no_json_is_one_line(tmp_path):
    assert robustness.read_robustness(tmp_path) is None
    (tmp_path / "robustness.json").write_text("[1, 2")
    with pytest.raises(cnn.RunDirError, match="cannot read .*: not JSON; "):
        robustness.read_robustness(tmp_path)
