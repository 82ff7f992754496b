"""A saga's arguments: fit to be stored, rebuilt from plain JSON, compared with those of a run."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, Union
from uuid import UUID

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas import SagaUsageError
from sagas._arguments import check_storable, rebuild, rebuilder, same_arguments
from steps._dbos import PICKLE

quick = settings(max_examples=30, deadline=None)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Priority(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Item:
    sku: str
    count: int = 1


@dataclass(frozen=True)
class Order:
    id: UUID
    items: list[Item]
    price: Decimal = Decimal(0)
    colour: Colour | None = None
    placed: datetime | None = None
    by_shop: dict[str, Item] = field(default_factory=dict)
    gift: Optional[Item] = None  # noqa: UP045
    parent: Order | None = None


@dataclass
class Card:
    number: str


@dataclass
class Invoice:
    address: str


class Address(pydantic.BaseModel):
    street: str
    number: int


class Options(TypedDict, total=False):
    express: bool


class Greeter(Protocol):
    def greet(self) -> str: ...


UserId = NewType("UserId", str)
KEY = "12345678-1234-5678-1234-567812345678"
ORDER = Order(
    id=UUID(KEY),
    items=[Item("pen"), Item("ink", 2)],
    price=Decimal("9.90"),
    colour=Colour.BLUE,
    placed=datetime(2026, 5, 17, 12, 30),
    by_shop={"north": Item("pen")},
    gift=Item("bow"),
    parent=Order(UUID(KEY), []),
)


def as_json(value: Any) -> Any:
    """What a client in another language would have sent."""

    def plain(item: Any) -> Any:
        return item.value if isinstance(item, enum.Enum) else str(item)

    data = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return json.loads(json.dumps(data, default=plain))


@pytest.mark.parametrize(
    ("value", "hint", "built"),
    [
        (1, int, 1),
        (1, Any, 1),
        (None, Any, None),
        ({"a": 1}, Any, {"a": 1}),
        (1, object, 1),
        ("a", str, "a"),
        ("red", Colour, Colour.RED),
        (2, Priority, Priority.HIGH),
        (KEY, UUID, UUID(KEY)),
        ("1.10", Decimal, Decimal("1.10")),
        ("2026-05-17", date, date(2026, 5, 17)),
        ("12:30", time, time(12, 30)),
        ("2026-05-17T12:30:00+00:00", datetime, datetime.fromisoformat("2026-05-17T12:30+00:00")),
        (90, timedelta, timedelta(seconds=90)),
        (0.5, timedelta, timedelta(milliseconds=500)),
        ([1, 2], list[int], [1, 2]),
        ([KEY], list[UUID], [UUID(KEY)]),
        ([1, 2], tuple, (1, 2)),
        ([1, 2], set, {1, 2}),
        ([1, "red"], tuple[int, Colour], (1, Colour.RED)),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        ([], tuple[int, ...], ()),
        (["red"], set[Colour], {Colour.RED}),
        (["red"], frozenset[Colour], frozenset({Colour.RED})),
        ({"a": "red"}, dict[str, Colour], {"a": Colour.RED}),
        ({"a": "red"}, Mapping[str, Colour], {"a": Colour.RED}),
        ({"a": 1}, dict, {"a": 1}),
        ([{"sku": "pen"}], Sequence[Item], [Item("pen")]),
        ({KEY: 1}, dict[UUID, int], {UUID(KEY): 1}),
        ({"sku": "pen"}, Item, Item("pen")),
        ({"sku": "pen"}, Annotated[Item, "doc"], Item("pen")),
        (None, Item | None, None),
        ({"sku": "pen"}, Item | None, Item("pen")),
        ({"sku": "pen"}, Optional[Item], Item("pen")),  # noqa: UP045
        ({"sku": "pen"}, Union[None, Item], Item("pen")),  # noqa: UP007
        ({"address": "here"}, Card | Invoice, Invoice("here")),
        ([{"sku": "pen"}], list[Item] | None, [Item("pen")]),
        ({"sku": "pen"}, list[Item] | Item, Item("pen")),
        ([{"sku": "pen"}], Item | list[Item], [Item("pen")]),
        ("a word", str | date, "a word"),
        ("2026-05-17", date | str, date(2026, 5, 17)),
        ("a word", date | str, "a word"),
        ("a word", Decimal | str, "a word"),
        (3, int | str, 3),
        ({"street": "a", "number": 1}, Address, Address(street="a", number=1)),
        ([{"street": "a", "number": 1}], list[Address], [Address(street="a", number=1)]),
        ({"express": True}, Options, {"express": True}),
        ("x", Literal["x", "y"], "x"),
        ("u1", UserId, "u1"),
        (None, None, None),
    ],
)
def test_plain_json_is_rebuilt(value: Any, hint: Any, built: Any) -> None:
    """Arguments that arrive as plain JSON become what the type hints say."""
    got = rebuild(value, hint)
    assert got == built
    assert type(got) is type(built)


def test_a_nested_dataclass_is_rebuilt() -> None:
    """Dataclasses within dataclasses, lists, dicts and optionals come back equal."""
    assert rebuild(as_json(ORDER), Order) == ORDER


@quick
@given(
    st.builds(
        Order,
        id=st.uuids(),
        items=st.lists(st.builds(Item, sku=st.text(), count=st.integers()), max_size=3),
        price=st.decimals(allow_nan=False),
        colour=st.none() | st.sampled_from(Colour),
        placed=st.none() | st.datetimes(),
        by_shop=st.dictionaries(st.text(), st.builds(Item, sku=st.text()), max_size=2),
        gift=st.none() | st.builds(Item, sku=st.text()),
        parent=st.none(),
    )
)
def test_any_order_is_rebuilt(order: Order) -> None:
    """Whatever is in it, a dataclass survives a trip through plain JSON."""
    assert rebuild(as_json(order), Order) == order


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (ORDER, Order),
        (ORDER, Order | None),
        (ORDER, Any),
        (Item("pen"), Item),
        ([Item("pen")], list[Item]),
        ({"a": Item("pen")}, dict[str, Item]),
        ((1, Colour.RED), tuple[int, Colour]),
        ({1, 2}, set[int]),
        (Colour.RED, Colour),
        (Decimal(1), Decimal),
        (Address(street="a", number=1), Address),
        (b"x", bytes),
        (True, bool),
    ],
)
def test_what_is_right_already_stays(value: Any, hint: Any) -> None:
    """Arguments that were pickled arrive as what they are, and stay so."""
    assert rebuild(value, hint) == value
    assert type(rebuild(value, hint)) is type(value)


def test_a_hint_that_cannot_be_checked_changes_nothing() -> None:
    """A protocol says nothing about how to build a value: it stays what it is."""
    value = object()
    assert rebuild(value, Greeter) is value


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ({"sku": "pen", "colour": 1}, Item, "Item has no field 'colour'"),
        ({"id": "nonsense", "items": []}, Order, "field 'id' of Order"),
        ({"id": KEY, "items": [], "price": "much"}, Order, "field 'price' of Order"),
        ({"id": KEY, "items": [{"skew": 1}]}, Order, "field 'items' of Order.*no field 'skew'"),
        ({"id": KEY, "items": [], "colour": "pink"}, Order, "field 'colour' of Order.*pink"),
        ({}, Item, "sku"),
        ("pink", Colour, "pink"),
        ("soon", datetime, "soon"),
        ([1], tuple[int, int], "zip"),
        ({"street": "a", "number": "x"}, Address, "number"),
        ("much", Decimal, "much|Decimal|Conversion"),
    ],
)
def test_what_cannot_be_rebuilt_is_named(value: Any, hint: Any, words: str) -> None:
    """A value that does not fit its hint is refused, and the message names the field."""
    with pytest.raises((ValueError, TypeError), match=words):
        rebuild(value, hint)


def test_all_arguments_of_a_call_are_rebuilt() -> None:
    """Positional, keyword, `*args` and `**kwargs` are rebuilt, each by its own hint."""

    def fn(item: Item, colour: Colour, *more: Item, at: date, **named: Colour) -> None: ...

    call = rebuilder(fn)
    args, kwargs = call(({"sku": "a"}, "red", {"sku": "b"}), {"at": "2026-05-17", "x": "blue"})
    assert args == (Item("a"), Colour.RED, Item("b"))
    assert kwargs == {"at": date(2026, 5, 17), "x": Colour.BLUE}


def test_arguments_without_hints_stay() -> None:
    """A parameter without a hint, or with one that cannot be resolved, gets what arrived."""

    def fn(a, b, *rest, **named):  # type: ignore[no-untyped-def]
        ...

    def broken(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert rebuilder(fn)((1, {"x": 2}, 3), {"k": None}) == ((1, {"x": 2}, 3), {"k": None})
    assert rebuilder(broken)(({"x": 2},), {}) == (({"x": 2},), {})


def test_arguments_that_do_not_fit_the_call() -> None:
    """A call from outside with wrong arguments fails as a call does."""

    def fn(item: Item) -> None: ...

    with pytest.raises(TypeError, match="item"):
        rebuilder(fn)((), {})


def fulfil(order: Any, *rest: Any, note: Any = "", **more: Any) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((ORDER, 2, 3), {"note": "x", "k": [1]}), (([1],), {})],
)
def test_what_can_be_stored_passes(args: Any, kwargs: Any) -> None:
    """Arguments that survive being stored are accepted as they are."""
    check_storable(inspect.signature(fulfil), "fulfil", PICKLE, args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "name", "kind"),
    [
        ((threading.Lock(),), {}, "order", "lock"),
        ((lambda: 1,), {}, "order", "function"),
        ((1, 2, open), {"note": (x for x in ())}, "note", "generator"),
        ((1, threading.Lock()), {}, "rest", "tuple"),
        ((1,), {"k": threading.Lock()}, "more", "dict"),
    ],
)
def test_the_argument_that_cannot_be_stored_is_named(
    args: Any, kwargs: Any, name: str, kind: str
) -> None:
    """The refusal names the argument and its type, before anything is started."""
    with pytest.raises(SagaUsageError, match=f"Argument '{name}' of saga 'fulfil'.*{kind}") as e:
        check_storable(inspect.signature(fulfil), "fulfil", PICKLE, args, kwargs)
    assert "Nothing was started" in str(e.value)


def test_arguments_that_do_not_fit_are_a_type_error() -> None:
    """A start that does not fit the saga's parameters fails as a call does."""
    with pytest.raises(TypeError, match="order"):
        check_storable(inspect.signature(fulfil), "fulfil", PICKLE, (), {})


