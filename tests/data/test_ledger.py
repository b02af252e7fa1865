from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.ledger import Ledger
from lora_kit.data.types import Conversation

KEYS = st.lists(
    st.sampled_from([bytes([n]) * 16 for n in range(5)] + [bytes(16), bytes(8) + b"\1" * 8]), max_size=30
)


@given(digests=KEYS)
def test_repeats_are_all_but_the_first(digests: list[bytes]) -> None:
    ledger = Ledger()
    for n, digest in enumerate(digests):
        ledger.enter(Conversation((), f"f:{n}"), key=bytes(16), digest=digest, held_out=False)
    assert list(ledger.repeats()) == [n for n, digest in enumerate(digests) if digest in digests[:n]]


def test_entries_are_kept_apart() -> None:
    ledger = Ledger()
    origins = ["rows.jsonl:1", "", "caf\udce9.jsonl:2", "é:3"]
    for n, origin in enumerate(origins):
        at = ledger.enter(Conversation((), origin), key=bytes(16), digest=bytes(16), held_out=n == 1)
        assert at == n
    ledger.lose(0, "empty_answer")
    ledger.lose(2, "near")
    ledger.lose(3, "near")
    ledger.hold_out(3, held_out=True)
    assert (len(ledger), ledger.kept) == (4, 1)
    assert [ledger.origin(at) for at in range(4)] == origins
    assert [ledger.lost(at) for at in range(4)] == ["empty_answer", "", "near", "near"]
    assert [ledger.is_held_out(at) for at in range(4)] == [False, True, False, True]
