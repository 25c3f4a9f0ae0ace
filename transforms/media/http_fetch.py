"""Media by http(s), from hosts that are named, and from nowhere inside the network.

The address that a host's name leads to is looked up once and checked, and the connection is made to that very address:
a name that changes what it leads to in between gains nothing. Redirects are followed a few times, each checked in the
same way. No cookies, credentials or proxies.
"""

import contextlib
import http.client
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from transforms.media.media_files import MediaError, MediaLimits

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_MAX_REDIRECTS = 5
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 20.0
_PIECE_BYTES = 1 << 18
_HEADERS = {"User-Agent": "fusefeed", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?(?::[0-9]{1,5})?")
# IPv4 addresses inside IPv6 ones: RFC 6052, section 2.1.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], Sequence[str]]


class _Place(NamedTuple):
    """Parsed parts of a URL."""

    scheme: str
    host: str
    port: int
    path: str


def check_hosts(hosts: Sequence[str]) -> None:
    """Checks names of hosts: `media.example.org`, `*.example.org` (what is below it), each also with `:PORT`.

    Raises:
      ValueError: one is no such name.
    """
    for host in hosts:
        if not _HOST.fullmatch(host.lower()):
            raise ValueError(f"--allow_media_host must be HOST, *.DOMAIN, HOST:PORT or *.DOMAIN:PORT, got {host!r}")


def is_http(uri: str) -> bool:
    """True if a URI is to be fetched by http(s)."""
    return uri[:8].lower().startswith(("http://", "https://"))


def is_public(address: str) -> bool:
    """True if an IP address is public: not private, loopback, link-local (cloud metadata), ..."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in _NAT64:
            inner.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
        if any(each is not None and not is_public(str(each)) for each in inner):
            return False
        if found.is_site_local or int(found) >> 32 == 0:
            return False
    return (found.is_global or _is_mapped(found)) and not (found.is_multicast or found.is_unspecified)


def _is_mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def fetch(
    url: str,
    hosts: Sequence[str],
    limits: MediaLimits,
    resolve: Resolve = resolve,
    is_public: Callable[[str], bool] = is_public,
) -> bytes:
    """The bytes behind a URL, never more than `limits.max_bytes`.

    Args:
      url: http:// or https://.
      hosts: the hosts that may be asked, as `check_hosts` takes them.
      limits: how many bytes, and how many seconds.
      resolve: finds the addresses of a host.
      is_public: predicate of addresses that may be connected to.

    Raises:
      MediaError: media_uri_invalid, media_host_not_allowed, media_address_private, media_missing, media_http_failed,
        media_timeout, media_empty or media_too_large.
    """
    deadline = time.monotonic() + limits.max_fetch_seconds
    for _ in range(_MAX_REDIRECTS + 1):
        place = _parse(url)
        if not _is_allowed(place, hosts):
            raise MediaError("media_host_not_allowed", "the host is not among --allow_media_host")
        found = _get(place, _addresses(place, resolve, is_public, deadline), limits.max_bytes, deadline)
        if isinstance(found, bytes):
            if not found:
                raise MediaError("media_empty", "the file has no bytes")
            return found
        url = urllib.parse.urljoin(url, found.location)
        if place.scheme == "https" and not url.lower().startswith("https://"):
            raise MediaError("media_http_failed", "a redirect from https to something else")
    raise MediaError("media_http_failed", f"more than {_MAX_REDIRECTS} redirects")


class _Redirect(NamedTuple):
    location: str


def _by(deadline: float, find: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Result of a function that takes no timeout (the system's resolver).

    A thread does it, that is left to itself when time is up; the resolver gives up on its own, later.
    """
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(find())
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        found = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise MediaError("media_timeout", "finding the host's addresses takes too long") from None
    if isinstance(found, Exception):
        raise found
    return found


def _parse(url: str) -> _Place:
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip("."), parts.port
        if scheme not in _PORTS or not host or "@" in parts.netloc or len(url) > 4096:
            raise ValueError
        # Control characters and spaces would end the request line or begin another one.
        path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
        name = host if ":" in host else host.encode("idna").decode("ascii").lower()
    except ValueError as error:
        raise MediaError("media_uri_invalid", "no URL of a host and a path") from error
    return _Place(scheme, name, port or _PORTS[scheme], path + (f"?{query}" if query else ""))


def _is_allowed(place: _Place, hosts: Sequence[str]) -> bool:
    for entry in hosts:
        name, _, port = entry.lower().partition(":")
        if place.port != (int(port) if port else _PORTS[place.scheme]):
            continue
        if place.host == name or (name.startswith("*.") and place.host.endswith(name[1:])):
            return True
    return False


def _addresses(place: _Place, resolve: Resolve, is_public: Callable[[str], bool], deadline: float) -> Sequence[str]:
    """The host's addresses, all of which must be public."""
    try:
        found = _by(deadline, lambda: resolve(place.host, place.port))
    except (OSError, UnicodeError) as error:
        raise MediaError("media_http_failed", "the host's name leads nowhere") from error
    if not found:
        raise MediaError("media_http_failed", "the host's name leads nowhere")
    if not all(is_public(address) for address in found):
        raise MediaError("media_address_private", "the host's name leads to an address inside the network")
    return found


def _get(place: _Place, addresses: Sequence[str], max_bytes: int, deadline: float) -> bytes | _Redirect:
    try:
        with _connected(place, addresses, deadline) as connection:
            connection.request("GET", place.path, headers=_HEADERS)
            return _read(connection.getresponse(), max_bytes, deadline)
    except TimeoutError as error:
        raise MediaError("media_timeout", "the host takes too long") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise MediaError("media_timeout", "the host takes too long") from error
        raise MediaError("media_http_failed", f"the exchange failed ({type(error).__name__})") from error


@contextlib.contextmanager
def _connected(place: _Place, addresses: Sequence[str], deadline: float) -> Iterator[http.client.HTTPConnection]:
    """A connection to the first address that answers, cut off at the deadline whatever it is doing then."""
    stream = _connect(place, addresses, deadline)
    stream.settimeout(_READ_SECONDS)
    if place.scheme == "https":
        context = ssl.create_default_context()
        stream = context.wrap_socket(stream, server_hostname=place.host, do_handshake_on_connect=False)
    # Timeouts of a socket begin anew with every byte; the deadline does not.
    guard = threading.Timer(max(deadline - time.monotonic(), 0), _cut, [stream])
    guard.daemon = True
    guard.start()
    try:
        if isinstance(stream, ssl.SSLSocket):
            stream.do_handshake()
        connection = http.client.HTTPConnection(place.host, place.port)
        connection.sock = stream
        yield connection
    finally:
        guard.cancel()
        stream.close()


def _connect(place: _Place, addresses: Sequence[str], deadline: float) -> socket.socket:
    failure: OSError = TimeoutError()
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((address, place.port), timeout=min(_CONNECT_SECONDS, left))
        except OSError as error:
            failure = error
    raise failure


def _cut(stream: socket.socket) -> None:
    # Not the method of a socket with TLS, which changes what the other thread is using.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(stream, socket.SHUT_RDWR)


def _read(response: http.client.HTTPResponse, max_bytes: int, deadline: float) -> bytes | _Redirect:
    if response.status in _REDIRECTS:
        location = response.headers.get("Location")
        if not location:
            raise MediaError("media_http_failed", "a redirect to nowhere")
        return _Redirect(location)
    if response.status in _GONE:
        raise MediaError("media_missing", f"the host answers {response.status}")
    if response.status != 200:
        raise MediaError("media_http_failed", f"the host answers {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaError("media_http_failed", "the host sends an encoding that was not requested")
    if (response.length or 0) > max_bytes:
        raise MediaError("media_too_large", f"the file has {response.length} bytes, the limit is {max_bytes}")
    pieces, size = [], 0
    while piece := response.read1(_PIECE_BYTES):
        size += len(piece)
        if size > max_bytes:
            raise MediaError("media_too_large", f"the file has more than {max_bytes} bytes")
        pieces.append(piece)
    if time.monotonic() >= deadline:
        raise MediaError("media_timeout", "the host takes too long")
    if response.length:
        raise MediaError("media_http_failed", "the host ends before the file does")
    return b"".join(pieces)
