"""What callers are told where an agent's settings say nothing else, by language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sentences:
    """Whole sentences for one language.

    Attributes:
        busy: Every line is taken.
        wait: Every line is taken; the caller stays on the phone.
        closed: Outside opening hours.
        forward: The caller is connected with another number.
        apology: The call cannot be answered: the engine, or that other number, does not.
        nobody: No agent has the number that was called.
        goodbye: The call ends now though nobody wants it to.
        silence_prompt: The caller says nothing.
        silence_goodbye: The call ends now because the caller says nothing.
        time_warning: The call is to end soon.
        waiting: To somebody who is called for a caller, where nothing else is known.
        trouble: The engine has failed in the middle of an answer, which begins anew in a moment.
        lost: No engine has come back; the call ends.
    """

    busy: str
    wait: str
    closed: str
    forward: str
    apology: str
    nobody: str
    goodbye: str
    silence_prompt: str
    silence_goodbye: str
    time_warning: str
    waiting: str
    trouble: str
    lost: str


ENGLISH = Sentences(
    busy="All of our lines are busy right now. Please call again in a few minutes. Goodbye.",
    wait="All of our lines are busy right now. Please hold the line.",
    closed="We are closed now. Please call again during our opening hours. Goodbye.",
    forward="One moment please, I am connecting you.",
    apology="We are sorry, we cannot take your call right now. Please call again later. Goodbye.",
    nobody="Nobody can be reached at this number. Goodbye.",
    goodbye="I am sorry, I have to end our call now. Goodbye.",
    silence_prompt="Are you still there?",
    silence_goodbye="I cannot hear you, so I am ending the call now. Goodbye.",
    time_warning="Before we go on: our call has to end soon.",
    waiting="A caller is waiting for you. I am connecting you.",
    trouble="Sorry, one moment please.",
    lost="I am sorry, I cannot go on with our call now. Please call again later. Goodbye.",
)
CHINESE = Sentences(
    busy="现在所有线路都在忙，请过几分钟再打来。再见。",
    wait="现在所有线路都在忙，请稍等，不要挂断。",
    closed="现在不在我们的服务时间内，请在服务时间再打来。再见。",
    forward="请稍等，正在为您转接。",
    apology="很抱歉，我们现在无法接听您的电话，请稍后再打来。再见。",
    nobody="您拨打的号码无人接听。再见。",
    goodbye="很抱歉，我现在必须结束通话了。再见。",
    silence_prompt="您还在吗？",
    silence_goodbye="我听不到您的声音，先挂断电话了。再见。",
    time_warning="提醒您一下，我们的通话时间快到了。",
    waiting="有一位来电者在等您，正在为您接通。",
    trouble="抱歉，请稍等。",
    lost="很抱歉，我现在无法继续通话，请稍后再打来。再见。",
)


def sentences(language: str) -> Sentences:
    """The sentences of a language tag such as ``en-US``; English where there are none of it."""
    return CHINESE if language.lower().split("-")[0] in ("zh", "cmn") else ENGLISH
