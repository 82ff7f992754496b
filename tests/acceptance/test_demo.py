"""The order example: the demo as a user runs it, its services, and its audit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from examples.order_fulfillment.audit import Check, audit
from examples.order_fulfillment.books import KINDS, read_books
from examples.order_fulfillment.lives import Life, check_kills
from examples.order_fulfillment.orders import Order, load_orders, load_products
from examples.order_fulfillment.services import inventory, mail, payments, shipping, store
from sagas import SagaClient, SagaStatus

# Not imported here, as it would register the saga in the tests' own process:
# `examples.order_fulfillment.saga`, and what imports it.

ROOT = Path(__file__).parents[2]
CHECKS = ["sagas", "stock", "money", "shipments", "confirmations", "once"]


def run_demo(
    *command: str, url: str | None = None, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run the demo, on `url` or as it runs by itself, with its files in `folder`."""
    given = {} if url is None else {"DBOS_SYSTEM_DATABASE_URL": url}
    return subprocess.run(
        [sys.executable, *(command or ("-m", "examples.order_fulfillment"))],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), **given},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=180,
        check=False,
    )


def check_output(output: str) -> None:
    """See that the demo has shown what it is there to show."""
    lines = output.splitlines()
    assert "\033" not in output
    for number in (1, 2):
        killed = next(line for line in lines if f"worker {number} killed with SIGKILL" in line)
        assert re.search(r"[1-9]\d* PENDING, [1-9]\d* COMPENSATING", killed)
    orders = [line for line in lines if re.match(r"A-\d{3} ", line)]
    assert len(orders) == 36
    assert sum(" COMPLETED " in f"{line} " for line in orders) == 18
    assert sum(" FAILED " in line for line in orders) == 18
    for reason in (
        "reserve_inventory: fewer than 1 of scale left",
        "process_payment: the card has expired",
        "create_shipment: nobody delivers to AQ",
        "send_confirmation: 'vera.koch@' is no mail address",
        "the saga: the mail to fiona.walsh@full.example came back",
    ):
        assert any(line.endswith(reason) for line in orders), reason
    assert any(" running" in line for line in orders)
    assert any(" undoing" in line for line in orders)
    timeline = lines[next(i for i, line in enumerate(lines) if line.startswith("Order A-")) :]
    events = "\n".join(timeline)
    assert re.search(r"turns round.*worker \d is killed.*worker \d starts.*undone", events, re.S)
    found = [(line.split()[0], line.split()[1]) for line in lines[lines.index("Audit") + 1 :][:7]]
    assert found == [("ok", name) for name in [*CHECKS, "kills"]]


