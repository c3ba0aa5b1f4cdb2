"""Find files by name, pattern, folder or URL, and detect changes."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import importlib.util
import io
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import discovery
from tests.corpus.sources.test_csv_source import made, texts
from tests.processes import web_server


def test_patterns_name_files_in_order(tmp_path):
    for name in ("b.csv", "a.csv"):
        made(tmp_path, "text\nx\n", name)
    assert discovery.expand([str(tmp_path / "*.csv")]) == [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    with pytest.raises(UserError, match="no file matches this pattern"):
        discovery.expand([str(tmp_path / "*.txt")])


def test_a_pattern_includes_subfolders_and_matches_only_files(tmp_path):
    (tmp_path / "2020" / "05").mkdir(parents=True)
    for name in ("a.csv", "2020/b.csv", "2020/05/c.csv", "2020/05/d.jsonl"):
        made(tmp_path, "text\nx\n", name)
    for pattern, expected in (
        ("*", ["a.csv"]),
        ("**/*.csv", ["2020/05/c.csv", "2020/b.csv", "a.csv"]),
        ("2020/**/*.jsonl", ["2020/05/d.jsonl"]),
    ):
        assert discovery.expand([f"{tmp_path}/{pattern}"]) == [str(tmp_path / name) for name in expected]
    with pytest.raises(UserError, match="no file matches this pattern"):
        discovery.expand([f"{tmp_path}/20*"])


def test_omitted_files_of_a_folder_are_reported_with_a_pattern_for_them(tmp_path):
    (tmp_path / "in" / "more[1]").mkdir(parents=True)
    names = ("more[1]/b.csv.gz", "more[1]/c.jsonl", "more[1]/notes.txt")
    for name in names:
        made(tmp_path / "in", "x", name)
    folder, warnings = f"{tmp_path}/in", list[str]()
    deeper = f"{folder}/**/*.csv.gz,{folder}/**/*.jsonl"
    with pytest.raises(UserError, match="contains no file that ends in") as caught:
        discovery.expand([folder], warnings.append)
    assert f"2 in its subfolders; input='{deeper}' reads all" in str(caught.value) and not warnings
    for name in ("a.csv", "a.xlsx"):
        made(tmp_path / "in", "x", name)
    assert discovery.expand([folder], warnings.append) == [f"{folder}/a.csv"]
    everything = f"{folder}/**/*.csv,{deeper}"
    assert f"input='{everything}' reads all" in warnings[0], "those at the top, too"
    assert "other files, which are left out: 1 (a.xlsx)" in warnings[1]
    assert len(discovery.expand(everything.split(","))) == 3


@pytest.mark.parametrize("links", [1, 2, 9])
def test_links_that_lead_back_into_a_folder_are_not_followed_for_ever(tmp_path, links):
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("in/a.csv", "in/.hidden.csv", "elsewhere/b.csv"):
        made(tmp_path, "text\nx\n", name)
    for number in range(links):
        (tmp_path / "in" / f"back{number}").symlink_to("..")
    warnings = list[str]()
    assert discovery.expand([f"{tmp_path}/in"], warnings.append) == [f"{tmp_path}/in/a.csv"]
    assert "not read: 1 in its subfolders" in warnings[0]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_pipe_is_rejected_before_it_is_read(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for named in (tmp_path / name, tmp_path):
        with pytest.raises(UserError, match="is a pipe or a device; save it as a file first"):
            discovery.find_columns(discovery.expand([str(named)]), {})
    with pytest.raises(UserError, match="is a pipe or a device"):
        discovery.file_identity("/dev/null")


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system of memory:// URLs, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_urls_are_files_folders_and_patterns_too(memory):
    for name in ("/in/b.csv", "/in/a.csv.gz", "/in/notes.txt"):
        data = f"text,id\n{name},1\n".encode()
        memory.pipe(name, gzip.compress(data) if name.endswith("gz") else data)
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["of a table"], "id": ["1"]}), table)
    memory.pipe("/in/c.parquet", table.getvalue())
    paths = discovery.expand(["memory://in"])
    assert paths == ["memory:///in/a.csv.gz", "memory:///in/b.csv", "memory:///in/c.parquet"]
    assert texts(*paths) == ["/in/a.csv.gz", "/in/b.csv", "of a table"]
    assert discovery.expand(["memory://in/*.csv*"]) == paths[:2]
    for missing, said in (("memory://in/*.tsv", "no file matches"), ("memory://in/x.csv", "no such file")):
        with pytest.raises(UserError, match=said):
            discovery.find_columns(discovery.expand([missing]), {})
    with pytest.raises(UserError, match="no such file"):
        discovery.file_identity("memory://in/x.csv")


def test_files_in_subfolders_of_a_url_are_reported(memory):
    for name in ("/in/a.csv", "/in/2020/b.csv", "/in/2020/c.csv"):
        memory.pipe(name, b"text\na\n")
    warnings = list[str]()
    assert discovery.expand(["memory://in"], warnings.append) == ["memory:///in/a.csv"]
    assert "2 in its subfolders; input='memory://in/**/*.csv' reads all" in warnings[0]
    assert len(discovery.expand(["memory://in/**/*.csv"])) == 3
    assert discovery.expand(["memory://in/*"]) == ["memory:///in/a.csv"]


def test_a_change_of_a_file_is_detected_wherever_it_is(tmp_path, memory):
    local, url = str(made(tmp_path, "text\na\n")), "memory://a.csv"
    memory.pipe("/a.csv", b"text\na\n")
    before = [discovery.file_identity(path) for path in (local, url)]
    assert before == [discovery.file_identity(path) for path in (local, url)]
    json.dumps(before)
    Path(local).write_text("text\nb\n")
    memory.pipe("/a.csv", b"text\nb\n")
    after = [discovery.file_identity(path) for path in (local, url)]
    assert before[0] != after[0] and before[1] != after[1]
    assert after[0]["bytes"] == after[1]["bytes"] == 7


def test_a_file_url_is_a_local_file(tmp_path):
    path = made(tmp_path, "text\na\n", "a b.csv")
    assert discovery.expand([path.as_uri()]) == [str(path)]


def test_a_package_that_a_url_needs_is_named():
    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(UserError, match=r"gs://tweets/a\.csv: a package .* is missing; install it: pip install gcsfs"):
        discovery.expand(["gs://tweets/a.csv"])


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`, without range requests, as many servers."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        data = self.files.get(self.path.partition("?")[0])
        self.send_response(403 if "secret" in self.path else 200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("ETag", str(hash(data)))
        self.end_headers()
        whole = data or b""
        sent = whole[: len(whole) // 2] if "broken" in self.path else whole
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b"" if self.command == "HEAD" else sent)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a web server on this machine."""
    pytest.importorskip("aiohttp", reason="http:// needs aiohttp")
    with web_server(Server) as place:
        yield f"http://{place}"


