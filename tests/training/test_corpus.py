"""Corpora by name and by folder. The network is a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.conventions import Convention
from model.errors import CorpusError
from training import corpus as corpus_module
from training.corpus import KNOWN, SPLITS, KnownCorpus, default_cache, load_corpus

FILES = {
    "train": " = Town = \n \n The town lies by the sea . \n",
    "valid": "The sea\x0cis calm .\r\n",
    "test": "No final newline",
}


def write(folder: Path, files: dict[str, str] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in files.items():
        (folder / f"{split}.txt").write_bytes(text.encode())
    return folder


def sums(files: dict[str, str]) -> dict[str, str]:
    return {split: hashlib.sha256(text.encode()).hexdigest() for split, text in files.items()}


class Server:
    """A web server on loopback that serves a folder and remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        asked: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, format: str, *args: object) -> None:
                asked.append(self.path)

        self.folder = folder
        self.asked = asked
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the corpus `sea` at its address and makes it known."""
    served = Server(write(tmp_path / "served"))
    known = KnownCorpus("sea", Convention.PTB, served.address + "/{split}.txt", sums(FILES))
    monkeypatch.setitem(corpus_module.KNOWN, "sea", known)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=served.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.http.shutdown()
    served.http.server_close()
    thread.join()


def test_a_folder_is_read_line_by_line_and_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    corpus = load_corpus(str(write(tmp_path / "town")))
    assert corpus.train == [" = Town = ", " ", " The town lies by the sea . "]
    assert corpus.valid == ["The sea\x0cis calm .\r"]
    assert corpus.test == ["No final newline"]
    assert (corpus.name, corpus.folder, corpus.sha256) == ("town", tmp_path / "town", sums(FILES))


def test_a_folder_follows_wikitext_unless_told_otherwise(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "town"))
    assert load_corpus(folder).convention is Convention.WIKITEXT
    assert load_corpus(folder, convention=Convention.PTB).convention is Convention.PTB


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    assert load_corpus(str(write(tmp_path, FILES | {"test": "\ufeffThe sea"}))).test == ["The sea"]


def test_lines_are_read_when_they_are_asked_for_and_once(tmp_path: Path) -> None:
    corpus = load_corpus(str(write(tmp_path)))
    lines = corpus.train
    (tmp_path / "train.txt").unlink()
    assert corpus.train is lines


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"valid\.txt is missing; a corpus folder holds train\.txt, valid\.txt, test\.txt"),
        (b"", r"valid\.txt is empty"),
        (b" \n\t\n", r"valid\.txt is empty"),
        (b"one\ntwo \xff three\n", r"valid\.txt is not UTF-8 \(line 2, byte 8\)"),
        ("the sea".encode("utf-16"), r"valid\.txt is not text \(it holds NUL bytes\)"),
    ],
    ids=["missing", "empty", "blank", "latin-1", "utf-16"],
)
def test_an_unusable_file_is_refused_by_name(data: bytes | None, message: str, tmp_path: Path) -> None:
    path = write(tmp_path) / "valid.txt"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(str(tmp_path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_corpus_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"neither a known corpus \(ptb, wikitext-2\) nor a folder"):
        load_corpus(str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"train\.txt is a file; give the folder"):
        load_corpus(str(write(tmp_path) / "train.txt"))


def test_a_folder_with_the_files_of_a_known_corpus_is_that_corpus(server: Server, tmp_path: Path) -> None:
    folder = write(tmp_path / "copy")
    corpus = load_corpus(str(folder))
    assert (corpus.name, corpus.convention, corpus.folder) == ("sea", Convention.PTB, folder)
    with pytest.raises(CorpusError, match="is sea, which follows ptb; leave wikitext out"):
        load_corpus(str(folder), convention=Convention.WIKITEXT)
    write(folder, {"test": "Another test ."})
    assert load_corpus(str(folder)).name == "copy"
    assert server.asked == []


def test_a_named_corpus_is_fetched_once_and_kept(server: Server, tmp_path: Path) -> None:
    corpus = load_corpus("sea", tmp_path / "cache")
    assert (corpus.name, corpus.convention, corpus.sha256) == ("sea", Convention.PTB, sums(FILES))
    assert corpus.folder == tmp_path / "cache" / "corpora" / "sea"
    assert corpus.test == ["No final newline"]
    assert load_corpus("sea", tmp_path / "cache").train == corpus.train
    assert server.asked == ["/train.txt", "/valid.txt", "/test.txt"]
    assert sorted(path.name for path in corpus.folder.iterdir()) == ["test.txt", "train.txt", "valid.txt"]


def test_an_altered_file_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    folder = load_corpus("sea", tmp_path).folder
    write(folder, {"valid": "cut sho"})
    assert load_corpus("sea", tmp_path).valid == ["The sea\x0cis calm .\r"]
    assert server.asked.count("/valid.txt") == 2


def test_a_file_that_is_not_the_expected_one_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    write(server.folder, {"valid": "Something else ."})
    with pytest.raises(CorpusError, match=r"valid\.txt no longer has the expected SHA-256 .*local folder that holds"):
        load_corpus("sea", tmp_path)
    assert [path.name for path in (tmp_path / "corpora" / "sea").iterdir()] == ["train.txt"]


def test_a_corpus_that_cannot_be_fetched_says_how_to_give_a_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "train.txt").unlink()
    with pytest.raises(CorpusError, match=r"^sea cannot be fetched from .*404.*give a local folder that holds train"):
        load_corpus("sea", tmp_path)
    silent = KnownCorpus("sea", Convention.PTB, "http://127.0.0.1:9/{split}.txt", sums(FILES))
    monkeypatch.setitem(corpus_module.KNOWN, "sea", silent)
    with pytest.raises(CorpusError, match=r"sea cannot be fetched from http://127\.0\.0\.1:9/train\.txt"):
        load_corpus("sea", tmp_path)


def test_a_cache_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    with pytest.raises(CorpusError, match=r"sea cannot be kept in .*file.*; set PRU_CACHE_DIR"):
        load_corpus("sea", in_the_way)
    assert server.asked == []


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PRU_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache() == tmp_path / ".cache" / "pru"
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert default_cache() == Path("/shared/pru")
    monkeypatch.setenv("PRU_CACHE_DIR", "/own")
    assert default_cache() == Path("/own")


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_real_corpora_are_known_by_their_files(name: str, data_dir: Path) -> None:
    corpus = load_corpus(str(data_dir / name))
    assert (corpus.name, corpus.convention) == (name, KNOWN[name].convention)
    assert set(corpus.sha256) == set(SPLITS)
