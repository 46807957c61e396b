"""The packing of stored values: no value becomes larger than it says."""

from __future__ import annotations

import base64
import zlib

import pytest

from services.gateway.stored_responses.packing import TooLargeError, pack, raw_bytes, unpack, unpack_anywhere


async def test_values_return_as_they_were() -> None:
    for value in ({}, [], {"a": "سلام" * 1000}, ["a" * 200_000]):
        packed = pack(value, most=10**6)
        assert unpack(packed) == await unpack_anywhere(packed) == value
    assert raw_bytes(pack({"a": 1}, most=100)) == len('{"a":1}')
    assert raw_bytes("") == 0


def test_a_large_value_is_not_packed_however_well_it_compresses() -> None:
    with pytest.raises(TooLargeError):
        pack("a" * 1001, most=1000)


@pytest.mark.parametrize("size", [2, 10**6 - 1, 10**6 + 3])
def test_a_value_that_is_larger_than_it_says_is_not_unpacked(size: int) -> None:
    data = base64.b64encode(zlib.compress(b'"%b"' % (b"a" * 10**6))).decode()
    with pytest.raises(ValueError, match="another size"):
        unpack(f"{size}:{data}")
