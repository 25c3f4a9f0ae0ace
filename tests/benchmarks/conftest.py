"""Benchmarks that start whole commands take a minute each: they run where FUSEFEED_SLOW_TESTS is set."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes a minute or more; set FUSEFEED_SLOW_TESTS=1 to run it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("FUSEFEED_SLOW_TESTS", "0") in ("", "0"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes a minute or more; set FUSEFEED_SLOW_TESTS=1 to run it"))
