"""The importers, run as a reader would: on tiny folders made here, and on the real data where it is there."""

import csv
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """Three films; the first stands twice, first without its plot."""
    source = tmp_path / "movies"
    (source / "posters").mkdir(parents=True)
    (source / "posters/7.jpg").write_bytes(b"any bytes")
    (source / "posters/99.jpg").write_bytes(b"a poster of no film")
    names = ["movie_id", "title", "genre_unknown", "Comedy", "SciFi", "year", "overview", "original_language"]
    rows = [
        ["7", "Añejo (1931)", "0", "1", "1", "1931", "", "es"],
        ["8", "No Genre (1999)", "1", "0", "0", "1999", 'A "plot", with\na line break', "en"],
        ["7", "Añejo (1931)", "0", "1", "1", "1931", "Something happens.", "es"],
        ["9", "unknown", "0", "0", "0", "nan", "", ""],
    ]
    with (source / "items.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    (source / "ratings.csv").write_text("user_id,movie_id,rating,unix_timestamp\n3,7,4,881250949\n1,8,1,891717742\n")
    return source


def test_ml100k(movies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out put"
    done = run("import_ml100k.py", movies, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 posts of 4 rows (1 repeated an id)" in done.stdout
    assert f"next: fusefeed run --posts '{out}/posts.jsonl' --interactions '{out}/interactions.parquet'" in done.stdout
    first, second, third = read_lines(out / "posts.jsonl")
    assert first == {
        "post_id": "7",
        "text": "Añejo (1931)\nSomething happens.",
        "created_at": "1931-01-01T00:00:00Z",
        "hashtags": ["Comedy", "SciFi"],
        "media": [{"kind": "image", "uri": "posters/7.jpg"}],
    }
    assert second["text"] == 'No Genre (1999)\nA "plot", with\na line break'
    assert not {"hashtags", "media"} & set(second)
    assert third == {"post_id": "9", "text": "unknown"}
    assert pq.read_table(out / "interactions.parquet").to_pylist()[0] == {
        "user_id": "3",
        "post_id": "7",
        "kind": "rating",
        "created_at": datetime.datetime(1997, 12, 4, 15, 55, 49, tzinfo=datetime.UTC),
        "value": 4.0,
    }


@pytest.fixture
def artists(tmp_path: Path) -> Path:
    source = tmp_path / "artists"
    source.mkdir()
    for name, width in (("all-MiniLM-L6-v2", 3), ("vggish", 2), ("whisper", 4)):
        np.save(source / f"{name}.npy", np.arange(2 * width, dtype=np.float64).reshape(2, width) / 7)
    (source / "lfm2k.inter").write_text("userID\titemID\trating\tx_label\n5\t0\t1\t0\n5\t1\t1\t2\n6\t1\t1\t0\n")
    return source


def test_lfm2k(artists: Path, tmp_path: Path) -> None:
    done = run("import_lfm2k.py", artists, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 posts with vectors {'minilm': 3, 'vggish': 2, 'whisper': 4}" in done.stdout
    posts = pq.read_table(tmp_path / "out/posts.parquet").to_pylist()
    assert [post["post_id"] for post in posts] == ["0", "1"]
    np.testing.assert_allclose(posts[1]["vectors"]["minilm"], np.array([3, 4, 5]) / 7, rtol=1e-6)
    np.testing.assert_allclose(posts[0]["vectors"]["whisper"], np.array([0, 1, 2, 3]) / 7, rtol=1e-6)
    interactions = pq.read_table(tmp_path / "out/interactions.parquet").to_pylist()
    assert interactions[1] == {"user_id": "5", "post_id": "1", "kind": "like"}
    assert len(interactions) == 3


@pytest.mark.parametrize(
    ("split", "pairs"), [("train", [("5", "0"), ("6", "1")]), ("test", [("5", "1")]), ("valid", [])]
)
def test_lfm2k_split(artists: Path, tmp_path: Path, split: str, pairs: list[tuple[str, str]]) -> None:
    assert run("import_lfm2k.py", artists, tmp_path / "out", "--split", split).returncode == 0
    table = pq.read_table(tmp_path / "out/interactions.parquet")
    assert list(zip(table["user_id"].to_pylist(), table["post_id"].to_pylist(), strict=True)) == pairs


def test_media_posts(tmp_path: Path) -> None:
    source = tmp_path / "media"
    for name in ("image/a b#1.jpg", "set/video/ü.mp4", "audio/image/x.png", "audio/t.wav", "README.md", "image.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"")
    for out in ("one", "two"):
        done = run("media_posts.py", source, tmp_path / out)
        assert (done.returncode, done.stderr) == (0, "")
    assert "4 posts (2 image, 1 video, 1 audio); 2 other files left out" in done.stdout
    posts = read_lines(tmp_path / "one/posts.jsonl")
    assert [(post["post_id"], post["media"]) for post in posts] == [
        (uri, [{"kind": kind, "uri": uri}])
        for kind, uri in (
            ("image", "audio/image/x.png"),
            ("audio", "audio/t.wav"),
            ("image", "image/a b#1.jpg"),
            ("video", "set/video/ü.mp4"),
        )
    ]
    likes = read_lines(tmp_path / "one/interactions.jsonl")
    assert {like["post_id"] for like in likes} == {post["post_id"] for post in posts}
    for name in ("posts.jsonl", "interactions.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import_ml100k.py", "source_dir must hold items.csv, found none in"),
        ("import_lfm2k.py", "source_dir must hold lfm2k.inter, found none in"),
        ("media_posts.py", "source_media_dir must hold files in folders named image, video or audio, found none in"),
    ],
)
def test_wrong_arguments_exit_with_2_and_one_line(tmp_path: Path, script: str, message: str) -> None:
    for arguments in ([tmp_path, tmp_path / "out"], [tmp_path], [tmp_path, tmp_path / "out", "--nope"]):
        done = run(script, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(f"{script}: ")
    assert message in run(script, tmp_path, tmp_path / "out").stderr
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_exits_with_2(movies: Path, artists: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "media/image").mkdir(parents=True)
    (tmp_path / "media/image/a.jpg").write_bytes(b"")
    for script, source in (
        ("import_ml100k.py", movies),
        ("import_lfm2k.py", artists),
        ("media_posts.py", tmp_path / "media"),
    ):
        done = run(script, source, tmp_path / "file")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "cannot write to output_dir" in done.stderr


def test_damaged_sources_exit_with_2(movies: Path, artists: Path, tmp_path: Path) -> None:
    (movies / "ratings.csv").write_text("user,item\n1,2\n")
    np.save(artists / "vggish.npy", np.zeros((3, 2)))
    for script, source in (("import_ml100k.py", movies), ("import_lfm2k.py", artists)):
        done = run(script, source, tmp_path / "out")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "does not look like" in done.stderr


def test_ml100k_real(shared_data: Path, tmp_path: Path) -> None:
    assert run("import_ml100k.py", shared_data / "ml100k", tmp_path).returncode == 0
    posts = read_lines(tmp_path / "posts.jsonl")
    assert len({post["post_id"] for post in posts}) == len(posts) == 1682
    assert sum("media" in post for post in posts) == 1663
    ratings = pq.read_table(tmp_path / "interactions.parquet")
    assert ratings.num_rows == 100_000
    assert set(ratings["post_id"].to_pylist()) <= {post["post_id"] for post in posts}


def test_lfm2k_real(shared_data: Path, tmp_path: Path) -> None:
    assert run("import_lfm2k.py", shared_data / "lfm2k", tmp_path).returncode == 0
    posts, likes = pq.read_table(tmp_path / "posts.parquet"), pq.read_table(tmp_path / "interactions.parquet")
    assert (posts.num_rows, likes.num_rows) == (1425, 56_345)
    widths = {name: len(vector) for name, vector in posts["vectors"][0].as_py().items()}
    assert widths == {"minilm": 384, "vggish": 128, "whisper": 512}
    expected = np.load(shared_data / "lfm2k/vggish.npy")[1424].astype(np.float32)
    np.testing.assert_array_equal(np.array(posts["vectors"][1424]["vggish"].as_py(), np.float32), expected)
    assert set(likes["post_id"].to_pylist()) <= set(posts["post_id"].to_pylist())


def test_media_real(shared_data: Path, tmp_path: Path) -> None:
    done = run("media_posts.py", shared_data / "media", tmp_path)
    assert done.returncode == 0
    posts = read_lines(tmp_path / "posts.jsonl")
    expected = (shared_data / "media/expected.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert {post["post_id"] for post in posts} == {line.split("\t")[0] for line in expected}
