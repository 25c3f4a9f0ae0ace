"""The limit on BLAS is the process's: the last who leaves lifts it."""

import numpy  # noqa: F401  (loads a BLAS)
from threadpoolctl import threadpool_info, threadpool_limits

from transforms.linalg import blas


def num_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_limit_holds_until_the_last_holder_leaves() -> None:
    first, second = blas.one_thread(), blas.one_thread()
    with threadpool_limits(limits=2, user_api="blas"):
        first.__enter__()
        assert num_threads() == {1}
        second.__enter__()
        first.__exit__(None, None, None)
        assert num_threads() == {1}
        second.__exit__(None, None, None)
        assert num_threads() == {2}


def test_limit_is_lifted_after_an_error() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        try:
            with blas.one_thread():
                raise KeyError
        except KeyError:
            pass
        assert num_threads() == {2}
