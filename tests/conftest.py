"""What several tests share: the data that may stand beside the checkout, and pipelines on the in-process runner."""

from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability import fn_api_runner

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data for tests; never part of the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the shared data is not beside this checkout")
    return SHARED / "data"


@pytest.fixture
def new_pipeline() -> Callable[[], beam.Pipeline]:
    """Makes pipelines on the runner that fusefeed uses locally."""
    return lambda: beam.Pipeline(runner=fn_api_runner.FnApiRunner())
