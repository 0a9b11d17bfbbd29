"""Reads the sealed Parquet files of a data directory with DuckDB and with pyarrow, as anybody may.

usage: read_parquet.py DATA_DIR

Prints one JSON object: for each engine the rows per service of spans, logs and metrics, the sum of all span durations,
and the columns of the spans with the types that the engine sees.
"""

import glob
import json
import sys

import duckdb
import pyarrow.compute as compute
import pyarrow.dataset as dataset


def files(data_dir, signal):
    found = glob.glob(f"{data_dir}/segments/{signal}/*/*.parquet")
    return sorted(name for name in found if not name.endswith(".series.parquet"))


def with_duckdb(data_dir):
    def rows(query, signal):
        source = f"read_parquet({files(data_dir, signal)!r}, union_by_name = true)"
        return duckdb.sql(query.format(source=source)).fetchall()

    # A metric point's service stands in its series, in the table beside it.
    metrics = duckdb.sql(
        f"""
        select json_extract_string(resource, '$."service.name"'), sum(rows)::bigint
        from read_parquet('{data_dir}/segments/metrics/*/*.series.parquet', union_by_name = true)
        group by 1
        """
    ).fetchall()
    by_service = "select service_name, count(*) from {source} group by 1"
    return {
        "spans": dict(rows(by_service, "spans")),
        "logs": dict(rows(by_service, "logs")),
        "metrics": dict(metrics),
        "duration_ns": int(rows("select sum(duration_ns) from {source}", "spans")[0][0]),
        "columns": {row[0]: row[1] for row in rows("describe select * from {source}", "spans")},
    }


def with_pyarrow(data_dir):
    def table(signal):
        return dataset.dataset(files(data_dir, signal), format="parquet").to_table()

    def by_service(names):
        counts = compute.value_counts(names.cast("string")).to_pylist()
        return {count["values"]: count["counts"] for count in counts}

    metrics = {}
    for name in sorted(glob.glob(f"{data_dir}/segments/metrics/*/*.series.parquet")):
        for row in dataset.dataset(name, format="parquet").to_table(["resource", "rows"]).to_pylist():
            service = json.loads(row["resource"])["service.name"]
            metrics[service] = metrics.get(service, 0) + row["rows"]
    spans = table("spans")
    return {
        "spans": by_service(spans["service_name"]),
        "logs": by_service(table("logs")["service_name"]),
        "metrics": metrics,
        "duration_ns": compute.sum(spans["duration_ns"]).as_py(),
        "columns": {field.name: str(field.type) for field in spans.schema},
    }


if __name__ == "__main__":
    data_dir = sys.argv[1]
    print(json.dumps({"duckdb": with_duckdb(data_dir), "pyarrow": with_pyarrow(data_dir)}))
