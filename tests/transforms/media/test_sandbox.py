import gc
import io
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.transforms.media import media_fixtures as made
from transforms.media.decode import Medium, decode_medium
from transforms.media.media_files import MediaError, MediaLimits
from transforms.media.sandbox import IsolatedDecoder
from transforms.media.sandbox_protocol import BadMessageError, arrays_of, describe_arrays, read_message, write_message

ROGUE = (sys.executable, "-P", str(Path(__file__).with_name("rogue_decoder.py")))
LIMITS = MediaLimits(max_decode_seconds=1.5, max_decode_mib=128)
PIXELS = {"image": False}


def _outcomes(decoder: IsolatedDecoder, files: Sequence[bytes]) -> list[object]:
    """Of each file its reject code, or the level of the gray pixel that a rogue decoder makes of its length."""
    found = list(decoder.decode((number, Medium("image", data)) for number, data in enumerate(files)))
    assert [tag for tag, _ in found] == list(range(len(files)))
    return [result.code if isinstance(result, MediaError) else int(result["image"].flat[0]) for _, result in found]


@pytest.fixture
def rogue() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(PIXELS, LIMITS, ROGUE)
    yield decoder
    decoder.close()


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("abort", "decoder_crashed"),
        ("exit", "decoder_crashed"),
        ("junk", "decoder_crashed"),
        ("type", "decoder_crashed"),
        ("hang", "decoder_timeout"),
        ("spin", "decoder_timeout"),
        ("eat", "decoder_memory"),
        ("throw", "decoder_memory"),
        ("noise", "decoder_crashed"),
    ],
)
def test_a_decoder_gone_wrong_costs_its_file_and_no_other(rogue: IsolatedDecoder, word: str, code: str) -> None:
    files = [b"fine 1", b"fine 12", word.encode(), b"fine 123", word.encode() + b" ", b"fine"]
    assert _outcomes(rogue, files) == [6, 7, code, 8, code, 4]
    # The worker lives on, with a process that is none of those before.
    assert _outcomes(rogue, [b"fine 12"]) == [7]
    assert rogue.num_started > 2


def test_what_an_earlier_file_has_spoilt_is_not_held_against_a_later_one(rogue: IsolatedDecoder) -> None:
    assert _outcomes(rogue, [b"spoil", b"frail", b"fine"]) == [5, 5, 4]
    assert rogue.num_started == 2
    # 24 MiB each are too much together, not one by one.
    assert _outcomes(rogue, [b"leak"] * 12) == [4] * 12
    assert rogue.num_started > 2


def test_what_libraries_say_holds_nobody_up_and_hides_no_last_words(rogue: IsolatedDecoder) -> None:
    assert _outcomes(rogue, [b"chatty", b"fine"]) == [6, 4]
    assert rogue.num_started == 1
    assert _outcomes(rogue, [b"fine", b"throw", b"fine"]) == [4, "decoder_memory", 4]


def test_the_process_opens_nothing_and_says_nothing(rogue: IsolatedDecoder, capfd: pytest.CaptureFixture[str]) -> None:
    assert _outcomes(rogue, [b"open", b"connect", b"write", b"fine"]) == ["media_failed", "media_failed", 5, 4]
    assert "post content" not in capfd.readouterr().err


def test_files_are_read_while_others_are_decoded(rogue: IsolatedDecoder) -> None:
    log: list[str] = []

    def media() -> Iterator[tuple[int, Medium]]:
        for number in range(48):
            log.append(f"read {number}")
            yield number, Medium("image", b"fine")

    for number, _ in rogue.decode(media()):
        log.append(f"got {number}")
    # The second group of 16 is read before the first is waited for; never more than two are held.
    assert log.index("read 31") < log.index("got 0") < log.index("read 32") < log.index("got 16")


def test_every_file_has_the_time_for_itself(rogue: IsolatedDecoder) -> None:
    began = time.monotonic()
    assert _outcomes(rogue, [b"wait"] * 8 + [b"hang"]) == [4] * 8 + ["decoder_timeout"]
    assert time.monotonic() - began > 8 * 0.2 + 1.5  # Each file has the limit for itself.


def test_results_nobody_waits_for_are_not_taken_for_later_ones(rogue: IsolatedDecoder) -> None:
    waiting = rogue.decode((number, Medium("image", b"fine 1234")) for number in range(40))
    next(waiting)
    waiting.close()
    assert _outcomes(rogue, [b"fine"]) == [4]


