"""Examples -> the Arrow file that `row_file` maps, a block at a time; takes their fingerprint on the way."""

import hashlib
import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lora_kit.data.row_file import FLAGS, IDS, SCHEMA, Flags
from lora_kit.data.types import Example

_BLOCK_TOKENS = 1 << 20
_BLOCK_ROWS = 1 << 14


class RowWriter:
    """Writes examples in order, a block at a time, and takes their fingerprint on the way.

    Args:
        path: The file to write; use the writer in a ``with`` block, which ends the file.
    """

    def __init__(self, path: Path) -> None:
        self.rows = {False: 0, True: 0}
        self.trained_tokens = 0
        self._digests = {side: [hashlib.sha256() for _ in range(3)] for side in (False, True)}
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._start_block()

    def _start_block(self) -> None:
        self._ids, self._ends = array("i"), array("i", [0])
        self._trained, self._held_out = bytearray(), bytearray()
        self._origins, self._hashes = _Texts(), _Texts()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end_block()
            self._writer.close()
        finally:
            self._file.close()

    def add(self, example: Example, *, held_out: bool) -> None:
        """Write an example.

        Args:
            example: Its ids fit into 32 bits.
            held_out: Whether it is for validation.
        """
        self._ids.extend(example.input_ids)
        self._ends.append(len(self._ids))
        self._trained += bytes(example.trained)
        self._held_out.append(held_out)
        self._origins.add(example.origin)
        self._hashes.add(example.content_hash)
        self.rows[held_out] += 1
        if len(self._ids) >= _BLOCK_TOKENS or len(self._held_out) >= _BLOCK_ROWS:
            self._end_block()

    def fingerprint(self) -> str:
        """Return 64 hex digits over the ids and flags written so far, in order, by side; blind to origins."""
        self._end_block()
        sides = [
            [self.rows[side], *(one.hexdigest() for one in self._digests[side])] for side in (False, True)
        ]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()

    def _end_block(self) -> None:
        if not self._held_out:
            return
        ids = np.frombuffer(self._ids, dtype=np.int32)
        ends = np.frombuffer(self._ends, dtype=np.int32)
        trained = np.frombuffer(self._trained, dtype=bool)
        held_out = np.frombuffer(self._held_out, dtype=bool)
        rows, tokens = len(held_out), len(ids)
        flags = [_bits(trained), _bits(held_out)]
        # From buffers, because pa.array() imports pandas.
        columns = [
            _array(IDS, rows, ends, children=[_array(pa.int32(), tokens, ids)]),
            _array(FLAGS, rows, ends, children=[_array(pa.bool_(), tokens, flags[0])]),
            _array(pa.binary(), rows, *self._origins.buffers()),
            _array(pa.binary(), rows, *self._hashes.buffers()),
            _array(pa.bool_(), rows, flags[1]),
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        self._take_fingerprint(ids, trained, np.diff(ends), held_out)
        self._start_block()

    def _take_fingerprint(self, ids: Any, trained: Any, lengths: Any, held_out: Any) -> None:  # noqa: ANN401 - arrays
        self.trained_tokens += int(trained.sum())
        token_side = np.repeat(held_out, lengths)
        for side, digests in self._digests.items():
            here = token_side == side
            parts = (lengths[held_out == side].astype("<i4"), ids[here].astype("<i4"), trained[here])
            for digest, part in zip(digests, parts, strict=True):
                digest.update(part.tobytes())


class _Texts:
    """Many texts end to end."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("i", [0])

    def add(self, text: str) -> None:
        self._text += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))

    def buffers(self) -> "tuple[array[int], bytearray]":
        return self._ends, self._text


def _array(kind: Any, length: int, *buffers: Any, children: Any = None) -> Any:  # noqa: ANN401 - no types
    return pa.Array.from_buffers(kind, length, [None, *map(pa.py_buffer, buffers)], children=children)


def _bits(flags: Flags) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes()