def test_files_are_read_from_the_web(web, monkeypatch):
    data = ("text,id\n" + "".join(f"{'long ' * 50}{number},{number}\n" for number in range(30_000))).encode()
    page = b'<a href="/all/a.csv">a</a> <a href="/all/notes.txt">notes</a>'
    files = {"/all/a.csv": data, "/b.csv.gz": gzip.compress(data), "/all/": page, "/broken.csv": data}
    monkeypatch.setattr(Server, "files", files)
    assert discovery.expand([f"{web}/all/"]) == [f"{web}/all/a.csv"]
    for url in (f"{web}/all/a.csv", f"{web}/b.csv.gz?token=[1]"):
        assert discovery.expand([url]) == [url]
        assert len(texts(url, unit_bytes=2**20)) == 30_000
    before = discovery.file_identity(f"{web}/all/a.csv")
    files["/all/a.csv"] = data[::-1]
    assert discovery.file_identity(f"{web}/all/a.csv") != before
    for url, said in (
        ("broken.csv", "cannot be read to its end"),
        ("none.csv", "no such file"),
        ("secret.csv", "permission denied"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            texts(f"{web}/{url}", unit_bytes=2**20)
        assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_one_line():
    pytest.importorskip("aiohttp", reason="http:// needs aiohttp")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="cannot be read"):
            discovery.file_identity(f"http://127.0.0.1:{taken.getsockname()[1]}/a.csv")
