"""Weight files: every blob as coremltools' own reader reads it, and every damage refused."""

import struct

import numpy as np
import pytest
import torch
from sample_packages import WEIGHTS

from mobile_export.coreml_simulator.blobs import ALIGNMENT, BLOB_ELEMENTS, MAX_BLOBS, BlobFile, decode
from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, TensorType

CODES = {name: code for code, name in BLOB_ELEMENTS.items()}
FIELDS = {"sentinel": (0, "<I"), "code": (4, "<I"), "size": (8, "<Q"), "begin": (16, "<Q"), "padding": (24, "<Q")}


def read_by_coremltools(path, blob):
    """The elements of a blob as the reader inside of coremltools returns them."""
    from coremltools.libmilstoragepython import _BlobStorageReader

    reader = _BlobStorageReader(str(path))
    name = {"float32": "float", "float16": "fp16"}.get(blob.element.name, blob.element.name)
    values = np.asarray(getattr(reader, f"read_{name}_data")(blob.offset))
    return values.view(np.float16) if name == "fp16" else values


def contents(path):
    """{offset: (element, values)} by our reader."""
    file = BlobFile(path)
    return {
        blob.offset: (blob.element.name, file.tensor(blob.offset, TensorType(blob.element, (blob.count,))).tolist())
        for blob in file.blobs.values()
    }


