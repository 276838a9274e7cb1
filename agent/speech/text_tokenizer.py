"""Text to ids and back, from the checkpoint's two tokenizer files; no remote code runs."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import tiktoken

from agent.speech.checkpoint import CheckpointError, checkpoint_file, field, read_json

# How GLM-4 cuts text into words before byte-pair merging (the published tokenizer's pattern).
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_AUDIO = re.compile(r"<\|audio_(\d+)\|>")


class TextTokenizer:
    """Byte-pair encoding with the checkpoint's added tokens.

    Args:
        ranks: Bytes of every text token to its id.
        added: Added token, e.g. ``<|user|>`` or ``<|audio_0|>``, to its id.
        source: Where these come from, for messages.

    Attributes:
        audio_offset: Id of ``<|audio_0|>``.
        audio_count: Number of speech codes; code c has the id ``audio_offset + c``.
        size: One more than the largest id.

    Raises:
        CheckpointError: ``<|audio_0|>`` or one below the last ``<|audio_N|>`` is missing, or the
            speech codes do not follow each other.
    """

    def __init__(self, ranks: dict[bytes, int], added: dict[str, int], source: str | Path):
        self._source = source
        self._added = added
        self._special = frozenset(added.values())
        self._encoding = tiktoken.Encoding(
            name="glm4-voice", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=added
        )
        codes = {int(m[1]): i for name, i in added.items() if (m := _AUDIO.fullmatch(name))}
        if not codes:
            raise CheckpointError(f"{source}: added token '<|audio_0|>' is missing")
        for code in range(max(codes) + 1):
            if code not in codes:
                raise CheckpointError(f"{source}: added token '<|audio_{code}|>' is missing")
            if codes[code] != codes[0] + code:
                raise CheckpointError(
                    f"{source}: added token '<|audio_{code}|>' has id {codes[code]}, "
                    f"expected {codes[0] + code}"
                )
        self.audio_offset = codes[0]
        self.audio_count = len(codes)
        self.size = max(max(ranks.values()), max(added.values())) + 1

    @classmethod
    def from_pretrained(cls, path: str | Path) -> TextTokenizer:
        """Read the two tokenizer files of a language model's directory.

        Raises:
            CheckpointError: A file is missing or damaged; names file, line or field.
        """
        ranks = _read_ranks(checkpoint_file(path, "tokenizer.model"))
        config_path = checkpoint_file(path, "tokenizer_config.json")
        added: dict[str, int] = {}
        for number, token in field(
            read_json(config_path), "added_tokens_decoder", dict, config_path
        ).items():
            if not number.isdecimal():
                raise CheckpointError(
                    f"{config_path}: field 'added_tokens_decoder' has the key {number!r}, "
                    "expected an id"
                )
            added[field(token, "content", str, f"{config_path}: added token {number}")] = int(
                number
            )
        clash = set(added.values()) & set(ranks.values())
        if clash or len(set(added.values())) != len(added):
            raise CheckpointError(
                f"{config_path}: field 'added_tokens_decoder' uses an id twice "
                f"(tokenizer.model has {len(ranks)} ids)"
            )
        return cls(ranks, added, config_path)

    def special(self, token: str) -> int:
        """Id of an added token.

        Raises:
            CheckpointError: The checkpoint has no such token.
        """
        if token not in self._added:
            raise CheckpointError(f"{self._source}: added token {token!r} is missing")
        return self._added[token]

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which added tokens such as ``<|user|>`` are markup.

        The two tokens that start every prompt, ``[gMASK]<sop>``, are not put in front.
        """
        return self._encoding.encode(text, allowed_special="all")

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text that comes from outside: nothing in it is markup."""
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, added tokens included; bytes that are no UTF-8 become U+FFFD.

        Raises:
            ValueError: An id is in neither file.
        """
        return b"".join(self._bytes(i) for i in ids).decode("utf-8", errors="replace")

    def _bytes(self, token: int) -> bytes:
        try:
            return self._encoding.decode_single_token_bytes(token)
        except KeyError:
            raise ValueError(
                f"id {token} is no token of {self._source} (ids end at {self.size - 1})"
            ) from None

    def text_bytes(self, token: int) -> bytes:
        """Bytes of a text token; nothing for an added token or an id that has no text."""
        if token in self._special:
            return b""
        try:
            return self._encoding.decode_single_token_bytes(token)
        except KeyError:
            return b""

    def is_speech(self, token: int) -> bool:
        """Whether an id is one of the speech codes."""
        return self.audio_offset <= token < self.audio_offset + self.audio_count

    def speech_ids(self, codes: Sequence[int]) -> list[int]:
        """Ids of speech codes.

        Raises:
            ValueError: The checkpoint has no token for a code; names the first such token.
        """
        for position, code in enumerate(codes):
            if not 0 <= code < self.audio_count:
                raise ValueError(
                    f"speech token {code} at position {position}: {self._source} has no "
                    f"'<|audio_{code}|>', its codes are 0 to {self.audio_count - 1}"
                )
        return [self.audio_offset + int(code) for code in codes]


class TextStream:
    """Turns ids into text one at a time without ever splitting a character."""

    def __init__(self, tokenizer: TextTokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Iterable[int]) -> str:
        """The characters that are complete with these ids."""
        return self._decoder.decode(b"".join(map(self._tokenizer.text_bytes, ids)))

    def finish(self) -> str:
        """U+FFFD if the last character never became complete."""
        return self._decoder.decode(b"", final=True)


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(
                f"{path}, line {number}: expected a base64 token and its id ({error})"
            ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise CheckpointError(f"{path}: byte {missing[0]} has no token, so not all text has ids")
    return ranks
