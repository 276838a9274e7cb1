"""What a call tells whoever watches it: named events with plain fields."""

from typing import Protocol, TypeAlias

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"


class CallObserver(Protocol):
    """Receives the events of one call, as they happen.

    The observer stamps each event with the time it arrives. Turns count from 0 within a call; the
    greeting is turn 0. Names and their fields:

    ================== ================================================================
    call_offered       call_sid, direction, and as far as known caller, called, agent: its webhook
                       has come, or we dial it
    call_waiting       agent, ahead: calls that wait for a place before it
    call_forwarded     agent, reason: sent to another number; waited: seconds, where it waited
    forward_failed     status: what Twilio said of the call to that number
    call_refused       reason: no_agent, closed, busy, draining or engine; agent, waited as above
    call_started       call_sid, agent; waited: seconds, where it waited
    greeting_ready     ahead: seconds since the greeting's first sound was made; not written where
                       that was still to come
    time_warning       seconds: after so long the call is ended; the agent says so in the next gap
    goodbye            reason: time_limit, silence or drain; the agent's last words follow
    caller_speech_started
    caller_speech_stopped  (by the VAD, which waits a moment to be sure)
    false_interruption  spoken, paused: seconds that the caller spoke over the agent, and that the
                       agent was silent for it; too short for an interruption, the agent goes on
    silence_prompt     number, silence: the caller says nothing for so many seconds and is asked
    turn_decided       the caller's turn is over and will be answered; turn
    early_answer_dropped  seconds: the caller went on; so long an answer was made in vain
    answer_started     turn, ahead: seconds by which it was begun before the turn was decided
    first_token        turn, tokenise, first_token: seconds inside the engine
    first_audio        turn, first_audio: seconds inside the engine; saved: seconds by which an
                       early beginning brought it nearer
    caller_text        turn, text: the caller's words, as the model understood them
    agent_text         turn, text: the next piece of what the agent says
    answer_finished    turn, text: the model has said all of it (the phone may still play)
    interrupted        turn, heard_seconds, heard_text
    heard              turn, text: what the caller heard of the answer, once that is settled
    tool_call          turn, name, arguments (an object), call_id: the agent calls a tool
    message_taken      turn, text, and name and number or null: for somebody else
    tool_result        turn, call_id, and result or, where the tool failed, error (a text)
    keys_typed         keys: how many, digits: as many asterisks
    transfer_started   warm, summary: what it is about, or null
    transfer_failed    message
    call_transferred   to: the number
    recording          by: gateway or twilio; path or recording_sid
    recording_paused
    recording_resumed
    recording_ended    seconds; of Twilio's recording also recording_sid and url
    call_dialled       call_sid, agent: a call is made from here
    answered_by        answered_by: what machine detection found
    call_not_answered  status: busy, no-answer, failed or canceled
    error              message, and the turn where there is one; a Python function that is a tool
                       may write events of its own names
    engine_failed      message: in the middle of the call; the caller hears an apology
    engine_recovered   where: the engine that goes on; seconds: after the failure was noticed
    call_ended         cause
    ================== ================================================================
    """

    def event(self, name: str, /, **fields: JSON) -> None:
        """Take one event.

        Args:
            name: One of the static names above.
            **fields: Values that JSON can carry.
        """
        ...
