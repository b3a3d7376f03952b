import random
from pathlib import Path

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = [
    line.split("\t")
    for line in (Path(fuzz.__file__).parent / "corpus.txt").read_text().splitlines()
    if not line.startswith("#")
]
SENTENCE = 40  # characters that are ours: what follows may be another library's words
QUICKLY = settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize(("read", "end", "data"), CORPUS)
def test_the_corpus_ends_as_recorded(read, end, data):
    found, _ = fuzz.ending(getattr(fuzz, read), bytes.fromhex(data))
    assert found[:SENTENCE] == end[:SENTENCE]


@QUICKLY
@given(st.randoms(use_true_random=True))
def test_a_damaged_stream_ends_with_an_error_or_closed(chance):
    data = fuzz.mutated(fuzz.stream(), random.Random(chance.getrandbits(64)))
    fuzz.ending(fuzz.read_as_client, data)
    fuzz.ending(fuzz.read_as_node, data)


@QUICKLY
@given(st.binary(max_size=600))
def test_any_bytes_end_with_an_error_or_closed(data):
    fuzz.ending(fuzz.read_as_client, data)
    fuzz.ending(fuzz.read_as_node, data)