class ByIdentity:
    def __init__(self, n: int) -> None:
        self.n = n


class Incomparable:
    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


def same(fn: Callable[..., Any], given_args: Any, stored_args: Any) -> bool | None:
    args, kwargs = given_args
    stored = {"args": list(stored_args[0]), "kwargs": stored_args[1]}
    return same_arguments(fn, PICKLE, (args, kwargs), stored)


def untyped(a, b=2):  # type: ignore[no-untyped-def]
    ...


def typed(order: Order, *, note: str = "") -> None: ...


@pytest.mark.parametrize(
    ("fn", "now", "then", "answer"),
    [
        (untyped, ((1,), {}), ((1,), {}), True),
        (untyped, ((1,), {}), ((1, 2), {}), True),
        (untyped, ((), {"a": 1}), ((1,), {"b": 2}), True),
        (untyped, ((1,), {}), ((2,), {}), False),
        (untyped, ((1,), {}), ((1, 3), {}), False),
        (untyped, (({"x": 1, "y": 2},), {}), (({"y": 2, "x": 1},), {}), True),
        (untyped, (({1, 9, 17},), {}), (({17, 9, 1},), {}), True),
        (untyped, (({1, 2},), {}), (({1, 3},), {}), False),
        (untyped, ((float("nan"),), {}), ((float("nan"),), {}), True),
        (untyped, ((ByIdentity(1),), {}), ((ByIdentity(1),), {}), True),
        (untyped, ((ByIdentity(1),), {}), ((ByIdentity(2),), {}), None),
        (untyped, (([ByIdentity(1)],), {}), (([ByIdentity(2)],), {}), None),
        (untyped, (({"k": (ByIdentity(1),)},), {}), (({"k": (ByIdentity(2),)},), {}), None),
        (untyped, ((Incomparable(1),), {}), ((Incomparable(1),), {}), True),
        (untyped, ((Incomparable(1),), {}), ((Incomparable(2),), {}), None),
        (typed, ((ORDER,), {}), ((ORDER,), {"note": ""}), True),
        (typed, ((ORDER,), {}), ((as_json(ORDER),), {}), True),
        (typed, ((ORDER,), {}), ((Order(UUID(KEY), []),), {}), False),
        (typed, ((ORDER,), {}), (({"id": "nonsense"},), {}), False),
        (typed, ((ORDER,), {}), ((), {}), False),
    ],
)
def test_whether_arguments_are_the_same(fn: Any, now: Any, then: Any, answer: bool | None) -> None:
    """Arguments are compared by what they mean; where that cannot be told, the answer is None."""
    assert same(fn, now, then) is answer


@pytest.mark.parametrize("stored", [None, "an input that no longer loads", 3])
def test_stored_arguments_that_cannot_be_read(stored: Any) -> None:
    """Arguments that no longer load are neither the same nor others."""
    assert same_arguments(untyped, PICKLE, ((1,), {}), stored) is None


@quick
@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_arguments_are_the_same_as_themselves(value: Any) -> None:
    """A start that is repeated is recognised, whatever plain data it is given."""
    copy = PICKLE.loads(PICKLE.dumps(value))
    assert same(untyped, ((value,), {}), ((copy,), {})) is True