def written(path, *blobs, version=2, tail=b""):
    """A weight file of (element, elements as bytes, padding bits), by the format's description."""
    data = struct.pack("<II", len(blobs), version).ljust(ALIGNMENT, b"\0")
    for element, raw, padding in blobs:
        data = data.ljust(-(-len(data) // ALIGNMENT) * ALIGNMENT, b"\0")
        record = struct.pack("<IIQQQ", 0xDEADBEEF, CODES[element], len(raw), len(data) + ALIGNMENT, padding)
        data += record.ljust(ALIGNMENT, b"\0") + raw
    path.write_bytes(data + tail)
    return path


def with_field(path, offset, field, value):
    """Overwrite one field of the record at `offset`."""
    position, form = FIELDS[field]
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, offset + position, value)
    path.write_bytes(data)


@pytest.mark.parametrize("sample", ["elements", "palettes"])
def test_every_blob_is_what_coremltools_reads(sample, request):
    package, _ = request.getfixturevalue(sample)
    file = BlobFile(package / WEIGHTS)
    for blob in file.blobs.values():
        expected = read_by_coremltools(package / WEIGHTS, blob)
        ours = file.tensor(blob.offset, TensorType(blob.element, (blob.count,)))
        assert ours.dtype == blob.element.carrier
        # coremltools pads nothing away: its sub-byte readers return the declared number too.
        assert ours.tolist() == expected.tolist(), blob
    names = {blob.element.name for blob in file.blobs.values()}
    everything = set(CODES) - {"uint32"}  # shapes of the iOS 16 form, too short for a blob
    assert names == (everything if sample == "elements" else {"uint8", "int8", "float32"})


@pytest.mark.parametrize("element", sorted(CODES))
def test_bytes_are_decoded_by_the_format(tmp_path, element):
    """Hand-made bytes, so that it does not hang on a writer."""
    kind = ELEMENTS[element]
    raw = bytes(range(0x80, 0x98))  # 24 bytes hold whole elements of every width
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").reshape(-1, kind.bits)
    if kind.is_float:
        expected = np.frombuffer(raw, np.dtype(element)).tolist()
    else:
        weights = [1 << bit for bit in range(kind.bits)]
        if not element.startswith("u"):
            weights[-1] = -weights[-1]
        expected = [sum(int(bit) * weight for bit, weight in zip(row, weights, strict=True)) for row in bits]
    path = written(tmp_path / "weight.bin", ("uint8", b"\1\2\3", 0), (element, raw, 0))
    assert contents(path)[192] == (element, expected)
    assert decode(np.frombuffer(bytearray(raw), np.uint8), kind, len(expected)).tolist() == expected


@pytest.mark.parametrize(
    ("element", "raw", "padding", "expected"),
    [
        ("uint1", b"\x0d", 3, [1, 0, 1, 1, 0]),
        ("uint3", b"\xd1\x58", 1, [1, 2, 3, 4, 5]),
        ("int4", b"\x7f\x08", 4, [-1, 7, -8]),
        ("uint6", b"\x40\x0f", 4, [0, 61]),
        ("uint4", b"", 0, []),
    ],
)
def test_padding_bits_are_no_elements(tmp_path, element, raw, padding, expected):
    assert contents(written(tmp_path / "weight.bin", (element, raw, padding))) == {64: (element, expected)}


def test_a_blob_is_decoded_once(tmp_path):
    file = BlobFile(written(tmp_path / "weight.bin", ("uint4", b"\x21\x43\x65", 0)))
    once = file.tensor(64, TensorType(ELEMENTS["uint4"], (2, 3)))
    again = file.tensor(64, TensorType(ELEMENTS["uint4"], (6,)))
    assert once.tolist() == [[1, 2, 3], [4, 5, 6]] and again.tolist() == [1, 2, 3, 4, 5, 6]
    assert once.data_ptr() == again.data_ptr() and once.dtype == torch.uint8


@pytest.mark.parametrize(
    ("element", "shape", "offset", "message"),
    [
        ("uint8", (3,), 65, "weight.bin has 1 blobs, none of them at offset 65"),
        ("uint8", (3,), 128, "weight.bin has 1 blobs, none of them at offset 128"),
        ("uint8", (3,), 2**63, f"weight.bin has 1 blobs, none of them at offset {2**63}"),
        (
            "int8",
            (3,),
            64,
            "the program declares int8[3], that is 3 elements, weight.bin holds 3 of uint8 at offset 64",
        ),
        (
            "uint8",
            (2, 2),
            64,
            "the program declares uint8[2, 2], that is 4 elements, weight.bin holds 3 of uint8 at offset 64",
        ),
        (
            "uint8",
            (2**33,),
            64,
            f"the program declares uint8[{2**33}], that is {2**33} elements, weight.bin holds 3 of uint8 at offset 64",
        ),
    ],
)
def test_references_must_fit(tmp_path, element, shape, offset, message):
    file = BlobFile(written(tmp_path / "weight.bin", ("uint8", b"\1\2\3", 0)))
    with pytest.raises(PackageError) as caught:
        file.tensor(offset, TensorType(ELEMENTS[element], shape))
    assert str(caught.value) == message


AT = "weight.bin, blob at offset 192"
HOSTILE_FIELDS = [
    ("sentinel", 0, PackageError, f"{AT}: a record begins with 0xdeadbeef, got 0x0"),
    ("sentinel", 0xDEADBEEE, PackageError, f"{AT}: a record begins with 0xdeadbeef, got 0xdeadbeee"),
    ("code", 0, UnsupportedError, f"{AT}: element type 0 is not supported, only "),
    ("code", 5, UnsupportedError, f"{AT}: element type 5 is not supported, only "),
    ("code", 2**32 - 1, UnsupportedError, f"{AT}: element type {2**32 - 1} is not supported, only "),
    ("code", CODES["float16"], PackageError, f"{AT}: 3 bytes less 0 bits hold no whole number of float16"),
    ("size", 2, PackageError, "the 2 blobs of weight.bin end at byte 258, the file at 259"),
    ("size", 4, PackageError, f"{AT}: 4 bytes from 256 go beyond the file's 259"),
    ("size", 2**40, PackageError, f"{AT}: {2**40} bytes from 256 go beyond the file's 259"),
    ("size", 2**64 - 1, PackageError, f"{AT}: {2**64 - 1} bytes from 256 go beyond the file's 259"),
    ("size", 2**64 - 256, PackageError, f"{AT}: {2**64 - 256} bytes from 256 go beyond the file's 259"),
    ("begin", 0, PackageError, f"{AT}: its data must begin behind the record at 256, got 0"),
    ("begin", 128, PackageError, f"{AT}: its data must begin behind the record at 256, got 128"),
    ("begin", 257, PackageError, f"{AT}: its data must begin behind the record at 256, got 257"),
    ("begin", 2**64 - 64, PackageError, f"{AT}: its data must begin behind the record at 256, got {2**64 - 64}"),
    ("padding", 1, PackageError, f"{AT}: 3 bytes less 1 bits hold no whole number of uint8"),
    ("padding", 8, PackageError, f"{AT}: 3 bytes less 8 bits hold no whole number of uint8"),
    ("padding", 2**64 - 1, PackageError, f"{AT}: 3 bytes less {2**64 - 1} bits hold no whole number of uint8"),
]


@pytest.mark.parametrize(("field", "value", "kind", "message"), HOSTILE_FIELDS)
def test_hostile_records(tmp_path, field, value, kind, message):
    path = written(tmp_path / "weight.bin", ("uint4", b"\1\2\3", 4), ("uint8", b"\1\2\3", 0))
    with_field(path, 192, field, value)
    with pytest.raises(kind) as caught:
        BlobFile(path)
    assert str(caught.value).startswith(message)


def test_padding_of_a_sub_byte_type_must_leave_whole_elements(tmp_path):
    path = written(tmp_path / "weight.bin", ("uint4", b"\1\2\3", 4))
    for padding, count in ((0, 6), (4, 5)):
        with_field(path, 64, "padding", padding)
        assert BlobFile(path).blobs[64].count == count
    for padding in (1, 2, 3, 5, 7, 8, 12, 2**32, 2**64 - 4):
        with_field(path, 64, "padding", padding)
        with pytest.raises(PackageError) as caught:
            BlobFile(path)
        message = f"weight.bin, blob at offset 64: 3 bytes less {padding} bits hold no whole number of uint4"
        assert str(caught.value) == message


@pytest.mark.parametrize("count", [1, 3, MAX_BLOBS, MAX_BLOBS + 1, 2**32 - 1])
def test_the_header_must_count_all_blobs(tmp_path, count):
    path = written(tmp_path / "weight.bin", ("uint4", b"\1\2\3", 0), ("uint8", b"\1\2\3", 0))
    data = path.read_bytes()
    path.write_bytes(struct.pack("<I", count) + data[4:])
    expected = {
        1: "the 1 blobs of weight.bin end at byte 131, the file at 259",
        MAX_BLOBS + 1: f"weight.bin may have {MAX_BLOBS} blobs, it says {MAX_BLOBS + 1}",
        2**32 - 1: f"weight.bin may have {MAX_BLOBS} blobs, it says {2**32 - 1}",
    }
    with pytest.raises(PackageError) as caught:
        BlobFile(path)
    beyond = "weight.bin, blob at offset 320: a record has 64 bytes, the file has 259 bytes altogether"
    assert str(caught.value) == expected.get(count, beyond)


@pytest.mark.parametrize("version", [0, 1, 3, 2**32 - 1])
def test_other_versions_are_refused(tmp_path, version):
    path = written(tmp_path / "weight.bin", ("uint8", b"\1", 0), version=version)
    with pytest.raises(UnsupportedError, match=f"^weight.bin is of storage version {version}, only 2 is known$"):
        BlobFile(path)


def test_bytes_behind_the_last_blob_are_refused(tmp_path):
    path = written(tmp_path / "weight.bin", ("uint8", b"\1", 0), tail=b"\0")
    with pytest.raises(PackageError, match=r"^the 1 blobs of weight.bin end at byte 129, the file at 130$"):
        BlobFile(path)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = written(tmp_path / "weight.bin", ("uint8", b"\1\2\3", 0))
    file = BlobFile(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackageError, match=r"^weight.bin became shorter while it was read$"):
        file.tensor(64, TensorType(ELEMENTS["uint8"], (3,)))


def test_truncation_anywhere_is_refused(elements, tmp_path):
    package, _ = elements
    data = (package / WEIGHTS).read_bytes()
    path = tmp_path / "weight.bin"
    for length in sorted({*range(0, len(data), ALIGNMENT), *range(len(data) - 70, len(data)), 1, 7, 63, 65}):
        path.write_bytes(data[:length])
        with pytest.raises(PackageError):
            BlobFile(path)


def test_any_flipped_bit_of_a_record_or_the_header_is_refused_or_harmless(elements, tmp_path):
    """A flip in what is read of the header and the records is refused: by the file, or by the type that is asked for.
    A flip in reserved bytes and between blobs changes no value; one in the data changes that value alone."""
    package, _ = elements
    data = (package / WEIGHTS).read_bytes()
    path = tmp_path / "weight.bin"
    path.write_bytes(data)
    whole = BlobFile(path)
    before = contents(path)
    read = np.zeros(len(data), bool)
    read[:8] = True
    for blob in whole.blobs.values():
        read[blob.offset : blob.offset + 32] = True
    stored = np.zeros(len(data), bool)
    for blob in whole.blobs.values():
        begin = blob.offset + ALIGNMENT
        stored[begin : begin + blob.size] = True
    random = np.random.default_rng(0)
    for position in sorted({*range(8), *random.choice(len(data), 500, replace=False).tolist()}):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        if read[position]:
            with pytest.raises((PackageError, UnsupportedError)):
                file = BlobFile(path)
                for blob in whole.blobs.values():
                    file.tensor(blob.offset, TensorType(blob.element, (blob.count,)))
            continue
        after = contents(path)
        # compared as text, where nan is equal to nan
        changed = {offset for offset in before if str(before[offset]) != str(after[offset])}
        if stored[position]:
            last = max(offset for offset in before if offset < position)
            blob = whole.blobs[last]
            padding = blob.size * 8 - blob.count * blob.element.bits
            at_end = position == last + ALIGNMENT + blob.size - 1
            assert changed == {last} or (at_end and padding and not changed)
        else:
            assert not changed
