"""A caller with a goal: a small state machine that the agent's words move on."""

import re

from agent.evaluation.wording import says
from telephony.simulator.report import Check
from telephony.simulator.scenario import Goal, Moment, State, Transition


class Errand:
    """One caller's way through the states of its goal.

    Attributes:
        path: Names of the states it has been in, the present one last.
    """

    def __init__(self, goal: Goal) -> None:
        """Begin at the goal's first state."""
        self._goal = goal
        self._said = 0
        self.path = [goal.start]

    @property
    def state(self) -> State:
        """Where it is."""
        return self._goal.states[self.path[-1]]

    @property
    def over(self) -> bool:
        """There is nothing left to react to."""
        return self.state.success is not None or self._said >= self._goal.longest_turns

    @property
    def listen(self) -> Moment:
        """When it has heard enough to react."""
        return self.state.listen

    def line(self) -> int | None:
        """Index, in the goal's lines, of what is said now; None in a final state without words."""
        state = self.state
        if not state.say:
            return None
        self._said += 1
        before = 0
        for name, other in self._goal.states.items():
            if name == self.path[-1]:
                break
            before += len(other.say)
        return before + min(self.path.count(self.path[-1]), len(state.say)) - 1

    def follow(self, text: str | None, spoke: bool) -> None:
        """Go on to the next state.

        Args:
            text: What the agent said, or None where nobody can tell.
            spoke: It could be heard at all.
        """
        visits = self.path.count(self.path[-1])
        for transition in self.state.next:
            if _holds(transition, text, spoke, visits):
                self.path.append(transition.to)
                return
        self.path.append(self.path[-1])

    def check(self) -> Check:
        """Whether it got what it wanted."""
        return Check(
            name="goal",
            expected="the caller reaches a state of success",
            found=" > ".join(self.path),
            passed=self.state.success is True,
        )


def _holds(transition: Transition, text: str | None, spoke: bool, visits: int) -> bool:
    if transition.silent is not None and transition.silent == spoke:
        return False
    if transition.visits is not None and visits < transition.visits:
        return False
    if text is None:
        return not transition.words and transition.matches is None
    if not all(says(text, phrase) for phrase in transition.words):
        return False
    return transition.matches is None or bool(re.search(transition.matches, text, re.IGNORECASE))
