"""Every error of both packages: how it is made, and that nothing of it is lost in a pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import sagas
import steps
from sagas import Failure, NotUndone, StepRef
from steps import RetriesExhaustedError

CAUSE = Failure("charge", 2, "shop.CardError", "no money", "Traceback ...")
FACTS: dict[str, Any] = {
    "saga_id": "order-7",
    "failure": CAUSE,
    "undone": [StepRef(3, "pack"), StepRef(1, "reserve")],
}
HELD = {
    "saga_id": "order-7",
    "failure": CAUSE,
    "undone": (StepRef(3, "pack"), StepRef(1, "reserve")),
}
LEFT = (NotUndone(1, "reserve", CAUSE), NotUndone(0, "open", None))

EXAMPLES: dict[type[Exception], tuple[Exception, dict[str, Any]]] = {
    steps.StepError: (steps.StepError("m"), {}),
    steps.StepDefinitionError: (steps.StepDefinitionError("m"), {}),
    steps.StepTimeoutError: (
        steps.StepTimeoutError("charge", 2.5),
        {"name": "charge", "timeout": 2.5},
    ),
    steps.NonRetryableError: (steps.NonRetryableError("m", 1), {}),
    steps.OutcomeUnknownError: (steps.OutcomeUnknownError("m"), {}),
    steps.RetriesExhaustedError: (
        steps.RetriesExhaustedError("charge", 3, [KeyError("a"), OSError("b")]),
        {"name": "charge", "attempts": 3},
    ),
    steps.StepFailedError: (
        steps.StepFailedError("shop.CardError", "no", "Traceback ..."),
        {"error_type": "shop.CardError", "message": "no", "traceback": "Traceback ..."},
    ),
    sagas.SagaError: (sagas.SagaError("m"), {}),
    sagas.SagaDefinitionError: (sagas.SagaDefinitionError("m"), {}),
    sagas.SagaOutcomeError: (sagas.SagaOutcomeError("m", **FACTS), HELD),
    sagas.SagaFailedError: (sagas.SagaFailedError("m", **FACTS), HELD),
    sagas.SagaCancelledError: (
        sagas.SagaCancelledError("m", reason="customer", **FACTS),
        {**HELD, "reason": "customer"},
    ),
    sagas.SagaTimeoutError: (sagas.SagaTimeoutError("m", **FACTS), HELD),
    sagas.SagaParkedError: (
        sagas.SagaParkedError("m", reason="code changed", **FACTS),
        {**HELD, "reason": "code changed"},
    ),
    sagas.CompensationFailedError: (
        sagas.CompensationFailedError("m", reason="r", not_undone=list(LEFT), **FACTS),
        {**HELD, "reason": "r", "not_undone": LEFT},
    ),
    sagas.SagaTerminatedError: (sagas.SagaTerminatedError("m", **FACTS), HELD),
    sagas.SagaNotFoundError: (sagas.SagaNotFoundError("m"), {}),
    sagas.SagaConflictError: (sagas.SagaConflictError("m"), {}),
    sagas.PivotPassedError: (sagas.PivotPassedError("m"), {}),
    sagas.SagaUsageError: (sagas.SagaUsageError("m"), {}),
}

PUBLIC = [
    item
    for module in (steps, sagas)
    for item in (getattr(module, name) for name in module.__all__)
    if isinstance(item, type) and issubclass(item, BaseException)
]


class StrangeError(steps.StepError):
    """A user's error with a constructor that pickle cannot call."""

    def __init__(self, *, code: int, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_every_error_has_an_example(cls: type[Exception]) -> None:
    """A new error cannot be exported without being tried here."""
    assert cls in EXAMPLES
    assert type(EXAMPLES[cls][0]) is cls


@pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)
def test_every_error_tells_its_facts(cls: type[Exception]) -> None:
    """The facts of an error are attributes."""
    error, facts = EXAMPLES[cls]
    assert {name: getattr(error, name) for name in facts} == facts


@pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)
def test_every_error_survives_a_pickle(cls: type[Exception]) -> None:
    """Class, text, arguments and facts come back from the database as they went."""
    error, facts = EXAMPLES[cls]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))
        assert type(back) is cls
        assert (str(back), repr(back)) == (str(error), repr(error))
        assert {name: getattr(back, name) for name in facts} == facts
        assert set(vars(back)) == set(vars(error))


@pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)
def test_every_error_can_be_copied(cls: type[Exception]) -> None:
    """A deep copy of an error has its facts too."""
    error, facts = EXAMPLES[cls]
    twin = copy.deepcopy(error)
    assert {name: getattr(twin, name) for name in facts} == facts


@pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)
def test_every_error_is_stored_under_its_public_name(cls: type[Exception]) -> None:
    """A module of ours can be moved without stranding what is stored."""
    assert cls.__module__ in ("steps", "sagas")
    assert f"{cls.__module__}\n{cls.__name__}".encode() in pickle.dumps(EXAMPLES[cls][0], 0)


def test_the_errors_of_all_attempts_survive() -> None:
    """Each error of a step that was tried several times is kept."""
    error = EXAMPLES[RetriesExhaustedError][0]
    back = pickle.loads(pickle.dumps(error))
    assert [(type(e), e.args) for e in back.errors] == [(KeyError, ("a",)), (OSError, ("b",))]


def test_a_users_subclass_survives() -> None:
    """A subclass with a keyword-only constructor survives without code of its own."""
    back = pickle.loads(pickle.dumps(StrangeError(code=3, hint="again")))
    assert (type(back), back.args, back.code, back.hint) == (StrangeError, ("code 3",), 3, "again")


def test_what_is_added_to_an_error_survives() -> None:
    """Notes and attributes that were added later come back."""
    error = steps.NonRetryableError("m")
    error.add_note("seen at noon")
    error.order = 7  # type: ignore[attr-defined]
    back = pickle.loads(pickle.dumps(error))
    assert (back.__notes__, back.order) == (["seen at noon"], 7)


def test_the_tree_of_errors() -> None:
    """What catches what is part of the contract."""
    tree = {cls.__name__: cls.__bases__[0].__name__ for cls in PUBLIC}
    assert tree == {
        "StepError": "PlainDataError",
        "StepDefinitionError": "StepError",
        "StepTimeoutError": "StepError",
        "NonRetryableError": "StepError",
        "OutcomeUnknownError": "StepError",
        "RetriesExhaustedError": "StepError",
        "StepFailedError": "StepError",
        "SagaError": "PlainDataError",
        "SagaDefinitionError": "SagaError",
        "SagaOutcomeError": "SagaError",
        "SagaFailedError": "SagaOutcomeError",
        "SagaCancelledError": "SagaFailedError",
        "SagaTimeoutError": "SagaFailedError",
        "SagaParkedError": "SagaOutcomeError",
        "CompensationFailedError": "SagaParkedError",
        "SagaTerminatedError": "SagaOutcomeError",
        "SagaNotFoundError": "SagaError",
        "SagaConflictError": "SagaError",
        "PivotPassedError": "SagaError",
        "SagaUsageError": "SagaError",
    }


def test_records_read_well() -> None:
    """What an operator reads of a failure names the step, its ID and the error."""
    assert str(CAUSE) == "step 2 'charge' failed with shop.CardError: no money"
    assert str(Failure(None, None, "E", "m")) == "the saga's body failed with E: m"
    assert str(StepRef(3, "pack")) == "3:pack"
    assert [str(n) for n in LEFT] == ["1:reserve (shop.CardError)", "0:open (not tried)"]
