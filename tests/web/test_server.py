"""play: the page's files on the loopback address, to this machine's browsers alone, until a signal."""

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import cnn
from cnn.__main__ import main
from cnn.cli import exit_status
from cnn.web import server

FILES = {
    "index.html": b"<!doctype html>the page",
    "play.css": b"body {}",
    "a page.js": b"'use strict'",
    "network.json": b"{}",
    "network.onnx": b"onnx",
    "nearest.bin": b"bin",
    "examples.webp": b"webp",
    "ort/ort.wasm.min.mjs": b"module",
    "ort/ort.wasm": b"wasm" * 100_000,
}


@pytest.fixture
def served() -> Iterator[server.PageServer]:
    with server.PageServer(0) as page:
        page.files = FILES
        (thread := threading.Thread(target=page.serve_forever, args=(0.01,))).start()
        yield page
        page.shutdown()
        thread.join()


def _get(port: int, path: str, method: str = "GET", host: str | None = "") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def test_an_address_that_is_none_is_refused(served, capfd):
    status, _, _ = _get(served.server_port, "http://[")
    assert status == 400 and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?x=1", "text/html; charset=utf-8"),
        ("/play.css", "text/css; charset=utf-8"),
        ("/a%20page.js", "text/javascript; charset=utf-8"),
        ("/network.json", "application/json"),
        ("/network.onnx", "application/octet-stream"),
        ("/nearest.bin", "application/octet-stream"),
        ("/examples.webp", "image/webp"),
        ("/ort/ort.wasm.min.mjs", "text/javascript; charset=utf-8"),
        ("/ort/ort.wasm", "application/wasm"),
    ],
)
def test_a_file_has_its_type_whatever_the_machine_says(served, path, kind, monkeypatch):
    monkeypatch.setattr("mimetypes.guess_type", lambda *arguments: ("text/plain", None))
    status, headers, content = _get(served.server_port, path)
    name = path.split("?")[0].removeprefix("/").replace("%20", " ") or "index.html"
    assert (status, content, headers["Content-Type"]) == (200, FILES[name], kind)
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-cache", "nosniff")
    status, head, content = _get(served.server_port, path, "HEAD")
    assert (status, content, head["Content-Length"]) == (200, b"", headers["Content-Length"])


@pytest.mark.parametrize(
    "path", ["/ort", "/ort/", "/../etc/passwd", "//etc/passwd", "/%2e%2e/x", "/missing", "/%00", "/index.html/", "*"]
)
def test_nothing_else_is_there_and_no_directory_is_listed(served, path):
    status, headers, content = _get(served.server_port, path)
    assert status == 404 and b"ort" not in content
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-cache", "nosniff")


def test_a_host_of_another_name_is_refused(served):
    port = served.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", "localhost", None):
        status, _, content = _get(port, "/", host=host)
        assert status == 403 and b"the page" not in content
    assert _get(port, "/", host=f"localhost:{port}")[0] == 200


def test_nothing_is_changed_by_a_request(served):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert _get(served.server_port, "/", method)[0] == 501


def test_a_browser_that_leaves_is_not_reported(served, capfd):
    with socket.create_connection(("127.0.0.1", served.server_port)) as client:
        client.sendall(f"GET /ort/ort.wasm HTTP/1.1\r\nHost: 127.0.0.1:{served.server_port}\r\n\r\n".encode())
        # By a reset, in the middle of the answer.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert _get(served.server_port, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def played(tmp_path, monkeypatch) -> Callable[..., tuple[int, list[str]]]:
    """Runs the command, whose files are not computed, and returns its status and which addresses were opened."""
    opened: list[str] = []
    monkeypatch.setattr(server.webbrowser, "open", opened.append)
    monkeypatch.setattr(server, "find_runtime", lambda *arguments: {})
    monkeypatch.setattr(server, "read_network", lambda *arguments: None)
    monkeypatch.setattr(server, "contents", lambda network, runtime, card: {**FILES, "README.md": card.encode()})

    def play(number: int, *options: str) -> tuple[int, list[str]]:
        serve_forever = server.PageServer.serve_forever

        def serve(page: server.PageServer) -> None:
            def use() -> None:
                assert _get(page.server_port, "/")[2] == FILES["index.html"]
                assert b'library_name: "fashion-cnn"' in _get(page.server_port, "/README.md")[2]
                os.kill(os.getpid(), number)

            threading.Thread(target=use).start()
            serve_forever(page)

        with monkeypatch.context() as patch:
            patch.setattr(server.PageServer, "serve_forever", serve)
            return exit_status(lambda: main(["play", *options])), opened

    return play


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_status_and_a_line(played, number, status, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert played(number, "--pretrained", "--no-open") == (status, [])
    out, err = capsys.readouterr()
    (address,) = out.splitlines()
    assert err == "preparing the page\nstopped\n" and signal.getsignal(signal.SIGTERM) == before
    assert address.startswith("http://127.0.0.1:") and address.endswith(" to this machine alone; Ctrl-C ends it")
    port = int(address.split("/")[2].split(":")[1])
    with pytest.raises(ConnectionRefusedError):
        _get(port, "/")


def test_the_browser_is_told_the_address(played, capsys):
    _, opened = played(signal.SIGTERM, "--pretrained")
    deadline = time.monotonic() + 20
    while not opened and time.monotonic() < deadline:
        time.sleep(0.01)
    assert opened == [capsys.readouterr().out.split()[0]]


@pytest.mark.parametrize("content", [b"---\nlicense: \xff\n", None])
def test_a_model_card_that_cannot_be_read_is_left_out_with_a_line(content, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PRETRAINED", tmp_path / "cnn.safetensors")
    if content is not None:
        (tmp_path / "README.md").write_bytes(content)
    lines: list[str] = []
    assert server._card(None, lines.append) is None
    why = "No such file or directory" if content is None else "'utf-8' codec can't decode byte 0xff in position 13"
    (line,) = lines
    assert line.startswith(f"warning: the page has no model card: {tmp_path}/README.md cannot be read: {why}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pretrained", "--port", "65536"], "--port is 65536, but must be an integer from 0 to 65,535"),
        (["--pretrained", "--port", "{busy}"], "--port is {busy}, which cannot be used (Address already in use); name"),
        (["--pretrained", "{run}"], "both a run and --pretrained are named"),
        ([], "neither a run nor --pretrained is named"),
        (["{run}"], "cannot read {run}/config.json"),
        (["--pretrained", "--runtime", "{run}"], "--runtime is '{run}', in which ort.wasm.min.mjs cannot be read"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_computed(options, message, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "read_network", lambda *arguments: pytest.fail("computes"))
    with server.PageServer(0) as busy:
        values = {"busy": busy.server_port, "run": tmp_path}
        with pytest.raises(cnn.UserError) as caught:
            main(["play", *(option.format(**values) for option in options)])
    assert str(caught.value).startswith(message.format(**values))
