import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from transforms.media.decode import read_uri
from transforms.media.http_fetch import check_hosts, fetch, is_public
from transforms.media.media_files import MediaError, MediaLimits

LIMITS = MediaLimits(max_bytes=1000, max_fetch_seconds=20.0)
NAME = "media.example"


class _Handler(BaseHTTPRequestHandler):
    """Answers by the path; remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        word, _, rest = self.path.strip("/").partition("/")
        if word == "bytes":
            self._answer(200, b"x" * int(rest))
        elif word == "endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b"x" * 100)
        elif word == "short":
            self.send_response(200)
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b"x" * 100)
            self.close_connection = True
        elif word == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif word == "packed":
            self._answer(200, b"x", {"Content-Encoding": "gzip"})
        elif word == "cookie":
            self._answer(302, b"", {"Location": "/bytes/3", "Set-Cookie": "id=1"})
        elif word == "to":
            self._answer(302, b"", {"Location": rest.replace("%7C", "/")} if rest else {})
        elif word == "loop":
            self._answer(301, b"", {"Location": f"/loop/{int(rest) - 1}" if rest != "0" else "/bytes/3"})
        else:
            self._answer(int(word), b"no")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self) -> None:
        # The other side may have hung up.
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


Fetch = Callable[..., bytes]


@pytest.fixture
def port() -> Iterator[int]:
    _Handler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def get(port: int) -> Fetch:
    """Fetches a path of the local server, which is reached as media.example and taken for public."""

    def get(path: str, limits: MediaLimits = LIMITS) -> bytes:
        hosts = [f"{NAME}:{port}"]
        return fetch(f"http://{NAME}:{port}{path}", hosts, limits, lambda *_: ["127.0.0.1"], lambda _: True)

    return get


def test_a_file_of_a_named_host_is_fetched_and_nothing_is_told(get: Fetch, port: int) -> None:
    assert get("/bytes/1000") == b"x" * 1000
    assert get("/cookie") == b"xxx"
    asked = dict(_Handler.asked)
    assert asked["/bytes/3"]["Host"] == f"{NAME}:{port}"
    sent = {name.lower() for _, headers in _Handler.asked for name in headers}
    assert sent == {"host", "user-agent", "accept", "accept-encoding", "connection"}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/bytes/0", "media_empty"),
        ("/bytes/1001", "media_too_large"),
        ("/endless", "media_too_large"),
        ("/short", "media_http_failed"),
        ("/packed", "media_http_failed"),
        ("/404", "media_missing"),
        ("/410", "media_missing"),
        ("/403", "media_http_failed"),
        ("/500", "media_http_failed"),
        ("/to/", "media_http_failed"),
        ("/loop/9", "media_http_failed"),
        ("/to/http:||other.example|x", "media_host_not_allowed"),
        ("/to/http:||127.0.0.1|x", "media_host_not_allowed"),
        ("/to/file:|||etc|passwd", "media_uri_invalid"),
        ("/to/gopher:||media.example|x", "media_uri_invalid"),
    ],
)
def test_what_hosts_may_do_wrong(get: Fetch, path: str, code: str) -> None:
    with pytest.raises(MediaError) as caught:
        get(path)
    assert caught.value.code == code


def test_a_few_redirects_are_followed(get: Fetch) -> None:
    assert get("/loop/4") == b"xxx"
    assert get("/to/|bytes|7") == b"x" * 7


def test_a_host_that_drips_is_left_at_the_limit(get: Fetch) -> None:
    with pytest.raises(MediaError, match="media_timeout"):
        get("/drip", MediaLimits(max_fetch_seconds=0.5))


def test_a_host_that_says_nothing_is_left_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(MediaError, match="media_timeout"):
            fetch(
                f"http://{NAME}:{port}/",
                [f"{NAME}:{port}"],
                MediaLimits(max_fetch_seconds=0.3),
                lambda *_: ["127.0.0.1"],
                lambda _: True,
            )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for media.example, signed by itself, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={NAME}"
    words += f" -addext subjectAltName=DNS:{NAME} -keyout {path} -out {path}.crt"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def test_https_wants_the_host_s_certificate_and_keeps_to_the_limit(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

        def get(name: str, path: str, seconds: float = 20.0) -> bytes:
            place = f"{name}:{server.server_port}"
            limits = MediaLimits(max_fetch_seconds=seconds)
            return fetch(f"https://{place}{path}", [place], limits, lambda *_: ["127.0.0.1"], lambda _: True)

        with pytest.raises(MediaError, match=r"media_http_failed.*SSLCertVerificationError"):
            get(NAME, "/bytes/3")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(NAME, "/bytes/3") == b"xxx"
        with pytest.raises(MediaError, match=r"media_http_failed.*SSLCertVerificationError"):
            get("other.example", "/bytes/3")
        with pytest.raises(MediaError, match="a redirect from https"):
            get(NAME, f"/to/http:||{NAME}|bytes|3")
        with pytest.raises(MediaError, match="media_timeout"):
            get(NAME, "/drip", 0.5)
        server.shutdown()


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:127.0.0.1"]])
def test_a_name_that_leads_inside_is_refused_without_connecting(port: int, found: Sequence[str]) -> None:
    with pytest.raises(MediaError, match="media_address_private"):
        fetch(f"http://{NAME}:{port}/bytes/3", [f"{NAME}:{port}"], LIMITS, lambda *_: found)
    assert not _Handler.asked


def test_a_redirect_is_looked_up_and_checked_anew(port: int) -> None:
    hosts = [f"{NAME}:{port}", f"evil.example:{port}"]
    inside = {NAME: "127.0.0.1", "evil.example": "127.0.0.2"}
    with pytest.raises(MediaError, match="media_address_private"):
        fetch(
            f"http://{NAME}:{port}/to/http:||evil.example:{port}|bytes|3",
            hosts,
            LIMITS,
            lambda host, _: [inside[host]],
            lambda address: address != "127.0.0.2",
        )
    assert [path for path, _ in _Handler.asked] == [f"/to/http:%7C%7Cevil.example:{port}%7Cbytes%7C3"]


def test_the_connection_goes_to_the_address_that_was_checked(port: int) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.9"]])
    checked = []

    def is_fine(address: str) -> bool:
        checked.append(address)
        return True

    url = f"http://{NAME}:{port}/bytes/3"
    assert fetch(url, [f"{NAME}:{port}"], LIMITS, lambda *_: next(answers), is_fine) == b"xxx"
    assert checked == ["127.0.0.1"]


def test_a_name_that_leads_nowhere() -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror

    with pytest.raises(MediaError, match="media_http_failed"):
        fetch(f"http://{NAME}/", [NAME], LIMITS, resolve)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("::ffff:93.184.215.14", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("198.18.0.1", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) == public


@pytest.mark.parametrize(
    ("url", "hosts", "allowed"),
    [
        ("https://a.example/x", ["a.example"], True),
        ("https://A.Example./x", ["a.example"], True),
        ("https://a.example:443/x", ["A.EXAMPLE"], True),
        ("http://b.a.example/x", ["*.a.example"], True),
        ("http://a.example:8080/x", ["a.example:8080"], True),
        ("http://bücher.example/x", ["xn--bcher-kva.example"], True),
        ("http://a.example/x", ["*.a.example"], False),
        ("http://ba.example/x", ["*.a.example"], False),
        ("http://a.example.evil.example/x", ["a.example"], False),
        ("http://a.example:8080/x", ["a.example"], False),
        ("http://a.example/x", ["a.example:8080"], False),
        ("http://evil.example#a.example/x", ["a.example"], False),
        ("http://evil.example\\a.example/x", ["a.example"], False),
    ],
)
def test_which_hosts_are_named(url: str, hosts: Sequence[str], allowed: bool) -> None:
    with pytest.raises(MediaError) as caught:
        fetch(url, hosts, LIMITS, lambda *_: ["127.0.0.1"])
    assert (caught.value.code == "media_address_private") == allowed
    assert caught.value.code in ("media_address_private", "media_host_not_allowed", "media_uri_invalid")


@pytest.mark.parametrize(
    "url",
    [
        "http://user@a.example/x",
        "http://user:word@a.example/x",
        "http://evil.example@a.example/x",
        "http:///x",
        "http://a.example:99999/x",
        "http://a.example:x/x",
        "http://[::1/x",
        "http://" + "a" * 80 + ".example/",
        "http://a.example/" + "x" * 5000,
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(MediaError, match="media_uri_invalid"):
        fetch(url, ["a.example"], LIMITS, lambda *_: ["127.0.0.1"])


def test_characters_that_would_end_the_request_line_do_not(get: Fetch) -> None:
    with pytest.raises(MediaError, match="media_http_failed"):
        get("/403/a b\r\nX-Evil: 1?q=ä b")
    path, headers = _Handler.asked[-1]
    assert "X-Evil" not in headers and " " not in path and path.isascii()


@pytest.mark.parametrize("host", ["*", "*.", "http://a.example", "a.example/x", "a b", "", "*.*.example", "a:port"])
def test_hosts_are_checked(host: str) -> None:
    with pytest.raises(ValueError, match="--allow_media_host must be HOST"):
        check_hosts([host])
    check_hosts(["a.example", "*.b.example", "localhost:8000"])


def test_entries_are_fetched_only_where_a_host_is_named() -> None:
    for hosts, code in [
        ([], "media_scheme_not_allowed"),
        (["a.example"], "media_host_not_allowed"),
        (["127.0.0.1"], "media_address_private"),
    ]:
        with pytest.raises(MediaError, match=code):
            read_uri("http://127.0.0.1/a.jpg", [], hosts, LIMITS)


def test_a_resolver_that_does_not_answer_has_a_deadline() -> None:
    answered = threading.Event()

    def resolve(host: str, port: int) -> Sequence[str]:
        answered.wait(30)
        return ["192.0.2.1"]

    limits = MediaLimits(max_fetch_seconds=0.2)
    with pytest.raises(MediaError, match="media_timeout"):
        fetch(f"http://{NAME}/bytes/3", [NAME], limits, resolve=resolve, is_public=lambda address: True)
    answered.set()
