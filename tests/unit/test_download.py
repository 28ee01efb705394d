"""Downloads: whole, or refused with the reason; nothing but the web is read, and no secret is told."""

import base64
import http.server
import random
import socket
import threading
import time

import pytest

from atlaswriter.errors import InputError
from atlaswriter.sources.download import download, is_url, shown

CONTENT = random.Random(0).randbytes(2_500_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    protocol_version = "HTTP/1.1"
    stop = threading.Event()

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.close_connection = True
        self.server.asked.append((self.path, dict(self.headers)))
        getattr(self, "send_" + self.path.strip("/").split("?")[0].split("/")[0], self.send_missing)()

    def answer(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send_whole(self):
        self.answer(Content_Length=len(CONTENT), Content_Disposition='attachment; filename="../../evil"')
        self.wfile.write(CONTENT)

    def send_unsized(self):
        self.answer()
        self.wfile.write(CONTENT)

    def send_empty(self):
        self.answer(Content_Length=0)

    def chunks(self, *pieces):
        self.answer(Transfer_Encoding="chunked")
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def send_chunked(self):
        self.chunks(CONTENT[:10], CONTENT[10:], b"")

    def send_chunkedshort(self):
        self.chunks(CONTENT[:10])
        self.wfile.write(b"ff\r\nabc")

    def send_short(self):
        self.answer(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:1_200_000])

    def send_large(self):
        self.answer(Content_Length=10**15)

    def send_endless(self):
        self.answer()
        while not self.stop.is_set():
            self.wfile.write(bytes(1 << 16))

    def send_stalled(self):
        self.answer(Content_Length=100)
        self.wfile.write(b"abc")
        self.wfile.flush()
        self.stop.wait(10)

    def send_silent(self):
        self.stop.wait(10)

    def send_zipped(self):
        self.answer(Content_Encoding="gzip", Content_Length=3)
        self.wfile.write(b"abc")

    def send_missing(self):
        self.answer(404, Content_Length=0)

    def send_forbidden(self):
        self.answer(403, Content_Length=0)

    def send_odd(self):
        self.answer(599, Content_Length=0)

    def send_moved(self):
        self.answer(302, Location="/whole", Content_Length=0)

    def send_circle(self):
        self.answer(302, Location="/circle", Content_Length=0)

    def send_file(self):
        self.answer(302, Location="file:///etc/passwd", Content_Length=0)

    def send_ftp(self):
        self.answer(302, Location="ftp://127.0.0.1/a", Content_Length=0)

    def send_nonsense(self):
        self.wfile.write(b"\0\1\2 this is no answer\r\n")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    Handler.stop.clear()

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, *arguments):
            """Readers that go away are meant here."""

    with Server(("127.0.0.1", 0), Handler) as made:
        made.asked = []
        made.url = f"http://127.0.0.1:{made.server_address[1]}"
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        Handler.stop.set()
        made.shutdown()
        thread.join()


def fetch(url, folder, **options):
    return download(url, folder, **{"limit": 10**7, "timeout": 5, **options})


def test_what_is_an_address():
    assert all(map(is_url, ["http://a/b", "HTTPS://a", "https://u:p@a/b?c"]))
    assert not any(map(is_url, ["a.zip", "/http/a", "file:///etc/passwd", "ftp://a/b", "http:a", b"http://a", None, 3]))


@pytest.mark.parametrize("path", ["whole", "unsized", "chunked", "moved"])
def test_whole(server, tmp_path, path):
    told = []
    file = fetch(f"{server.url}/{path}", tmp_path, limit=len(CONTENT), progress=lambda *each: told.append(each))
    assert file.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [file]  # under a name of our own
    assert "evil" not in file.name
    whole = len(CONTENT) if path in ("whole", "moved") else None
    assert told[-1] == (len(CONTENT), whole)
    assert [n for n, _ in told] == sorted({n for n, _ in told})
    assert fetch(f"{server.url}/whole", tmp_path) != file


def test_nothing_in_it(server, tmp_path):
    assert fetch(f"{server.url}/empty", tmp_path).read_bytes() == b""


REFUSED = {
    "missing": "answers 404 Not Found",
    "forbidden": "answers 403 Forbidden",
    "odd": "answers 599",
    "short": "cut short: 1200000 of 2500000 bytes",
    "chunkedshort": "cut short",
    "large": r"has 909 TiB, more than the 9\.54 MiB allowed",
    "zipped": "comes compressed by 'gzip'",
    "file": "leads to no address of the web",
    "ftp": "leads to no address of the web",
    "circle": "answers 302 Found and leads to .* or in a circle",
    "nonsense": "cannot be downloaded",
}


@pytest.mark.parametrize("path", REFUSED)
def test_refused(server, tmp_path, path):
    with pytest.raises(InputError, match=REFUSED[path]) as refused:
        fetch(f"{server.url}/{path}", tmp_path)
    assert refused.value.problems[0].where == f"{server.url}/{path}"
    assert refused.value.problems[0].remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["whole", "unsized", "chunked", "endless"])
def test_larger_than_allowed(server, tmp_path, path):
    with pytest.raises(InputError, match=r"more than the .* allowed"):
        fetch(f"{server.url}/{path}", tmp_path, limit=len(CONTENT) - 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["stalled", "silent"])
def test_nothing_comes(server, tmp_path, path):
    start = time.monotonic()
    with pytest.raises(InputError, match=r"sent nothing for 0\.2 seconds"):
        fetch(f"{server.url}/{path}", tmp_path, timeout=0.2)
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"cannot be reached \(Connection refused\)"):
        fetch(f"http://127.0.0.1:{port}/a", tmp_path)
    with pytest.raises(InputError, match="control characters"):
        fetch("http://a host that is none.invalid/a", tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "http://", "http://[::1", "a.zip", "http://h:x/a"])
def test_no_address(tmp_path, url):
    with pytest.raises(InputError, match=r"is no address of the web|cannot be"):
        fetch(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_sent_to_their_host_and_not_told(server, tmp_path):
    url = server.url.replace("//", "//some%20one:s%40cret@")
    fetch(f"{url}/moved?key=hidden#part", tmp_path)
    (first, headers), (second, others) = server.asked
    assert (first, second) == ("/moved?key=hidden", "/whole")
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"some one:s@cret"
    assert "Authorization" not in others
    with pytest.raises(InputError) as refused:
        fetch(f"{url}/forbidden?key=hidden#part", tmp_path)
    assert str(refused.value).startswith(f"{server.url}/forbidden: answers 403")
    assert shown("https://u:p@h/a?b#c") == "https://h/a"


def test_interrupted(server, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/whole", tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []
