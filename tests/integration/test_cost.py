"""Promise 6: nothing extra when all goes well."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID

import sagas
from sagas import saga
from steps import step


def work(number: int) -> int:
    return number


def undo(result: int) -> None:
    raise AssertionError("nothing is undone here")


@step(undo=undo)
def our_step(number: int) -> int:
    return work(number)


@saga
def ours() -> int:
    return sum(our_step(n) for n in range(4))


@DBOS.step(name="bare_step")
def bare_step(number: int) -> int:
    return work(number)


@DBOS.workflow(name="bare")
def bare() -> int:
    return sum(bare_step(n) for n in range(4))


@step(undo=undo)
async def our_step_async(number: int) -> int:
    return work(number)


@saga
async def ours_async() -> int:
    return sum([await our_step_async(n) for n in range(4)])


@DBOS.step(name="bare_step_async")
async def bare_step_async(number: int) -> int:
    return work(number)


@DBOS.workflow(name="bare_async")
async def bare_async() -> int:
    return sum([await bare_step_async(n) for n in range(4)])


def rows_of(url: str, saga_id: str) -> Counter[str]:
    """How many rows each table has for a workflow."""
    schema = "dbos" if url.startswith("postgres") else None
    engine = sa.create_engine(sa.make_url(url.replace("postgresql:", "postgresql+psycopg:")))
    found: Counter[str] = Counter()
    with engine.connect() as connection:
        for table in sa.inspect(engine).get_table_names(schema=schema):
            columns = [c["name"] for c in sa.inspect(engine).get_columns(table, schema=schema)]
            for key in ("workflow_uuid", "destination_uuid"):
                if key in columns:
                    name = f'"{schema}"."{table}"' if schema else f'"{table}"'
                    query = f"SELECT count(*) FROM {name} WHERE {key} = :id"
                    count = connection.execute(sa.text(query), {"id": saga_id}).scalar()
                    found[table] += int(count or 0)
    engine.dispose()
    return +found


class Statements:
    """The SQL of one workflow, as it passes any engine of this process."""

    def __init__(self, saga_id: str) -> None:
        self.saga_id = saga_id
        self.texts: list[str] = []

    def _see(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        supervisor = threading.current_thread().name == "sagas-supervisor"  # it looks at any time
        if self.saga_id in str(parameters) and not supervisor:
            self.texts.append(" ".join(statement.split()))

    def __enter__(self) -> Statements:
        sa.event.listen(sa.Engine, "before_cursor_execute", self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(sa.Engine, "before_cursor_execute", self._see)


@saga(timeout=60)
def ours_limited() -> int:
    return sum(our_limited_step(n) for n in range(4))


@step(undo=undo, timeout=30, undo_when="completed")
def our_limited_step(number: int) -> int:
    return work(number)


@saga(timeout=60)
async def ours_limited_async() -> int:
    return sum([await our_limited_step_async(n) for n in range(4)])


@step(undo=undo, timeout=30, undo_when="attempted")
async def our_limited_step_async(number: int) -> int:
    return work(number)


OURS: dict[str, Any] = {
    "sync": ours,
    "async": ours_async,
    "sync limited": ours_limited,
    "async limited": ours_limited_async,
}


@pytest.mark.parametrize("limit", [None, 50])
@pytest.mark.parametrize("name", OURS)
def test_a_success_writes_and_asks_nothing_more(
    shared_app: sagas.Launched, name: str, limit: float | None
) -> None:
    """
    A saga's success has the rows and the SQL of the same steps in a bare DBOS workflow.

    Time limits change nothing of that.
    """
    url = shared_app.config["system_database_url"]
    kind = name.split()[0]
    label = f"{name.replace(' ', '-')}-{limit or 'none'}"
    ours_id, bare_id = f"cost-ours-{label}", f"cost-bare-{label}"

    def run_ours(saga_id: str) -> None:
        OURS[name].options(saga_id=saga_id, timeout=limit).run()

    def run_bare(saga_id: str) -> None:
        with SetWorkflowID(saga_id):
            if kind == "sync":
                assert bare() == 6
            else:
                asyncio.run(_run_bare_async())

    async def _run_bare_async() -> None:
        handle = await DBOS.start_workflow_async(bare_async)
        assert await handle.get_result() == 6

    run_ours("warm-" + ours_id)  # the first statement of an engine may be preceded by others
    run_bare("warm-" + bare_id)
    with Statements(ours_id) as our_sql:
        run_ours(ours_id)
    with Statements(bare_id) as bare_sql:
        run_bare(bare_id)
    assert rows_of(url, ours_id) == rows_of(url, bare_id)
    assert rows_of(url, ours_id)["operation_outputs"] == 4
    assert len(bare_sql.texts) > 8
    assert our_sql.texts == bare_sql.texts
