import struct

import pytest
from google.protobuf.internal.decoder import _DecodeVarint
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar

from insitu.exporters import protobuf

bounded = settings(max_examples=500, derandomize=True, deadline=None)


@bounded
@given(st.integers(0, 2**64 - 1))
def test_the_official_decoder_reads_our_varints(value):
    encoded = protobuf.varint(value)
    assert _DecodeVarint(encoded, 0) == (value, len(encoded))
    assert list(protobuf.fields(b"\x08" + encoded)) == [(1, value)]


def test_a_negative_number_is_its_twos_complement():
    assert protobuf.varint(-1) == b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 1_023, 1_024, 70_000])
def test_a_message_of_any_size_is_read_back(size):
    assert list(protobuf.fields(protobuf.message(b"\x12", b"x" * size))) == [(2, b"x" * size)]


@bounded
@given(st.integers(-(2**63), 2**63 - 1), st.text())
def test_we_read_what_the_official_library_writes(number, text):
    data = ExportTracePartialSuccess(rejected_spans=number, error_message=text).SerializeToString()
    read = dict(protobuf.fields(data))
    assert read.get(1, 0) == number % 2**64
    assert read.get(2, b"") == text.encode()


def test_fixed_sizes_are_read_as_their_bytes():
    data = Exemplar(time_unix_nano=5, as_double=1.5).SerializeToString() + b"\x4d\x01\x02\x03\x04"
    assert list(protobuf.fields(data)) == [
        (2, struct.pack("<Q", 5)),
        (3, struct.pack("<d", 1.5)),
        (9, b"\x01\x02\x03\x04"),
    ]


@settings(bounded, max_examples=2_000)
@given(st.binary(max_size=60))
def test_garbage_is_read_as_far_as_it_goes_and_never_raises(data):
    assert sum(1 for _ in protobuf.fields(data)) <= len(data)


@pytest.mark.parametrize(
    ("value", "nearest"),
    [(5, 5), (-1, 0), (2**70, 2**64 - 1), (1.9, 1), (float("nan"), 0), (float("inf"), 0), ("x", 0), (None, 0)],
)
def test_a_number_is_brought_into_64_bits(value, nearest):
    assert protobuf.clamped(value) == nearest


def test_an_id_that_is_too_large_loses_its_upper_bits():
    assert protobuf.identity(2**64 + 5, 8) == b"\0" * 7 + b"\x05"
    assert protobuf.identity(-1, 8) == b"\xff" * 8
