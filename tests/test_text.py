"""Names on one line, and JSON of others."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn
from cnn import text


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("plain é", "plain é"),
        ("line\nbreak", r"line\nbreak"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202ertl", r"\u202ertl"),
        ("\ud800", r"\ud800"),
        (b"not-utf8-\xff", r"not-utf8-\xff"),
        (os.fsdecode(b"not-utf8-\xff"), r"not-utf8-\xff"),
    ],
)
def test_a_name_is_printed_on_one_line(name, printed):
    assert text.printable(name) == printed


@given(st.text())
def test_the_message_of_an_error_is_one_line_of_300_characters_that_any_terminal_shows(value):
    message = str(cnn.UserError(f"{value * 50} is wrong; name another"))
    assert message.isprintable() and len(message) <= text.LINE and message.endswith("name another")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1", "not JSON"),
        (b"\xff", "not JSON"),
        ("1" * 5000, "not JSON"),
        (str(2**63), "beyond 64 bits"),
        ("[1e999]", "not finite"),
        ('{"a": NaN}', "not finite"),
        ("[" * 65 + "]" * 65, "more than 64 levels"),
        ("[" * 100_000, "more than 64 levels"),
        ('{"\\ud800": 1}', "surrogate"),
        ('["\\udcff"]', "surrogate"),
    ],
)
def test_json_that_python_reads_and_others_cannot_is_refused_in_one_line(content, reason):
    with pytest.raises(ValueError, match=reason) as error:
        text.parse_json(content)
    assert str(error.value).isprintable()


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FLOATS
TEXTS = st.text(st.characters(codec="utf-8"))


@settings(max_examples=30)
@given(st.recursive(SCALARS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_all_other_json_is_read(value):
    assert text.parse_json(json.dumps(value)) == value


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ValueError, match="not a regular file"):
        text.read_json(tmp_path / "config.json")


@given(name=st.text(st.characters(exclude_characters="…"), max_size=60), limit=st.integers(3, 40))
def test_shortened_texts_keep_their_beginning_and_end_within_the_limit(name, limit):
    short = text.shortened(name, limit)
    if text.columns(name) <= limit:
        assert short == name
    else:
        head, tail = short.split("…")
        assert text.columns(short) <= limit and name.startswith(head) and name.endswith(tail)


def test_wide_characters_take_two_columns():
    assert [text.columns(name) for name in ("ab", "바지", "e\u0301")] == [2, 4, 1]
    assert text.shortened("자전거 타는 사람", 10) == "자전거…람"
