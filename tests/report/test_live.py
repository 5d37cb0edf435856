"""live.html: what it shows while a run trains, when it is written, what it survives, and its use in a browser."""

import base64
import dataclasses
import io
import json
import re
import shutil
import signal
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.report import live, live_parts
from cnn.report.page import escaped
from cnn.runs import rundir, verify
from tests.forked import Forked
from tests.helpers import Interrupted, assert_same, narrow, without_times
from tests.report.pages import HOSTILE, NAMES, set_viewport
from tests.report.test_page import CONTRAST
from tests.workers import killed_page

RUN = "run<img src=x onerror=harmed=1>"


def _data(page):
    return json.loads(re.findall(r'type="application/json">(.*?)</script>', page)[0])


def _fit(config, run_dir, splits, warn=pytest.fail, report=lambda row: None, seen=lambda row, state: None):
    """Trains with the page."""
    with live.live_page(config, run_dir, splits, warn) as show:

        def track(row, state):
            show(row, state)
            seen(row, state)

        return cnn.fit(config, run_dir, splits, report, pytest.fail, track)


@pytest.fixture(scope="module")
def trained(config, small, tmp_path_factory):
    """Two epochs of a run with a hostile name and class: its directory, result, the page and predictions by epoch."""
    run_dir = tmp_path_factory.mktemp("live") / RUN
    config = dataclasses.replace(narrow(config), data=dataclasses.replace(config.data, class_names=NAMES))
    pages, predictions = [], []

    def seen(row, state):
        pages.append((run_dir / "live.html").read_text(encoding="utf-8"))
        predictions.append(np.asarray(cnn.predict(state, small.val.images)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "INTERVAL", 0)
        result = _fit(config, run_dir, small, seen=seen)
    return types.SimpleNamespace(run_dir=run_dir, config=config, result=result, pages=pages, predictions=predictions)


def test_the_page_has_the_curves_the_best_epoch_and_the_time_left(trained):
    first, second = map(_data, trained.pages)
    history = trained.result.history
    for data, rows in ((first, history[:1]), (second, history)):
        curves = data["curves"]["all"]
        assert curves["epochs"] == [row["epoch"] for row in rows]
        for measure in ("loss", "accuracy"):
            for curve, split in zip(curves[measure], ("train", "val"), strict=True):
                assert curve["values"] == [round(row[f"{split}_{measure}"], 6) for row in rows]
    assert second["curves"]["all"]["best"] == trained.result.summary["best_epoch"]
    assert "Training: epoch 2 of at most 2." in trained.pages[0] and "<dd>1 of 2<small>" in trained.pages[0]
    assert f"at {history[0]['seconds']:.1f} s an epoch" in trained.pages[0]
    assert "Trained; the test images follow." in trained.pages[1]


def test_the_page_has_the_most_confident_mistakes_of_the_epoch(trained, small):
    for page, probabilities in zip(trained.pages, trained.predictions, strict=True):
        predicted = probabilities.argmax(1)
        wrong = [i for i in np.argsort(-probabilities.max(1), kind="stable") if predicted[i] != small.val.labels[i]]
        items = re.findall(r"<li>.*?</li>", page)
        assert f"{len(wrong)} of 130 validation images" in page and len(items) == min(len(wrong), live_parts.MISTAKES)
        for index, item in zip(wrong, items, strict=False):
            names = [
                re.escape(live_parts.escaped(NAMES[label])) for label in (predicted[index], small.val.labels[index])
            ]
            percent = f"{100 * probabilities[index].max():.1f}"
            assert re.search(
                rf"<strong>{names[0]}</strong> {percent}\xa0%<br>true: {names[1]}<br>.*image {index}<", item
            )
            content = base64.b64decode(re.findall(r"base64,([^\"]*)", item)[0])
            with Image.open(io.BytesIO(content)) as image:
                np.testing.assert_array_equal(np.asarray(image)[..., 0], 255 - small.val.images[index, ..., 0])


def test_the_page_has_the_kernels_of_the_epoch(trained):
    pictures = [re.findall(r'<img src="[^"]*" alt="">', page) for page in trained.pages]
    assert len(pictures[0]) == len(pictures[1]) == 4 and pictures[0] != pictures[1]
    assert "4 kernels after epoch 1." in trained.pages[0] and "4 kernels after epoch 2." in trained.pages[1]


def test_a_finished_run_says_so_and_links_the_report(trained):
    page = (trained.run_dir / "live.html").read_text(encoding="utf-8")
    assert 'Finished after 2 epochs. <a href="report.html">' in page and live.FINISHED in page
    # The network's parts stay those after the latest epoch.
    assert re.findall(r"<li>.*?</li>", page) == re.findall(r"<li>.*?</li>", trained.pages[1])


def test_names_are_escaped(trained):
    for page in trained.pages:
        assert HOSTILE not in page and "<img src=x" not in page
        assert escaped(RUN) in page


def test_the_page_changes_no_bit_of_the_run(trained, small, tmp_path):
    plain = cnn.fit(trained.config, tmp_path / "run", small)
    assert without_times(plain.history) == without_times(trained.result.history)
    assert_same(plain.state.params, trained.result.state.params)
    assert not (tmp_path / "run" / "live.html").exists()


def test_a_finished_run_keeps_its_page_and_is_intact(trained, small):
    before = (trained.run_dir / "live.html").read_bytes()
    _fit(trained.config, trained.run_dir, small)
    assert (trained.run_dir / "live.html").read_bytes() == before
    assert not any(verify.verify(trained.run_dir).values())


def test_a_run_killed_after_its_last_epoch_gets_its_last_page(trained, small, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained.run_dir, run_dir)
    (run_dir / "live.html").write_text(trained.pages[1], encoding="utf-8")
    _fit(trained.config, run_dir, small)
    page = (run_dir / "live.html").read_text(encoding="utf-8")
    assert live.FINISHED in page and _data(page)["curves"]["all"]["epochs"] == [1, 2]


def test_an_interrupted_run_says_how_it_ended_unless_the_directory_may_be_another_runs(trained, small, tmp_path):
    words = {KeyboardInterrupt: "Stopped after epoch 1: the same command resumes.", Interrupted: "Ended by an error"}
    for number, (error, expected) in enumerate(words.items()):

        def report(row, error=error):
            raise error

        with pytest.raises(error):
            _fit(trained.config, tmp_path / f"{number}", small, report=report)
        page = (tmp_path / f"{number}" / "live.html").read_text(encoding="utf-8")
        assert expected in page and _data(page)["live"]["state"] == "stopped"

    def taken(row):
        raise cnn.RunDirError("another run's")

    with pytest.raises(cnn.RunDirError):
        _fit(trained.config, tmp_path / "taken", small, report=taken)
    assert _data((tmp_path / "taken" / "live.html").read_text(encoding="utf-8"))["live"]["state"] == "training"


def test_a_run_killed_while_it_writes_has_the_page_before_and_resumes_with_all_epochs(tmp_path):
    run_dir = tmp_path / "run"
    process = Forked("tests.workers.killed_page", str(run_dir))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    page = (run_dir / "live.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>") and _data(page)["curves"]["all"]["epochs"] == [1]
    assert len(list(run_dir.glob(".live.html.*"))) == 1
    _fit(killed_page.CONFIG, run_dir, killed_page.splits())
    page = (run_dir / "live.html").read_text(encoding="utf-8")
    assert live.FINISHED in page and _data(page)["curves"]["all"]["epochs"] == [1, 2, 3]
    assert not list(run_dir.glob(".live.html.*"))


def test_a_full_disk_is_one_warning(config, small, tmp_path, monkeypatch):
    lines, write_text = [], rundir.write_text

    def full(path, text, *hint):
        if path.name == "live.html":
            raise cnn.RunDirError("no page") from OSError(28, "No space left on device")
        write_text(path, text, *hint)

    monkeypatch.setattr(live.rundir, "write_text", full)
    monkeypatch.setattr(live, "INTERVAL", 0)
    result = _fit(narrow(config), tmp_path / "run", small, lines.append)
    assert len(result.history) == 2 and (tmp_path / "run" / "result.json").exists()
    assert lines == ["live.html is not written (No space left on device); the run continues without it"]


def _row(epoch, val_loss=None):
    loss = 1 / epoch if val_loss is None else val_loss
    return {"epoch": epoch, "val_loss": loss, "val_accuracy": 0.5, "train_loss": 1, "train_accuracy": 0.5, "seconds": 7}


@pytest.fixture
def clocked(config, small, tmp_path, monkeypatch):
    """The epochs after which the page is written by a fake clock: an epoch takes 7 seconds, and writing two."""
    now, written = [1000.0], []

    def write(path, text):
        now[0] += 2
        written.append(text)

    monkeypatch.setattr(live, "perf_counter", lambda: now[0])
    monkeypatch.setattr(live, "prepare", lambda *arguments: now.__setitem__(0, now[0] + 50) or "subject")
    monkeypatch.setattr(live, "kernels", lambda state, epoch: "")
    monkeypatch.setattr(live, "mistakes", lambda subject, state, epoch: "mistakes" if subject else "")
    monkeypatch.setattr(
        live, "render", lambda run_dir, progress, *arguments: (len(progress.history), bool(progress.looks))
    )
    monkeypatch.setattr(live.rundir, "write_text", write)
    state: Any = types.SimpleNamespace(eval_state=None)

    def run(rows, **train):
        with live.live_page(narrow(config, **train), tmp_path, small) as show:
            for row in rows:
                now[0] += 7
                show(row, state)
        return written

    return run


def test_it_is_written_again_when_a_hundred_times_the_seconds_of_writing_have_passed(clocked):
    # 200 seconds are 29 epochs of 7, after which there are mistakes, too; the last page, which says that the run has
    # finished, follows at once.
    written = clocked(map(_row, range(1, 101)), epochs=100)
    assert written == [(1, False), *((epoch, True) for epoch in (30, 59, 88, 100, 100))]


def test_the_epoch_at_which_early_stopping_ends_the_run_is_always_written(clocked):
    assert clocked([_row(1), _row(2, 3.0), _row(3, 3.0)], epochs=100, patience=2) == [
        (1, False),
        (3, False),
        (3, False),
    ]


def test_all_processes_hand_over_their_shards_when_the_primary_one_writes(clocked, monkeypatch):
    asked, handed = [], []
    monkeypatch.setattr(live, "is_primary", lambda: False)
    # The primary process writes after the second of three epochs.
    monkeypatch.setattr(live, "allreduce_max", lambda due: asked.append(due) or len(asked) == 2)
    monkeypatch.setattr(live, "on_one_device", handed.append)
    assert clocked(map(_row, range(1, 4)), epochs=3) == []
    assert asked == [False] * 3 and len(handed) == 1


@pytest.mark.parametrize("train", [{"fused": True}, {}])
def test_without_figures_and_for_a_fused_run_there_is_no_page(config, tmp_path, train):
    log = cnn.LogConfig(figures=bool(train))
    with live.live_page(dataclasses.replace(narrow(config, **train), log=log), tmp_path) as show:
        show(_row(1), None)
    assert not list(tmp_path.iterdir())


def test_at_most_some_evenly_spaced_images_are_looked_at(trained, small, monkeypatch):
    monkeypatch.setattr(live, "IMAGES", 10)
    subject = live.prepare(trained.run_dir, small, trained.result.state)
    assert subject.indices.tolist() == [0, 14, 29, 43, 57, 72, 86, 100, 115, 129]
    np.testing.assert_array_equal(subject.labels, small.val.labels[subject.indices])
    assert subject.names == NAMES and "of 10 validation images" in live.mistakes(subject, trained.result.state, 1)
    monkeypatch.setattr(live, "PIXELS", 3 * 28 * 28)
    assert live.prepare(trained.run_dir, small, trained.result.state).indices.tolist() == [0, 64, 129]


def test_a_short_run_says_where_its_mistakes_are(trained):
    assert "after 150 seconds of training" in live.mistakes(None, trained.result.state, 1)
    assert "4 kernels" in live.kernels(trained.result.state, 1)


def test_a_network_without_convolutions_has_no_kernels(config):
    dense = dataclasses.replace(config, model=cnn.DenseConfig(features=(4,)))
    assert live.kernels(cnn.create_state(dense), 1) == ""


def _pixels(section):
    for content in re.findall(r"base64,([^\"]*)", section):
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            yield np.asarray(image)


def test_kernels_show_their_sign_or_with_three_channels_their_colours():
    grey = np.zeros((1, 3, 1, 2))
    grey[0, :, 0, 1] = -1, 0, 1
    _, picture = _pixels(live_parts.kernels_section(grey, 1))
    blue, white, red = picture[0].astype(int)
    assert blue[2] > blue[0] + 50 and red[0] > red[2] + 50 and white.tolist() == [247, 247, 247]
    colour = np.zeros((1, 1, 3, 2))
    colour[..., 0] = 1, 0, -1
    picture, zero = _pixels(live_parts.kernels_section(colour, 1))
    assert picture.ravel().tolist() == [255, 128, 0] and zero.ravel().tolist() == [128, 128, 128]
    section = live_parts.kernels_section(np.ones((3, 3, 1, 96)), 1)
    assert "The first 64 of 96 kernels" in section and len(list(_pixels(section))) == 64


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.4, "59 s"), (60, "1 min 0 s"), (7265, "2 h 1 min"), (90_000, "1 d 1 h")]
)
def test_durations_have_two_units(seconds, text):
    assert live_parts.duration(seconds) == text