@pytest.mark.slow
def test_demo_on_sqlite(tmp_path: Path) -> None:
    """By itself the demo kills, resumes and balances on SQLite, and leaves nothing behind."""
    done = run_demo(folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    check_output(done.stdout)
    assert "on sqlite" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
def test_demo_on_postgresql(database: str, tmp_path: Path) -> None:
    """With a database given it does the same there; the sagas stay, the services' data goes."""
    done = run_demo(url=database, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    check_output(done.stdout)
    assert "on postgresql" in done.stdout
    assert done.stderr == ""
    with SagaClient(database) as client:
        assert len(client.list(name="fulfil_order")) == 36
        assert len(client.list(name="fulfil_order", status=SagaStatus.FAILED)) == 18
    assert "demo_" not in " ".join(schemas(database))
    assert list(tmp_path.iterdir()) == []


def schemas(url: str) -> list[str]:
    """The schemas of a PostgreSQL database."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        return sa.inspect(engine).get_schema_names()
    finally:
        engine.dispose()


TAMPERED = """
import sqlalchemy as sa
from examples.order_fulfillment import demo
from examples.order_fulfillment.services import store

tell = demo.tell

def tell_and_tamper(*args):
    lives = tell(*args)
    with store.open_session.begin() as session:
        session.execute(sa.text("UPDATE stock SET pieces = pieces + 1 WHERE sku = 'cup'"))
    return lives

demo.tell = tell_and_tamper
raise SystemExit(demo.main())
"""


@pytest.mark.slow
def test_demo_fails_when_the_books_do_not_balance(tmp_path: Path) -> None:
    """One piece too many on the shelf makes the whole demo fail, and it says which and where."""
    done = run_demo("-c", TAMPERED, folder=tmp_path)
    assert done.returncode == 1
    assert re.search(r"^WRONG  stock .*\n +cup: 80 at first, but \d+ left", done.stdout, re.M)
    assert "The audit found something wrong: stock." in done.stdout
    [kept] = tmp_path.iterdir()
    assert f"Kept for a look: {kept}" in done.stdout
    assert (kept / "services.sqlite").exists()


BROKEN = """
from examples.order_fulfillment import demo, process

process.MODULE = "examples.no_such_module"
raise SystemExit(demo.main())
"""


@pytest.mark.slow
def test_demo_shows_the_log_of_a_worker_that_fails(tmp_path: Path) -> None:
    """A worker that cannot run ends the demo at once, with the end of its log."""
    done = run_demo("-c", BROKEN, folder=tmp_path)
    assert done.returncode == 1
    assert "Worker 1 failed with code 1" in done.stdout
    assert "No module named examples.no_such_module" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("url", ["nonsense", "postgresql://nobody:secret@127.0.0.1:1/none"])
def test_demo_without_its_database(url: str, tmp_path: Path) -> None:
    """A database that cannot be used is told in one sentence, without its password."""
    done = run_demo(url=url, folder=tmp_path)
    assert done.returncode == 1
    assert "The demo failed." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def services(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[sa.Engine]:
    """The four services, at hand, with their shelves full."""
    monkeypatch.setattr(store, "LATENCY", 0)
    url = sa.make_url(f"sqlite:///{tmp_path / 'services.sqlite'}")
    if backend == "postgres":
        given = request.getfixturevalue("database")
        url = sa.make_url(given).set(drivername="postgresql+psycopg")
    with store.connected(url.render_as_string(hide_password=False)) as engine:
        inventory.stock_up({p.sku: p.pieces for p in load_products().values()})
        yield engine


ORDER = load_orders()[0]

Action = Callable[..., Any]

SERVICES: dict[str, tuple[Action, Action]] = {
    "reservation": (
        partial(inventory.reserve, ORDER.order_id, ORDER.quantities),
        inventory.release,
    ),
    "payment": (
        partial(payments.capture, ORDER.order_id, ORDER.card, ORDER.cents),
        partial(payments.refund, ORDER.cents),
    ),
    "shipment": (partial(shipping.book, ORDER.order_id, 1, ORDER.country), shipping.cancel),
    "confirmation": (partial(mail.send, ORDER.order_id, ORDER.mail, "Dear"), mail.retract),
}
"""What each service does for one order, and how it undoes it."""

each_service = pytest.mark.parametrize("kind", SERVICES)


@pytest.mark.usefixtures("services")
@each_service
def test_service_does_it_once(kind: str) -> None:
    """A second call under the same key changes nothing and gets the first one's answer."""
    do, _ = SERVICES[kind]
    first = do(key="k:1")
    once = read_books()
    assert do(key="k:1") == first
    twice = read_books()
    assert [deed.repeats for deed in twice.deeds] == [1]
    assert replace(twice, deeds=()) == replace(once, deeds=())
    assert do(key="k:2") != first


@pytest.mark.usefixtures("services")
@each_service
def test_service_undoes_it_once(kind: str) -> None:
    """A second undo under the same key changes nothing."""
    do, undo = SERVICES[kind]
    before = read_books()
    do(key="k:1")
    undo(key="k:1")
    undone = read_books()
    undo(key="k:1")
    assert undone.stock == before.stock
    assert undone.reserved == ()
    assert sum(m.captured - m.refunded for m in undone.money) == 0
    assert [(deed.kind, deed.undone) for deed in undone.deeds] == [(kind, True)]
    again = read_books()
    assert replace(again, deeds=()) == replace(undone, deeds=())
    assert [deed.repeats for deed in again.deeds] == [1]


@pytest.mark.usefixtures("services")
@each_service
def test_service_refuses_to_undo_what_was_not_done(kind: str) -> None:
    """An undo under a key that nothing was done under is refused, and changes nothing."""
    do, undo = SERVICES[kind]
    do(key="k:1")
    before = read_books()
    with pytest.raises(store.NothingToUndoError, match="k:2"):
        undo(key="k:2")
    assert read_books() == before


@pytest.mark.usefixtures("services")
@each_service
def test_service_called_twice_at_once(kind: str) -> None:
    """Calls under one key that meet in the service have one effect and one answer."""
    do, _ = SERVICES[kind]
    with ThreadPoolExecutor(8) as pool:
        answers = {call.result() for call in [pool.submit(do, key="k:1") for _ in range(8)]}
    assert len(answers) == 1
    assert [(deed.kind, deed.repeats) for deed in read_books().deeds] == [(kind, 7)]


@pytest.mark.usefixtures("services")
def test_shelf_is_never_oversold() -> None:
    """Of many orders at once for the last pieces, as many succeed as there are pieces."""

    def reserve(number: int) -> bool:
        try:
            inventory.reserve(f"A-{number}", {"cup": 1, "print": 1}, key=f"k:{number}")
        except inventory.OutOfStockError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(reserve, range(8))) == 3
    books = read_books()
    assert (books.stock["print"], books.stock["cup"]) == (0, 77)


def fulfil(order: Order) -> SagaStatus:
    """What the saga does, by hand and without any saga."""
    done: list[Action] = []
    try:
        for number, (do, undo) in enumerate(
            (
                (partial(inventory.reserve, order.order_id, order.quantities), inventory.release),
                (
                    partial(payments.capture, order.order_id, order.card, order.cents),
                    partial(payments.refund, order.cents),
                ),
                (partial(shipping.book, order.order_id, 1, order.country), shipping.cancel),
                (partial(mail.send, order.order_id, order.mail, "Dear"), mail.retract),
            )
        ):
            key = f"{order.order_id}:{number}"
            do(key=key)
            done.append(partial(undo, key=key))
    except store.RefusedError:
        for undo in reversed(done):
            undo()
        return SagaStatus.FAILED
    return SagaStatus.COMPLETED


def wrong(ends: dict[str, SagaStatus]) -> dict[str, tuple[str, ...]]:
    """The checks that find something, and what."""
    checks = audit(load_orders(), load_products(), ends, read_books())
    assert [check.name for check in checks] == CHECKS
    return {check.name: check.problems for check in checks if check.problems}


@pytest.fixture
def ends(services: sa.Engine) -> dict[str, SagaStatus]:
    """All orders, run through the services: A-101 is fulfilled, A-104 was undone."""
    return {order.order_id: fulfil(order) for order in load_orders()}


def test_audit_of_sound_books(ends: dict[str, SagaStatus]) -> None:
    """Where everything was done or undone, the audit finds nothing."""
    assert (ends["A-101"], ends["A-104"]) == (SagaStatus.COMPLETED, SagaStatus.FAILED)
    assert wrong(ends) == {}


TAMPERINGS = {
    "a piece too many": (
        "UPDATE stock SET pieces = pieces + 1 WHERE sku = 'teapot'",
        {"stock": r"teapot: 30 at first, but \d+ left"},
    ),
    "a product is gone": (
        "DELETE FROM stock WHERE sku = 'kettle'",
        {"stock": "kettle: 25 at first, but 0 left"},
    ),
    "released though shipped": (
        "UPDATE reservations SET undone = true WHERE order_id = 'A-101'",
        {"stock": "A-101 holds {}, not {'cup': 2, 'beans': 1}"},
    ),
    "held though undone": (
        "UPDATE reservations SET undone = false WHERE order_id = 'A-104'",
        {"stock": "A-104 holds .*, not {}"},
    ),
    "one piece too few in the parcel": (
        "UPDATE reserved_lines SET pieces = 1 WHERE sku = 'cup' AND pieces = 2",
        {"stock": "A-101 holds"},
    ),
    "refunded though shipped": (
        "UPDATE payments SET refunded = captured WHERE order_id = 'A-101'",
        {"money": "A-101: 0.00 kept, 39.70 due"},
    ),
    "not refunded": (
        "UPDATE payments SET refunded = 0 WHERE order_id = 'A-104'",
        {"money": "A-104: 78.35 kept, 0.00 due"},
    ),
    "refunded twice": (
        "UPDATE payments SET refunded = 2 * refunded WHERE order_id = 'A-104'",
        {"money": "A-104: -78.35 kept", "once": "A-104: 156.70 refunded of 78.35"},
    ),
    "a cent short": (
        "UPDATE payments SET captured = captured - 1 WHERE order_id = 'A-101'",
        {"money": "A-101: 39.69 kept, 39.70 due"},
    ),
    "never paid": (
        "DELETE FROM payments WHERE order_id = 'A-101'",
        {"money": "A-101: 0.00 kept, 39.70 due"},
    ),
    "shipment cancelled": (
        "UPDATE shipments SET undone = true WHERE order_id = 'A-101'",
        {"shipments": "A-101 has 0, not 1"},
    ),
    "shipped twice": (
        "INSERT INTO shipments (key, order_id, undone, repeats, reservation, carrier) "
        "VALUES ('other', 'A-101', false, 0, 1, 'x')",
        {"shipments": "A-101 has 2, not 1", "once": "A-101: shipment made 2 times"},
    ),
    "shipped and cancelled before": (
        "INSERT INTO shipments (key, order_id, undone, repeats, reservation, carrier) "
        "VALUES ('other', 'A-101', true, 0, 1, 'x')",
        {"once": "A-101: shipment made 2 times"},
    ),
    "confirmed though undone": (
        "INSERT INTO messages (key, order_id, undone, repeats, address, text, bounced) "
        "VALUES ('other', 'A-104', false, 0, 'x', 'x', false)",
        {"confirmations": "A-104 has 1, not 0"},
    ),
    "not confirmed": (
        "DELETE FROM messages WHERE order_id = 'A-101'",
        {"confirmations": "A-101 has 0, not 1"},
    ),
    "a stranger": (
        "INSERT INTO payments (key, order_id, undone, repeats, captured, refunded) "
        "VALUES ('other', 'A-999', true, 0, 5, 5)",
        {"once": "payment for A-999, which nobody ordered"},
    ),
}


on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.parametrize("what", TAMPERINGS)
def test_audit_of_tampered_books(
    what: str, ends: dict[str, SagaStatus], services: sa.Engine
) -> None:
    """Whatever is wrong in the services' data, the audit names it, and nothing else."""
    statement, expected = TAMPERINGS[what]
    with services.begin() as connection:
        assert connection.execute(sa.text(statement)).rowcount > 0
    found = wrong(ends)
    assert found.keys() == expected.keys()
    for name, pattern in expected.items():
        assert re.search(pattern, "\n".join(found[name])), found


@on_sqlite
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"A-101": SagaStatus.PENDING}, {"sagas", "stock", "money", "shipments", "confirmations"}),
        ({"A-104": SagaStatus.COMPENSATING}, {"sagas"}),
        ({"A-104": SagaStatus.PARKED}, {"sagas"}),
        ({"A-101": SagaStatus.FAILED}, {"stock", "money", "shipments", "confirmations"}),
        ({"A-104": SagaStatus.COMPLETED}, {"stock", "money", "shipments", "confirmations"}),
        ({"A-104": None}, {"sagas"}),
    ],
)
def test_audit_of_wrong_ends(
    ends: dict[str, SagaStatus], changes: dict[str, SagaStatus | None], expected: set[str]
) -> None:
    """A saga that has not ended, or ended otherwise than the books say, is named."""
    changed = {key: s for key, s in {**ends, **changes}.items() if s is not None}
    found = wrong(changed)
    assert found.keys() == expected
    assert all(order_id in found[name][-1] for order_id in changes for name in expected)


def test_kills_that_met_nothing() -> None:
    """A demo whose kills met no saga both ways is one that proved nothing, and says so."""
    now = datetime.now(UTC)

    def check(**statuses: SagaStatus) -> Check:
        return check_kills([Life(1, now, now, statuses)])

    assert check(a=SagaStatus.PENDING, b=SagaStatus.COMPENSATING).problems == ()
    assert check(b=SagaStatus.COMPENSATING).problems == ("no saga was killed while running",)
    assert check(a=SagaStatus.PENDING).problems == ("no saga was killed while undoing",)
    assert len(check(a=SagaStatus.COMPLETED, b=SagaStatus.FAILED).problems) == 2


def test_every_kind_of_deed_is_tested() -> None:
    """The tests above go through every service that the audit knows."""
    assert SERVICES.keys() == KINDS.keys()
