"""Classes of image files, on the command line; damaged and hostile files among them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn
from cnn.data import image_files
from cnn.trust import prediction
from tests.data.image_bytes import HOSTILE, READABLE, png
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def run_dir(config, small, tmp_path_factory):
    directory = tmp_path_factory.mktemp("predict") / "run"
    cnn.fit(config, directory, small)
    return directory


def test_an_unreadable_file_is_one_line_and_the_others_are_classified(run_dir, small, tmp_path):
    names = ["good.png", "line\nbreak.png", b"not-utf8-\xff.png", *HOSTILE, "missing", "good again.png"]
    for name in names:
        content = HOSTILE[name][0] if name in HOSTILE else png(small.test.images[0][:, :, 0])
        if name != "missing":
            Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name)))).write_bytes(content)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    paths = [os.path.join(os.fsencode(tmp_path), os.fsencode(name)) for name in [*names, "fifo", "folder"]]
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "predict", str(run_dir), *paths], cwd=ROOT, capture_output=True, timeout=100
    )
    lines = command.stdout.decode().splitlines()
    assert command.returncode == 2
    # The run's images are not those that its configuration names.
    warning, error = command.stderr.decode().splitlines()
    assert warning.startswith("warning: whether images are unlike the training images is unknown: ")
    assert error == f"error: {len(HOSTILE) + 3} of the {len(paths)} could not be read; the lines above say why"
    assert len(lines) == len(paths)
    state, _ = cnn.load_best(run_dir)
    predicted = cnn.class_names(cnn.DataConfig())[int(np.argmax(cnn.predict(state, small.test.images[:1])[0]))]
    for index, printed in enumerate(["good.png", r"line\nbreak.png", r"not-utf8-\xff.png"]):
        assert lines[index].startswith(f"{tmp_path}/{printed}: {predicted} 0.")
        assert lines[index].count(",") == 2
    assert lines[-3].startswith(f"{tmp_path}/good again.png: {predicted}")
    assert all(line.startswith("error: ") for line in [*lines[3:-3], *lines[-2:]])


def test_many_files_are_classified_in_order(run_dir, small, tmp_path):
    files = []
    for index in range(110):
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(png(small.test.images[index, :, :, 0]))
    files = files + files[:30]  # more than a batch
    state, _ = cnn.load_best(run_dir)
    images = np.stack([image_files.read_image(path) for path in files])
    best = np.argmax(cnn.predict(state, images), axis=1)
    names = cnn.class_names(cnn.DataConfig())
    lines = list(prediction.predict_files(run_dir, files))
    predicted = [line.rsplit(": ", 1)[1].split(", ")[0].rsplit(" ", 1)[0] for line, _ in lines]
    assert predicted == [names[label] for label in best]
    assert all(is_read for _, is_read in lines)


def test_dark_on_light_is_inverted_and_reported_by_default(run_dir, small, tmp_path):
    shoe = small.test.images[0]
    (tmp_path / "light.png").write_bytes(png(255 - shoe[:, :, 0]))
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "light.png"), shoe)
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "light.png", invert=False), 255 - shoe)
    lines = {
        invert: [line for line, _ in prediction.predict_files(run_dir, [tmp_path / "light.png"], invert)][0]
        for invert in (None, True, False)
    }
    assert "light.png (inverted): " in lines[None] and lines[None] == lines[True]
    assert "(inverted)" not in lines[False]


def test_the_first_of_several_frames_is_reported(run_dir, tmp_path):
    (tmp_path / "frames.gif").write_bytes(READABLE["frames, GIF"])
    for invert, notes in ((False, "first of several"), (True, "inverted, first of several")):
        ((line, _),) = prediction.predict_files(run_dir, [tmp_path / "frames.gif"], invert)
        assert f"frames.gif ({notes} frames or pages): " in line
    ((line, _),) = prediction.predict_files(run_dir, [tmp_path / "frames.gif"], as_json=True)
    assert json.loads(line)["first_of_several"] is True


def test_json_has_a_line_per_file_and_standard_input(run_dir, small, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "predict", str(run_dir), "-", str(tmp_path / "broken.png"), "--json"],
        input=png(small.test.images[0][:, :, 0]),
        cwd=ROOT,
        capture_output=True,
        timeout=100,
    )
    good, broken = map(json.loads, command.stdout.splitlines())
    assert command.returncode == 2
    state, _ = cnn.load_best(run_dir)
    expected = np.asarray(cnn.predict(state, small.test.images[:1]))[0]
    assert good["file"] == "-" and good["inverted"] is False and len(good["classes"]) == 3
    assert good["classes"][0]["probability"] == pytest.approx(expected.max(), rel=1e-5)
    assert broken == {"file": str(tmp_path / "broken.png"), "error": broken["error"]} and "PNG" in broken["error"]


def test_no_file_is_a_usage_error(run_dir):
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "predict", str(run_dir)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert command.returncode == 2 and "no file is named" in command.stderr and command.stderr.count("\n") == 1