@pytest.fixture(scope="module")
def many(trained, tmp_path_factory):
    """The page of a run on large photographs of 40 classes with long names."""
    rng = np.random.default_rng(0)
    names = tuple(f"<b>{'이름' if label % 2 else 'a very long name of a class' * 9} {label}" for label in range(40))
    images, labels = rng.integers(0, 256, (60, 150, 200, 3), np.uint8), np.arange(60) % 40
    subject = live_parts.Subject(names, np.arange(60) * 100, images, labels)
    looks = live_parts.kernels_section(rng.normal(size=(7, 5, 3, 96)), 2)
    looks += live_parts.mistakes_section(subject, rng.dirichlet(np.ones(40), 60), 2)
    progress = live_parts.Progress(trained.result.history, looks=looks).after(_row(3), "val_loss")
    path = tmp_path_factory.mktemp("many") / "live.html"
    path.write_text(live.render(trained.run_dir, progress, "stopped", "Stopped.", 0.01), encoding="utf-8")
    assert path.stat().st_size < 500_000
    return path


def _written(tmp_path, page, **fields):
    """A page in a file, with other values of the data for live.js."""
    data = _data(page)
    other = json.dumps({**data, "live": {**data["live"], **fields}}, separators=(",", ":"))
    head, _, tail = page.partition('type="application/json">')
    path = tmp_path / "live.html"
    path.write_text(f'{head}type="application/json">{other}{tail[tail.index("</script>") :]}', encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_opens_without_errors_fits_its_width_and_has_contrast(browser, trained, many, width, scheme):
    for page in (trained.run_dir / "live.html", many):
        browser.get_log("browser")
        set_viewport(browser, width, scheme)
        browser.get(page.as_uri())
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.querySelectorAll('.chart canvas').length") == 2
        assert browser.execute_script("return typeof harmed") == "undefined"
        assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
        contrasts = browser.execute_script(CONTRAST)
        assert len(contrasts) > 40 and min(contrasts)[0] >= 4.5, min(contrasts)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def _reloads(browser):
    """Whether the open page is loaded again, at the same position, when half a minute has passed."""
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_script("scrollTo(0, 700); const now = Date.now(); Date.now = () => now + 31000; window.old = true")
    try:
        WebDriverWait(browser, 1.5, 0.1).until(lambda _: not browser.execute_script("return window.old"))
    except TimeoutException:
        return False
    WebDriverWait(browser, 5, 0.1).until(lambda _: browser.execute_script("return scrollY") == 700)
    return True


def test_the_page_reloads_while_the_run_trains_and_not_when_it_has_finished(browser, trained, tmp_path):
    set_viewport(browser, 390, "light")
    now = browser.execute_script("return Date.now() / 1000")
    browser.get(_written(tmp_path, trained.pages[0], written=now).as_uri())
    assert _reloads(browser)
    browser.find_element("css selector", "#reload").click()
    assert not _reloads(browser)
    browser.get((trained.run_dir / "live.html").as_uri())
    assert not browser.find_element("css selector", "#reload").is_displayed()
    assert not _reloads(browser)


def test_a_page_that_is_long_not_rewritten_says_that_the_run_may_have_stopped(browser, trained, tmp_path):
    now = browser.execute_script("return Date.now() / 1000")
    for age, expected in ((30, "Training: epoch 2 of at most 2."), (930, "Not rewritten for 15 min: if the run was")):
        browser.get(_written(tmp_path, trained.pages[0], written=now - age, wait=8).as_uri())
        assert browser.find_element("css selector", "#state").text.startswith(expected)
