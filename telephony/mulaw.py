"""G.711 mu-law, the only codec of a Twilio Media Stream, as two numpy tables.

Source: ITU-T Recommendation G.711 (11/1988), tables 2a and 2b, in the usual 16-bit scaling.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SILENCE = 0xFF
"""The byte of a sample of value zero."""

_BIAS = 0x84
_CLIP = 0x7FFF - _BIAS


def _decode_table() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8)
    exponent = ((code >> 4) & 0x07).astype(np.int32)
    mantissa = (code & 0x0F).astype(np.int32)
    magnitude = (((mantissa << 3) + _BIAS) << exponent) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _encode_table() -> npt.NDArray[np.uint8]:
    """Bytes for every 16-bit sample, indexed by the sample's bits read as unsigned."""
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    biased = np.minimum(np.abs(sample), _CLIP) + _BIAS
    exponent = np.floor(np.log2(biased)).astype(np.int32) - 7
    mantissa = (biased >> (exponent + 3)) & 0x0F
    sign = np.where(sample < 0, 0x80, 0)
    code: npt.NDArray[np.uint8] = (sign | (exponent << 4) | mantissa).astype(np.uint8)
    return ~code


_DECODED = _decode_table()
_ENCODED = _encode_table()


def decode(payload: bytes) -> npt.NDArray[np.int16]:
    """Expand mu-law bytes, one a sample, to int16 samples ``[n]`` (full scale is +-32124)."""
    return _DECODED[np.frombuffer(payload, dtype=np.uint8)]


def encode(samples: npt.NDArray[np.int16]) -> bytes:
    """Compress int16 samples ``[n]`` to mu-law bytes, one a sample; beyond +-32635 they clip."""
    return _ENCODED[np.ascontiguousarray(samples, dtype=np.int16).view(np.uint16)].tobytes()
