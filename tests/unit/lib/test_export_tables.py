"""Tables of an export: found by files and lists, with the types that PostgreSQL shall have."""

import json

import pyarrow as pa

from cpm.lib.export_tables import Column, columns, is_info, of_arrow, tables


def told(name: str, kind: str, **more: int) -> dict[str, object]:
    return {"columnName": name, "originalType": kind, **more}


def test_tables_are_those_of_the_lists_and_of_the_files() -> None:
    types = [
        told("id", "bigint"), told("code", "character varying", originalCharMaxLength=12),
        told("at", "timestamp without time zone", originalDateTimePrecision=3), told("tags", "ARRAY"),
    ]  # fmt: skip
    status = {"status": "COMPLETE", "schemaMetadata": {"originalTypeMappings": types}}
    content = {"perTableStatus": [{"target": "app.sales.or ders", **status}, {"target": "app.public.empty", **status}]}
    files = ["app/sales.or_ders/1/part-1.gz.parquet", "app/sales.or_ders/1/_SUCCESS", "app/public.new/1/part-0.gz.parquet"]

    found = tables([*files, "export_info_x.json"], [json.dumps(content).encode()])

    assert is_info("export_tables_info_x_from_1_to_2.json") and not is_info("export_info_x.json")
    assert [(one.target, len(one.files)) for one in found] == [
        ("app.public.empty", 0), ("app.public.new", 1), ("app.sales.or ders", 1),
    ]  # fmt: skip
    schema = pa.schema([("id", pa.int64()), ("code", pa.string()), ("at", pa.string()), ("tags", pa.list_(pa.string()))])
    assert columns(found[2], schema) == [
        Column("id", "bigint"), Column("code", "character varying(12)"), Column("at", "timestamp(3) without time zone"),
        Column("tags", "text[]"),
    ]  # fmt: skip
    assert columns(found[0], None)[3] == Column("tags", "text")


def test_columns_that_no_list_tells_of_have_the_types_of_their_files() -> None:
    kinds = [pa.decimal128(10, 2), pa.binary(), pa.date32(), pa.float32(), pa.list_(pa.int32()), pa.null()]

    assert [of_arrow(kind) for kind in kinds] == ["numeric", "bytea", "date", "real", "integer[]", "text"]
