"""Files are written whole or not at all."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire.errors import InputError
from latentwire.files import (
    atomic_path,
    hash_of,
    read_json,
    read_jsonl,
    sha256_of,
    write_json,
    write_jsonl,
    write_text,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_a_finished_block_replaces_the_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    write_text(target, "old")
    write_text(target, "new")
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_until_the_block_ends_readers_see_the_old_content(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with atomic_path(target) as temporary:
        temporary.write_text("half of the ne")
        assert target.read_text() == "old"
        assert temporary.suffix == target.suffix  # some writers choose the format by it
    assert target.read_text() == "half of the ne"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_broken_block_leaves_the_old_content_and_no_partial_file(tmp_path, error):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    target, (read_end, write_end) = tmp_path / "a.txt", os.pipe()
    if (child := os.fork()) == 0:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            os.write(write_end, b".")
            os.kill(os.getpid(), signal.SIGKILL)
    os.read(read_end, 1)
    os.waitpid(child, 0)
    ancient = tmp_path / ".a.txt.elsewhere-1.abcdefgh.txt"
    for name in (ancient.name, ".a.txt.elsewhere-1.recent00.txt", ".b.txt.elsewhere-1.abcdefgh.txt"):
        (tmp_path / name).write_text("half")
    os.utime(ancient, (0, 0))
    assert len(os.listdir(tmp_path)) == 4
    with atomic_path(target) as living:  # of this process, which is alive
        write_text(target, "new")
        assert living.exists()
        living.write_text("newest")
    assert target.read_text() == "newest"
    # What another machine's writer left this day may be of one that lives.
    left = {".a.txt.elsewhere-1.recent00.txt", ".b.txt.elsewhere-1.abcdefgh.txt"}
    assert set(os.listdir(tmp_path)) == {"a.txt"} | left


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder can't be written: Is a directory; remove it, then run"):
        write_text(tmp_path / "folder", "text")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/a can't be written: (Not a directory|File exists)"):
        write_text(tmp_path / "file/a", "text")
    if Path("/dev/full").exists():
        with pytest.raises(InputError, match="b can't be written: No space left"), atomic_path(tmp_path / "b"):
            Path("/dev/full").write_text("text")


def test_the_file_is_readable_by_whom_the_umask_allows(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


@given(json_values)
def test_json_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"f1": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"f1": float("nan")})
    assert read_json(path) == {"f1": 0.5}


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers(), min_size=1, max_size=3), max_size=5))
def test_jsonl_comes_back_row_by_row_whatever_line_breaks_the_texts_hold(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_a_hash_does_not_depend_on_the_order_of_keys_but_on_every_value(value):
    assert hash_of(dict(reversed(value.items()))) == hash_of(value)
    key = next(iter(value))
    assert hash_of(value | {key: value[key] + 1}) != hash_of(value)
    assert json.loads(json.dumps(value)) == value
