"""System errors become one line that says what to do."""

import errno
import os
from pathlib import Path

import pytest

from lora_kit.artifacts.disk import disk_errors, free_bytes, readable_bytes, require_free, umask
from lora_kit.errors import MachineError, ModelError


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (10**16, "10000.0 TB")],
)
def test_readable_bytes(count, text):
    assert readable_bytes(count) == text


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EFBIG, "free some space"),
        (errno.EROFS, "that you can write to"),
        (errno.EACCES, "mend its permissions"),
        (errno.ENOENT, "moved or deleted"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "input/output error"),
    ],
)
def test_each_system_error_has_its_cure(tmp_path, number, cure):
    with pytest.raises(MachineError, match=cure) as caught, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number), "/temporary/name")
    assert caught.value.problems[0].where == str(tmp_path)
    assert "/temporary/name" not in str(caught.value)


def test_our_own_errors_pass():
    with pytest.raises(ModelError), disk_errors(Path()):
        raise ModelError("x")


def test_free_bytes_of_a_path_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") > 0
    require_free(tmp_path / "a" / "b", 1)


def test_umask_is_read_and_left_alone():
    before = os.umask(0o027)
    try:
        assert umask() == 0o027
        assert umask() == 0o027
    finally:
        os.umask(before)
