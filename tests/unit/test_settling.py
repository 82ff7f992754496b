"""What to do about a step whose outcome is not known: every case."""

from __future__ import annotations

import itertools

import pytest

from sagas._settling import (
    Move,
    Verdict,
    after_failure,
    first_move,
    is_definite,
    is_unsure,
    says_nothing,
)
from steps import NonRetryableError, OutcomeUnknownError, StepFailedError, StepTimeoutError

BOTH = (False, True)


@pytest.mark.parametrize(
    ("policy", "going_on", "stopped", "dead_letter"),
    [
        # (undoable, has_probe, attempted)
        ((False, False, False), Move.RUN, Move.REFUSE, Move.REFUSE),
        ((False, False, True), Move.RUN, Move.REFUSE, Move.REFUSE),
        ((False, True, False), Move.ASK_THEN_RUN, Move.ASK_THEN_REFUSE, Move.ASK_THEN_REFUSE),
        ((True, True, False), Move.ASK_THEN_RUN, Move.ASK_THEN_REFUSE, Move.ASK_THEN_REFUSE),
        ((True, False, True), Move.RUN, Move.REFUSE_BEGUN, Move.REFUSE_BEGUN),
        ((True, False, False), Move.SETTLE, Move.SETTLE, Move.PARK),
    ],
)
def test_a_step_in_doubt(
    policy: tuple[bool, bool, bool], going_on: Move, stopped: Move, dead_letter: Move
) -> None:
    """What is done depends on what the step says of unknown outcomes, and on what stops it."""
    undoable, has_probe, attempted = policy

    def move(*, stopping: bool, dead: bool) -> Move:
        return first_move(
            in_doubt=True,
            stopping=stopping,
            dead_letter=dead,
            undoable=undoable,
            has_probe=has_probe,
            attempted=attempted,
        )

    assert move(stopping=False, dead=False) is going_on
    assert move(stopping=True, dead=False) is stopped
    assert move(stopping=True, dead=True) is dead_letter


@pytest.mark.parametrize("stopping", BOTH)
def test_a_step_that_is_not_in_doubt(stopping: bool) -> None:
    """It is run, or refused, whatever it says of unknown outcomes."""
    for dead, undoable, probe, attempted in itertools.product(BOTH, repeat=4):
        move = first_move(
            in_doubt=False,
            stopping=stopping,
            dead_letter=dead,
            undoable=undoable,
            has_probe=probe,
            attempted=attempted,
        )
        assert move is (Move.REFUSE if stopping else Move.RUN)


LATE = StepTimeoutError("charge", 1)
UNSURE = OutcomeUnknownError("who knows")
NO_ANSWER = ConnectionError("no answer")
DECLINED = NonRetryableError("declined")
FAILED = StepFailedError("Declined", "no")

Case = tuple[list[Exception], bool, str, Verdict]
CASES: list[Case] = [
    # errors of the attempts, settling, policy
    ([NO_ANSWER], False, "completed", Verdict.FAILED),
    ([NO_ANSWER], False, "attempted", Verdict.FAILED),
    ([NO_ANSWER], False, "probe", Verdict.FAILED),
    ([LATE], False, "completed", Verdict.FAILED),
    ([LATE], False, "attempted", Verdict.FAILED),
    ([LATE], False, "probe", Verdict.ASK),
    ([LATE, NO_ANSWER], False, "probe", Verdict.ASK),
    ([LATE, NO_ANSWER], False, "completed", Verdict.FAILED),
    ([LATE, DECLINED], False, "probe", Verdict.FAILED),
    ([UNSURE], False, "completed", Verdict.PARK),
    ([UNSURE], False, "attempted", Verdict.FAILED),
    ([UNSURE], False, "probe", Verdict.ASK),
    ([UNSURE, NO_ANSWER], False, "completed", Verdict.PARK),
    ([UNSURE, NO_ANSWER], False, "probe", Verdict.ASK),
    ([UNSURE, DECLINED], False, "completed", Verdict.FAILED),
    ([UNSURE, FAILED], False, "completed", Verdict.FAILED),
    ([NO_ANSWER], True, "completed", Verdict.PARK),
    ([LATE], True, "completed", Verdict.PARK),
    ([UNSURE], True, "completed", Verdict.PARK),
    ([DECLINED], True, "completed", Verdict.FAILED),
    ([FAILED], True, "completed", Verdict.FAILED),
    ([NO_ANSWER], True, "attempted", Verdict.FAILED),
    ([NO_ANSWER], True, "probe", Verdict.ASK),
    ([DECLINED], True, "probe", Verdict.FAILED),
    ([], False, "completed", Verdict.FAILED),
    ([], True, "probe", Verdict.FAILED),
]


@pytest.mark.parametrize(("errors", "settling", "policy", "verdict"), CASES)
def test_attempts_that_failed(
    errors: list[Exception], settling: bool, policy: str, verdict: Verdict
) -> None:
    """What it means depends on every attempt, and on why there were any."""
    found = after_failure(
        errors[-1] if errors else None,
        any_unknown=any(map(says_nothing, errors)),
        any_unsure=any(map(is_unsure, errors)),
        settling=settling,
        has_probe=policy == "probe",
        attempted=policy == "attempted",
    )
    assert found is verdict


@pytest.mark.parametrize(
    ("error", "nothing", "unsure", "definite"),
    [
        (LATE, True, False, False),
        (UNSURE, True, True, False),
        (NO_ANSWER, False, False, False),
        (DECLINED, False, False, True),
        (FAILED, False, False, True),
        (None, False, False, False),
    ],
)
def test_what_an_error_says(
    error: Exception | None, nothing: bool, unsure: bool, definite: bool
) -> None:
    """Of the effect of the attempt that raised it."""
    assert (says_nothing(error), is_unsure(error), is_definite(error)) == (
        nothing,
        unsure,
        definite,
    )
