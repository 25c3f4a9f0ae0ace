from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from apache_beam.runners.portability import fn_api_runner

from transforms.tables import parquet, schemas
from transforms.text import tfidf_svd, vocabulary
from transforms.text.token_counts import text_terms

WORDS = ("football goal match striker league", "cooking soup onion butter oven")


def _units(rows: sp.csr_array, components: np.ndarray) -> np.ndarray:
    projected = rows @ components.astype(float)
    lengths = np.linalg.norm(projected, axis=1)
    return projected[lengths > 1e-9] / lengths[lengths > 1e-9, None]


def test_rows_of_length_one_are_summed_exactly_in_any_order() -> None:
    rng = np.random.default_rng(0)
    rows = sp.random_array((1000, 50), density=0.1, rng=rng, format="csr")
    components = np.linalg.qr(rng.standard_normal((50, 7)))[0].astype(np.float32)
    found = tfidf_svd.unit_sum(rows, components)
    expected = _units(rows, components)
    assert found.number == len(expected) < 1000
    np.testing.assert_allclose(found.total, expected.sum(axis=0), atol=1e-4)
    pieces = [tfidf_svd.unit_sum(rows[start : start + 77], components) for start in range(0, 1000, 77)]
    np.testing.assert_array_equal(np.sum([piece.total for piece in reversed(pieces)], axis=0), found.total)


def test_what_is_fitted_is_written_and_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = pa.array([None if i % 7 == 3 else " ".join(rng.choice(WORDS[i % 2].split(), 3)) for i in range(90)])
    terms, counts = text_terms(texts)
    posts = sorted((sum(word in row for row in terms.to_pylist() if row), word) for word in " ".join(WORDS).split())
    table = pa.RecordBatch.from_pylist([{"term": t, "posts": n} for n, t in posts[::-1]], schema=vocabulary.SCHEMA)
    parquet.write_file(str(tmp_path / "terms" / "part-00000.parquet"), table, vocabulary.SCHEMA)
    columns = [pa.array([f"p{i}" for i in range(90)]), pa.nulls(90, pa.string()), pa.nulls(90, schemas.TIMESTAMP)]
    schema = schemas.features({})
    block = pa.RecordBatch.from_arrays([*columns, terms, counts], schema=schema)
    for part in range(3):
        path = tmp_path / "features" / f"part-0000{part}.parquet"
        parquet.write_file(str(path), block.slice(part * 30, 30), schema)
    directories = [str(tmp_path / name) for name in ("features", "terms", "scratch")]
    num_texts = 90 - texts.null_count
    with beam.Pipeline(runner=fn_api_runner.FnApiRunner()) as root:
        _ = root | tfidf_svd.FitText(*directories, num_texts, 10, 4, str(tmp_path / "text"))
    fit = tfidf_svd.open_fit(str(tmp_path / "text"))
    assert fit is not None and (fit.num_terms, fit.width) == (10, 4)
    assert Path(fit.vocabulary).read_text().splitlines() == [f"{n} {term}" for n, term in posts[::-1]]
    fitted = fit.numbers()
    known = vocabulary.from_block(table, num_texts)
    rows = vocabulary.sparse_rows(terms, counts, known)
    np.testing.assert_allclose(fitted.idf, known.idf(), rtol=1e-6)
    singular = np.linalg.svd(rows.toarray(), compute_uv=False)[:4]
    np.testing.assert_allclose(np.linalg.norm(rows @ fitted.components, axis=0), singular, rtol=1e-3)
    np.testing.assert_allclose(fitted.mean, _units(rows, fitted.components).mean(axis=0), atol=2e-5)
