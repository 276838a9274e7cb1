"""Learn a small byte-pair encoding and write it as GLM-4's tokenizer files."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# The pattern of agent.speech.text_tokenizer for text in ASCII: this only chooses the pieces, the
# shipped tokenizer still cuts any text by the full pattern.
_WORDS = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}"
    r"| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# In the published order: the ids follow the text tokens.
SPECIAL = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|begin_of_audio|>",
    "<|end_of_audio|>",
    "<|begin_of_transcription|>",
    "<|end_of_transcription|>",
)


def learn(texts: Iterable[str], size: int) -> list[bytes]:
    """Byte-pair encoding (Sennrich et al. 2016) over bytes, merged inside words only.

    Args:
        texts: ASCII text; what occurs more often gets longer pieces.
        size: Most tokens, the 256 bytes included.

    Returns:
        Tokens by rank; fewer than ``size`` when every word is a token already.
    """
    counts = Counter(word for text in texts for word in _WORDS.findall(text))
    words = {word: [bytes([byte]) for byte in word.encode()] for word in counts}
    tokens = [bytes([byte]) for byte in range(256)]
    known = set(tokens)
    while len(tokens) < size:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, pieces in words.items():
            for pair in itertools.pairwise(pieces):
                pairs[pair] += counts[word]
        if not pairs:
            break
        # Ties go by the bytes, so that the result does not depend on the order of the texts.
        first, second = max(pairs, key=lambda pair: (pairs[pair], pair))
        merged = first + second
        if merged not in known:
            known.add(merged)
            tokens.append(merged)
        for pieces in words.values():
            position = 0
            while position < len(pieces) - 1:
                if pieces[position] == first and pieces[position + 1] == second:
                    pieces[position : position + 2] = [merged]
                position += 1
    return tokens


def write(tokens: list[bytes], codes: int, out: Path, seq_length: int) -> int:
    """Write ``tokenizer.model`` and ``tokenizer_config.json``.

    Args:
        tokens: Text tokens by rank.
        codes: Number of speech codes; ``<|audio_0|>`` and on are the last ids.
        out: The directory.
        seq_length: The model's number of positions.

    Returns:
        The number of ids.
    """
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    (out / "tokenizer.model").write_text("".join(lines), encoding="ascii")
    added = [*SPECIAL, *(f"<|audio_{code}|>" for code in range(codes))]
    config = {
        "added_tokens_decoder": {
            str(len(tokens) + index): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for index, token in enumerate(added)
        },
        "additional_special_tokens": list(SPECIAL),
        "clean_up_tokenization_spaces": False,
        "do_lower_case": False,
        "eos_token": "<|endoftext|>",
        "model_max_length": seq_length,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "remove_space": False,
        "tokenizer_class": "ChatGLM4Tokenizer",
    }
    path = out / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return len(tokens) + len(added)
