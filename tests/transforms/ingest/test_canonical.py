import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from transforms.ingest import canonical, python_values
from transforms.ingest.row_errors import RowErrors
from transforms.tables.counts import field_counts


def _codes(errors: RowErrors) -> list[str]:
    """The code of each row, "" for good ones."""
    rejects = errors.to_block("file", np.arange(errors.num_rows), None, by_record=False)
    found = dict(zip(rejects.column("line").to_pylist(), rejects.column("code").to_pylist(), strict=True))
    return [found.get(row, "") for row in range(errors.num_rows)]


@pytest.mark.parametrize("table", canonical.TABLES.values(), ids=lambda table: table.name)
def test_every_column_has_a_role_that_all_readers_know(table: canonical.Table) -> None:
    assert list(table.roles) == table.schema.names
    for role in table.roles.values():
        assert role in canonical.ROLES and role in python_values.ROLES
    assert {table.key, *table.same, *table.order} <= set(table.schema.names)


def test_missing_columns_are_null_and_sensitive_is_false() -> None:
    errors = RowErrors(2)
    block = canonical.canonical(canonical.POSTS, {"post_id": pa.array([1, None]), "text": pa.nulls(2)}, errors)
    assert block.schema.names == canonical.POSTS.schema.names
    assert block.schema.types == canonical.POSTS.schema.types
    row = block.to_pylist()[0]
    assert {name: value for name, value in row.items() if value is not None} == {"post_id": "1", "sensitive": False}
    assert _codes(errors) == ["", "id_missing"]


def test_of_several_errors_that_of_the_first_column_counts() -> None:
    rows = {
        "text": pa.array([1, 1, 1]),
        "created_at": pa.array(["soon", None, None]),
        "post_id": pa.array(["a", None, "b\n"]),
    }
    for found in (rows, dict(reversed(rows.items()))):
        errors = RowErrors(3)
        canonical.canonical(canonical.POSTS, found, errors)
        codes = _codes(errors)
        assert codes == ["time_invalid", "id_missing", "id_invalid"]


def test_an_error_of_the_whole_line_counts_before_all_others() -> None:
    errors = RowErrors(2)
    errors.reject(np.array([True, True]), "field_invalid", "text is no string", 6)
    errors.reject_row(1, "row_malformed", "no JSON")
    errors.reject(np.array([True, True]), "id_missing", "post_id is missing or empty", 1)
    block = errors.to_block("f", np.array([7, 8]), None, by_record=False)
    assert block.column("code").to_pylist() == ["id_missing", "row_malformed"]
    assert block.column("line").to_pylist() == [7, 8]


def test_names_that_no_field_has_are_counted_together() -> None:
    counts = field_counts({"likes": 2, "geo.lat": 1, "@type": 1, "a b": 3, "12": 4, "x" * 65: 5})
    assert counts == {"likes": 2, "geo.lat": 1, "@type": 1, "(other)": 12}


def test_rows_from_the_end_of_the_run_on_are_rejects() -> None:
    end = 1_704_153_600_000_000  # 2024-01-02
    rows = {
        "user_id": pa.array(["a", "b", "c", "d", None]),
        "post_id": pa.array(["p"] * 5),
        "created_at": pa.array(
            ["2024-01-01T23:59:59.999999Z", "2024-01-02", "2024-01-02T00:30:00+01:00", None, "2025"]
        ),
    }
    for until, later in ((None, []), (end, [1])):
        errors = RowErrors(5)
        canonical.canonical(dataclasses.replace(canonical.INTERACTIONS, until=until), rows, errors)
        codes = _codes(errors)
        assert [row for row, code in enumerate(codes) if code == "after_run_date"] == later
        assert codes[4] == "id_missing"
