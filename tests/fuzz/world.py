"""A directory tree of tiny runs and files, with a record of what a command changes in it, and ways to damage it."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Snapshot = dict[str, tuple[int, ...]]


class World(NamedTuple):
    """A copy of a pristine tree, in which commands run."""

    pristine: Path
    root: Path

    def reset(self) -> None:
        """Makes the copy from nothing."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.restore([path for path, _ in _entries(str(self.pristine))])

    def restore(self, paths: Iterator[str] | list[str]) -> None:
        """Makes some paths pristine again: a path before what is in it."""
        for path in sorted(paths):
            good, actual = self.pristine / path, self.root / path
            if actual.is_symlink() or (actual.exists() and not (actual.is_dir() and good.is_dir())):
                _remove(actual)
            if good.is_dir() and not good.is_symlink():
                actual.mkdir(exist_ok=True)
                actual.chmod(stat.S_IMODE(good.stat().st_mode))
            elif os.path.lexists(good) and actual.parent.is_dir():
                if stat.S_ISFIFO(good.lstat().st_mode):
                    os.mkfifo(actual)
                else:
                    shutil.copy2(good, actual, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _entries(directory: str, prefix: str = "") -> Iterator[tuple[str, os.DirEntry]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield prefix + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path, f"{prefix}{entry.name}/")


def snapshot(root: Path) -> Snapshot:
    """What changes when a file is written, replaced or removed, by path; of directories only their mode."""
    found = {}
    for path, entry in _entries(str(root)):
        status = entry.stat(follow_symlinks=False)
        is_directory = stat.S_ISDIR(status.st_mode)
        found[path] = (status.st_mode,) if is_directory else (status.st_mode, status.st_ino, status.st_ctime_ns)
    return found


def digest(path: Path) -> str:
    """Of a file's content, or in words what is no file."""
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_file() and path.stat().st_size > 1 << 28:
        return "huge"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "directory" if path.is_dir() else "missing" if not path.exists() else "special"


def meaning(path: Path) -> str:
    """The digest of a file; of JSON without the times in it, and of a result with what its digests do not agree with.

    The digests cover the times, and the random ID of its run.
    """
    from cnn.runs.identity import SIGNED, differing_digest
    from tests.helpers import without_times

    if path.suffix in (".json", ".jsonl") and path.is_file() and not path.is_symlink():
        with contextlib.suppress(ValueError, RecursionError, OSError):
            text = path.read_text()
            values = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
            if path.name == "result.json" and isinstance(values, dict):
                config = json.loads(path.with_name("config.json").read_text())
                kept = {name: value for name, value in values.items() if name not in SIGNED}
                values = {**kept, "differs": differing_digest(values, config)}
            return hashlib.sha256(json.dumps(without_times(values)).encode()).hexdigest()
    return digest(path)


def tree_digest(root: Path) -> str:
    """Of all names and contents below a directory."""
    lines = sorted(f"{path} {digest(root / path)}" for path, _ in _entries(str(root)))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def labels(root: Path) -> dict[str, Path]:
    """Every file by a name that is the same in every build of the tree: orbax names some by random numbers."""
    found: dict[str, Path] = {}
    for path in sorted(path for path, entry in _entries(str(root)) if not entry.is_dir(follow_symlinks=False)):
        label = name = re.sub(r"[0-9a-f]{32}", "*", path)
        number = 1
        while label in found:
            number += 1
            label = f"{name}#{number}"
        found[label] = root / path
    return found


DEEP = 100_000

JSON_VALUES = {
    "null": "null",
    "true": "true",
    "-1": "-1",
    "0": "0",
    "1": "1",
    "2": "2",
    "0.99": "0.99",
    "1.5": "1.5",
    "2**31": str(2**31),
    "2**64": str(2**64),
    "a number of 400 digits": "9" * 400,
    "a number of 5,000 digits": "9" * 5000,
    "1e400": "1e400",
    "-1e-400": "-1e-400",
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "an empty text": '""',
    "a text": '"text"',
    "two lines in colour": '"a\\nb\\u001b[31m"',
    "a lone surrogate": '"\\ud800"',
    "a zero byte": '"a\\u0000b"',
    "a text of 100,000 letters": f'"{"x" * 100_000}"',
    "an empty list": "[]",
    "an empty object": "{}",
    "a list of 100,000 numbers": f"[{','.join('1' * 100_000)}]",
    "a list of a text": '["text"]',
    f"lists, {DEEP:,} deep": "[" * DEEP + "]" * DEEP,
    "an object in an object": '{"a": {"b": 1}}',
    "not JSON": "nothing",
}

JSON_NODES = 400


def _nodes(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _nodes(inner, (*path, key))


def _replaced(text: str, number: int, edit: Any) -> tuple[str, str]:
    """The JSON text with one of its values replaced or removed, and where that is."""
    value = json.loads(text)
    nodes = list(_nodes(value))
    path = nodes[number % len(nodes)]
    where = ".".join(map(str, path)) or "all of it"
    if not path:
        return ("" if edit is None else edit), where
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if edit is None:
        del inner[path[-1]]
        return json.dumps(value), where
    inner[path[-1]] = "\x01placeholder"
    return json.dumps(value).replace(json.dumps("\x01placeholder"), edit), where


class Mutation(NamedTuple):
    """One change to one file of a tree."""

    file: str
    """By its label."""
    way: str
    number: int = 0
    """Where in the file, or which of its values."""
    value: str = ""
    """Of JSON_VALUES."""


def is_json(label: str) -> bool:
    """Whether a file is JSON, or JSON a line."""
    name = label.rpartition("/")[2]
    return name.endswith((".json", ".jsonl")) or name in ("_METADATA", "_CHECKPOINT_METADATA", "_sharding")


WAYS = (
    *("flip a bit", "truncate", "empty", "delete", "append", "line feed", "zeros"),
    *("directory", "full directory", "pipe", "link to nothing", "link to itself", "link to a device", "link to a copy"),
    *("other run's", "unreadable", "huge", "twice", "delete its directory", "replace its directory"),
)
JSON_WAYS = ("JSON value", "JSON without", "JSON surplus", "JSON line twice", "JSON line missing")


def mutate(root: Path, mutation: Mutation, other: tuple[str, str]) -> str:
    """Makes a change, and returns it in words.

    Args:
      root: the tree.
      mutation: the change.
      other: two prefixes: a file of the first is replaced by the same file of the second.
    """
    path, way, number = labels(root)[mutation.file], mutation.way, mutation.number
    content = path.read_bytes() if path.is_file() else b""
    place = number % len(content) if content else 0
    name = mutation.file
    if way in JSON_WAYS:
        text = content.decode()
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        row = number % len(lines)
        where = f" {row + 1}" if len(lines) > 1 else ""
        if way == "JSON line twice":
            lines.insert(row, lines[row])
        elif way == "JSON line missing":
            del lines[row]
        elif way == "JSON surplus":
            lines[row] = lines[row].rstrip().removesuffix("}") + ', "surplus": ' + JSON_VALUES[mutation.value] + "}"
        else:
            edit = JSON_VALUES[mutation.value] if way == "JSON value" else None
            lines[row], inside = _replaced(lines[row], number // max(len(lines), 1), edit)
            where += f" {inside}"
        path.write_text("".join(f"{line}\n" for line in lines))
        return f"{name}: {way}{where} {mutation.value}"
    if way == "flip a bit" and content:
        changed = bytearray(content)
        changed[place] ^= 1 << number % 8
        path.write_bytes(changed)
        return f"{name}: bit {number % 8} of byte {place} of {len(content)} flipped"
    if way == "truncate":
        path.write_bytes(content[:place])
        return f"{name}: cut after {place} of {len(content)} bytes"
    inserted = {"append": b"surplus", "line feed": b"\n\x1b[31m\r", "zeros": bytes(100), "twice": content}
    if way in inserted:
        path.write_bytes(content + inserted[way])
        return f"{name}: {way} at its end"
    if way == "empty":
        path.write_bytes(b"")
    elif way == "huge":
        with open(path, "r+b") as file:
            file.truncate(3 << 30)
    elif way == "unreadable":
        path.chmod(0)
    elif way == "other run's":
        # The other run's orbax has named the file by another number.
        same = labels(root).get(name.replace(*other, 1))
        if same is None or same == path:
            path.unlink()
        else:
            shutil.copy(same, path)
    elif way == "delete its directory":
        shutil.rmtree(path.parent)
    elif way == "replace its directory":
        shutil.rmtree(path.parent)
        same = Path(str(path.parent).replace(*other, 1))
        if same.is_dir() and same != path.parent:
            shutil.copytree(same, path.parent, symlinks=True)
    else:
        path.unlink()
        if way == "directory":
            path.mkdir()
        elif way == "full directory":
            path.mkdir()
            (path / "notes.txt").write_text("mine\n")
        elif way == "pipe":
            os.mkfifo(path)
        elif way == "link to nothing":
            path.symlink_to("nothing")
        elif way == "link to itself":
            path.symlink_to(path.name)
        elif way == "link to a device":
            path.symlink_to("/dev/zero")
        elif way == "link to a copy":
            copy = root / "work" / "copy"
            copy.write_bytes(content)
            path.symlink_to(copy)
    return f"{name}: {way}"
