"""How much of an answer's text a caller had heard after so many seconds of its audio.

The model speaks text and audio interleaved, text ahead, and gives no times for its words. So the
text heard is estimated by proportion: a word weighs its letters (and the space before it), an
ideograph as much as three letters, and weight passes evenly over the audio. Where the answer is
complete, its whole weight lies on its whole audio. Where it was cut off while still being made, the
text known is longer than the audio known, so weight passes at a usual speaking rate, or slower
where even the known text would not last that long.

A word counts as heard when all of it was: better a word too few in the history than one nobody
heard.
"""

import re

# Letters and spaces a second: English at some 160 words a minute. The voice that nano was trained
# on is a little faster (17.2 over its 84 answers), and erring on the slow side forgets a word
# rather than remember one that nobody heard.
WEIGHT_PER_SECOND = 15.0
_IDEOGRAPH_WEIGHT = 3.0

_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff"
# What can be heard or not heard: one ideograph, or one word with its punctuation.
_UNIT = re.compile(rf"\s*(?:[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+)")
_IS_IDEOGRAPH = re.compile(rf"\s*[{_IDEOGRAPHS}]")


def heard_text(text: str, seconds: float, audio_seconds: float, complete: bool) -> str:
    """Estimate which beginning of an answer's text was heard.

    Args:
        text: The text of the answer, as far as it is known.
        seconds: Seconds of the answer's audio that were heard.
        audio_seconds: Seconds of audio that go with the answer, as far as they are known.
        complete: Text and audio are all of the answer.

    Returns:
        A beginning of ``text`` that ends with a whole word; empty if not even one was heard.
    """
    if seconds <= 0 or not text:
        return ""
    if complete and seconds >= audio_seconds:
        return text
    units = list(_UNIT.finditer(text))
    weights = [_weight(unit.group()) for unit in units]
    # The text known lasts at least as long as the audio known, so it bounds the rate.
    rate = sum(weights) / max(audio_seconds, seconds)
    if not complete:
        rate = min(rate, WEIGHT_PER_SECOND)
    budget = rate * seconds + 1e-9
    end = 0
    for unit, weight in zip(units, weights, strict=True):
        budget -= weight
        if budget < 0:
            break
        end = unit.end()
    return text[:end]


def _weight(unit: str) -> float:
    return _IDEOGRAPH_WEIGHT if _IS_IDEOGRAPH.match(unit) else float(len(unit))
