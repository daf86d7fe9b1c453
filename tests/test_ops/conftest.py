"""Parametrises the tests of operators by the table of suites.

A test that takes ``suite`` runs for every suite, or for those of the classes in its mark
``suites``. With ``tiny``, ``case``, ``error_case`` or ``threaded`` it also runs for every entry of
that table, with ``implementation`` for the native operator and for its reference.
"""

import pytest
from suites import SUITES, Suite
from suites.compare import NATIVE_ONLY, threads

TABLES = {"tiny": "tiny", "case": "cases", "error_case": "errors", "threaded": "threaded"}


def pytest_generate_tests(metafunc) -> None:
    if "suite" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("suites")
    chosen = [s for s in SUITES.values() if issubclass(s, mark.args if mark else Suite)]
    table = next((name for name in TABLES if name in metafunc.fixturenames), None)
    if table is None:
        metafunc.parametrize("suite", chosen, ids=lambda suite: suite.name, indirect=True)
        return
    rows = [
        pytest.param(suite, row, id=f"{suite.name}-{key}")
        for suite in chosen
        for key, row in getattr(suite(), TABLES[table]).items()
    ]
    metafunc.parametrize(("suite", table), rows, indirect=["suite"])


@pytest.fixture
def suite(request) -> Suite:
    return request.param()


@pytest.fixture(params=[pytest.param("function", id="native", marks=NATIVE_ONLY), "reference"])
def implementation(request, suite):
    return getattr(suite, request.param)


@pytest.fixture(autouse=True)
def one_thread():
    # The tensors are tiny; waiting for each other would cost the threads more than they do.
    with threads(1):
        yield