def test_the_process_ends_with_whoever_uses_it() -> None:
    decoder = IsolatedDecoder(PIXELS, LIMITS, ROGUE)
    assert _outcomes(decoder, [b"fine"]) == [4]
    assert decoder._child is not None
    closed = decoder._child.process
    assert closed.poll() is None
    decoder.close()
    assert closed.poll() is not None
    assert _outcomes(decoder, [b"fine"]) == [4]
    left = decoder._child.process
    del decoder
    gc.collect()
    assert left.poll() is not None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_process_ends_with_a_worker_that_is_killed() -> None:
    script = (
        "import os, signal, sys\n"
        "from transforms.media.decode import Medium\n"
        "from transforms.media.sandbox import IsolatedDecoder\n"
        "from transforms.media.media_files import MediaLimits\n"
        f"decoder = IsolatedDecoder({PIXELS}, MediaLimits(max_decode_seconds=2.0), {ROGUE})\n"
        "for _ in decoder.decode([(0, Medium('image', b'fine'))]): pass\n"
        "decoder._send([Medium('image', b'hang')])\n"
        "print(decoder.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert ended.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while Path(f"/proc/{int(ended.stdout)}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{int(ended.stdout)}/exe").exists()


def test_a_process_that_does_not_start_is_no_fault_of_the_files() -> None:
    decoder = IsolatedDecoder(PIXELS, LIMITS, (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(RuntimeError, match=r"the decoder process does not start \(exit code 3\)"):
        _outcomes(decoder, [b"fine"])


def _lab_tiff() -> bytes:
    """A picture that Pillow converts with a module which it imports only then."""
    stream = io.BytesIO()
    Image.new("LAB", (8, 8), (128, 20, 30)).save(stream, "TIFF")
    return stream.getvalue()


def test_isolated_results_are_those_of_the_worker_itself() -> None:
    picture, clip = made.clouds(), made.movie(made.moving_box(12), made.tone())
    files = [
        ("image", made.encoded(picture, ".jpg")),
        ("image", made.encoded(picture, ".webp")),
        ("image", made.encoded(picture, ".avif")),
        ("image", made.encoded(picture, ".jp2")),
        ("image", b"no picture"),
        ("image", _lab_tiff()),
        ("video", clip),
        ("video", made.movie(made.moving_box(12), container="webm", codec="libvpx")),
        ("audio", made.movie([], made.tone(), "ogg")),
        ("audio", made.wav(made.tone())),
        ("audio", clip),
    ]
    wanted = {"image": True, "video": True, "audio": False}
    limits = MediaLimits()
    decoder = IsolatedDecoder(wanted, limits)
    found = dict(decoder.decode((number, Medium(*file)) for number, file in enumerate(files)))
    decoder.close()
    for number, (kind, data) in enumerate(files):
        result = found[number]
        if isinstance(result, MediaError):
            with pytest.raises(MediaError, match=str(result)):
                decode_medium(kind, data, limits, wanted)
            continue
        expected = decode_medium(kind, data, limits, wanted)
        assert result.keys() == expected.keys()
        assert all(np.array_equal(result[name], expected[name]) for name in result), number
    assert [number for number, result in found.items() if isinstance(result, MediaError)] == [4]


@pytest.mark.parametrize("ending", [".png", ".ppm", ".webp"])
def test_a_picture_that_needs_more_memory_than_there_is_says_so(ending: str) -> None:
    data = made.encoded(np.zeros((4000, 5000, 3), np.uint8), ending)
    decoder = IsolatedDecoder({"image": True}, MediaLimits(max_decode_mib=64))
    ((_, result),) = decoder.decode([(0, Medium("image", data))])
    decoder.close()
    assert isinstance(result, MediaError) and result.code == "decoder_memory"


def test_files_that_wait_do_not_count_against_the_limit_of_memory() -> None:
    small = made.encoded(made.clouds(), ".bmp")
    decoder = IsolatedDecoder({"image": True}, MediaLimits(max_decode_mib=24))
    # BMP ignores what follows its picture.
    found = list(decoder.decode((number, Medium("image", small + bytes(7 << 20))) for number in range(6)))
    decoder.close()
    assert decoder.num_started == 1
    assert not [result for _, result in found if isinstance(result, MediaError)]


def test_strips_come_out_no_longer_than_networks_need() -> None:
    strip = made.encoded(np.zeros((10, 9000, 3), np.uint8), ".png")
    assert decode_medium("image", strip, MediaLimits(), {"image": False})["image"].shape == (10, 2048, 3)


def test_messages_bring_back_what_was_written() -> None:
    stream = io.BytesIO()
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(5, dtype=np.uint8)}
    write_message(stream, {"arrays": describe_arrays(arrays)}, *arrays.values())
    stream.seek(0)
    message = read_message(stream, 100)
    assert message is not None
    found = arrays_of(message[0]["arrays"], message[1])
    assert all(np.array_equal(found[name], arrays[name]) and found[name].dtype == arrays[name].dtype for name in arrays)
    assert read_message(stream, 100) is None


@pytest.mark.parametrize(
    "described",
    [
        None,
        {},
        [["a", "f4"]],
        [["a", "f4", []]],
        [["a", "O8", [1]]],
        [["a", "f4", [-1]]],
        [["a", "f4", [True]]],
        [["a", "f4", [1 << 31, 1 << 31, 1 << 31]]],
        [["a", "f4", [3]]],
        [["a", "f4", [1]]],
        [["a", "u1", [1, 1, 1, 8]]],
        [[1, "u1", [8]]],
    ],
)
def test_arrays_that_are_not_in_the_message_are_refused(described: object) -> None:
    with pytest.raises(BadMessageError):
        arrays_of(described, b"12345678")


@pytest.mark.parametrize(
    "data", [struct.pack("<IQ", 1 << 30, 0), struct.pack("<IQ", 2, 101) + b"{}", struct.pack("<IQ", 2, 0) + b"[]"]
)
def test_messages_out_of_bounds_are_refused_before_they_are_read(data: bytes) -> None:
    with pytest.raises(BadMessageError):
        read_message(io.BytesIO(data), 100)
