"""Running a page without a browser."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def run(at: AppTest) -> AppTest:
    """Run the page again; whatever it raises fails the test."""
    at.run()
    assert not at.exception, [e.value for e in at.exception]
    return at
