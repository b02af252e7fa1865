import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.collate import MicroBatch, flatten, pad
from lora_kit.data.types import Example

TOKENS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=8)


def examples(drawn):
    return [
        Example(
            tuple(token for token, _ in rows),
            tuple(flag for _, flag in rows),
            f"rows.jsonl:{n + 1}",
            "0" * 64,
        )
        for n, rows in enumerate(drawn)
    ]


def targets(batch: MicroBatch):
    """What is predicted from what: (example, position in it, previous token, target)."""
    at = batch.predict_at
    previous = batch.input_ids.flatten()[at].tolist()
    positions = batch.position_ids.flatten()[at].tolist()
    return list(zip(batch.owner.tolist(), positions, previous, batch.targets.tolist(), strict=True))


def expected(rows):
    return [
        (n, t - 1, row.input_ids[t - 1], row.input_ids[t])
        for n, row in enumerate(rows)
        for t in range(1, len(row.input_ids))
        if row.trained[t]
    ]


@given(drawn=st.lists(TOKENS, min_size=1, max_size=6), pad_id=st.integers(0, 9))
def test_both_layouts_train_the_same_tokens_whatever_the_pad_id(drawn, pad_id):
    rows = examples(drawn)
    flat, padded = flatten(rows), pad(rows, pad_id)
    assert targets(flat) == targets(padded) == expected(rows)
    for batch in (flat, padded):
        assert batch.lengths == tuple(len(row.input_ids) for row in rows)
        assert batch.origins == tuple(row.origin for row in rows)
        tensors = (batch.input_ids, batch.position_ids, batch.predict_at, batch.targets, batch.owner)
        assert all(tensor.dtype == torch.int64 for tensor in tensors)


@given(drawn=st.lists(TOKENS, min_size=1, max_size=6))
def test_the_layouts_hold_every_token(drawn):
    rows = examples(drawn)
    flat, padded = flatten(rows), pad(rows, pad_id=7)
    assert flat.input_ids.shape == (1, sum(flat.lengths))
    assert flat.input_ids[0].tolist() == [token for row in rows for token in row.input_ids]
    assert flat.position_ids[0].tolist() == [t for row in rows for t in range(len(row.input_ids))]
    assert flat.attention_mask is None
    assert padded.input_ids.shape == (len(rows), max(padded.lengths))
    for n, row in enumerate(rows):
        length = len(row.input_ids)
        assert padded.input_ids[n].tolist() == [*row.input_ids, *[7] * (max(padded.lengths) - length)]
        assert padded.position_ids[n, :length].tolist() == list(range(length))
        assert padded.attention_mask[n].tolist() == [1] * length + [0] * (max(padded.lengths) - length)


def test_a_first_token_and_an_example_without_targets_train_nothing():
    rows = examples([[(5, True)], [(1, False), (2, False)]])
    for batch in (flatten(rows), pad(rows)):
        assert batch.targets.shape == batch.predict_at.shape == batch.owner.shape == (0,)
        assert batch.targets.dtype == batch.predict_at.dtype == torch.int64


def test_a_move_to_a_device_moves_every_tensor():
    batch = pad(examples([[(5, False), (6, True)]])).to("meta")
    tensors = [
        batch.input_ids,
        batch.position_ids,
        batch.attention_mask,
        batch.predict_at,
        batch.targets,
        batch.owner,
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert flatten(examples([[(5, False), (6, True)]])).to("cpu").attention_mask is None
