import numpy as np
import pytest

from telephony import mulaw

EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)


def test_the_ends_and_the_middle_of_the_table_are_those_of_g711():
    # G.711 table 2a: the largest decoded value is 8031 in 14 bits, 32124 in 16.
    decoded = mulaw.decode(bytes([0x80, 0x00, 0xFF, 0x7F, 0xFE, 0x7E, 0xF0, 0xE7]))
    assert decoded.tolist() == [32124, -32124, 0, 0, 8, -8, 120, 260]


def test_every_byte_survives_a_round_trip():
    every_byte = bytes(range(256))
    survived = mulaw.encode(mulaw.decode(every_byte))
    # There are two zeros; the negative one becomes the positive one.
    assert survived == every_byte.replace(b"\x7f", b"\xff")


def test_silence_is_the_byte_of_zero():
    assert mulaw.encode(np.zeros(3, np.int16)) == bytes([mulaw.SILENCE] * 3)


def test_the_error_is_at_most_half_a_step_of_the_segment():
    decoded = mulaw.decode(mulaw.encode(EVERY_SAMPLE)).astype(int)
    magnitude = np.abs(EVERY_SAMPLE.astype(int))
    step = 8 << np.floor(np.log2((np.minimum(magnitude, 32635) + 132) / 128)).astype(int)
    error = np.abs(decoded - EVERY_SAMPLE)
    inside = magnitude <= 32635
    assert (error[inside] <= step[inside] // 2).all()
    assert (error[~inside] <= 32768 - 32124).all()


def test_louder_never_decodes_to_quieter():
    assert (np.diff(mulaw.decode(mulaw.encode(EVERY_SAMPLE)).astype(int)) >= 0).all()


@pytest.mark.parametrize("stride", [2, -1])
def test_samples_that_are_not_contiguous_are_encoded_in_order(stride):
    samples = EVERY_SAMPLE[::stride]
    assert mulaw.encode(samples) == mulaw.encode(samples.copy())
