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
from training.corpus import KNOWN, KnownCorpus, default_cache, lines_of, load_corpus
from training.own_text import SPLITS

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


def test_only_a_newline_ends_a_line() -> None:
    assert lines_of(FILES["train"]) == [" = Town = ", " ", " The town lies by the sea . "]
    assert lines_of(FILES["valid"]) == ["The sea\x0cis calm .\r"]
    assert lines_of(FILES["test"]) == ["No final newline"]
    assert lines_of("\n\n") == ["", ""]


def test_a_folder_is_plain_text_unless_told_otherwise(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "town"))
    corpus = load_corpus(folder)
    assert (corpus.name, corpus.convention, corpus.own) == ("town", Convention.PLAIN, True)
    assert load_corpus(folder, convention=Convention.PTB).convention is Convention.PTB


def test_rare_words_of_own_text_are_unknown_and_those_of_a_known_corpus_are_not(server: Server, tmp_path: Path) -> None:
    known = load_corpus("sea", tmp_path / "cache")
    assert known.vocabulary().words == ("<eos>", "=", "Town", "The", "town", "lies", "by", "the", "sea", ".", "<unk>")
    own = write(tmp_path / "own", FILES | {"train": "the sea, the town\nThe town\n"})
    assert load_corpus(str(own)).vocabulary().words == ("the", "town", "<eos>", "<unk>")
    assert len(load_corpus(str(own)).vocabulary(min_count=1)) == 7
    assert load_corpus(str(own)).vocabulary(1, max_words=3).words == ("the", "<eos>", "<unk>")


@pytest.mark.parametrize("text", ["one two three four\n", "a, b, c, d.\n", "中文没有空格\n", "1 2 3 4"])
def test_text_without_a_repeated_word_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no word occurs 2 times; give more text, with blanks between its words"):
        load_corpus(str(write(tmp_path / "own", {"train": text, "valid": text}))).vocabulary()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"valid\.txt is empty"),
        (b" \n\t\n", r"valid\.txt is empty"),
        (b"one\ntwo \xff three\n", r"valid\.txt is not UTF-8 \(line 2, byte 8\)"),
        ("the sea".encode("utf-16"), r"valid\.txt is not text \(it holds NUL bytes\)"),
    ],
    ids=["empty", "blank", "latin-1", "utf-16"],
)
def test_an_unusable_file_is_refused_by_name(data: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path) / "valid.txt"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(str(tmp_path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_corpus_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"neither a file or folder nor a known corpus \(ptb, wikitext-2\)"):
        load_corpus(str(tmp_path / "nowhere"))


def test_a_folder_with_the_files_of_a_known_corpus_is_that_corpus(server: Server, tmp_path: Path) -> None:
    folder = write(tmp_path / "copy")
    corpus = load_corpus(str(folder))
    assert (corpus.name, corpus.convention, corpus.own) == ("sea", Convention.PTB, False)
    with pytest.raises(CorpusError, match="is sea, whose lines are whole; leave --join-lines out"):
        load_corpus(str(folder), join_lines=True)
    with pytest.raises(CorpusError, match="is sea, which follows ptb; leave wikitext out"):
        load_corpus(str(folder), convention=Convention.WIKITEXT)
    write(folder, {"test": "Another test ."})
    assert load_corpus(str(folder)).name == "copy"
    assert server.asked == []


def test_a_named_corpus_is_fetched_once_and_kept(server: Server, tmp_path: Path) -> None:
    corpus = load_corpus("sea", tmp_path / "cache")
    assert (corpus.name, corpus.convention, corpus.sha256) == ("sea", Convention.PTB, sums(FILES))
    assert corpus.splits["test"] == "No final newline\n"
    assert load_corpus("sea", tmp_path / "cache").splits == corpus.splits
    assert server.asked == ["/train.txt", "/valid.txt", "/test.txt"]
    kept = tmp_path / "cache" / "corpora" / "sea"
    assert sorted(path.name for path in kept.iterdir()) == ["test.txt", "train.txt", "valid.txt"]


def test_an_altered_file_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    load_corpus("sea", tmp_path)
    write(tmp_path / "corpora" / "sea", {"valid": "cut sho"})
    assert load_corpus("sea", tmp_path).splits["valid"] == "The sea\x0cis calm .\r\n"
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
