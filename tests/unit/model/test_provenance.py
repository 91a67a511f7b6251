"""What a result says of the command that made it."""

from __future__ import annotations

import pytest

from fasp_core.model.provenance import started_as


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["/usr/bin/python3.11", "-m", "fasp_core", "score", "--axis", "age"], "python -m fasp_core score --axis age"),
        (["python", "-X", "dev", "-m", "fasp_core.contexts"], "python -m fasp_core.contexts"),
        (["python", "/x/.venv/bin/streamlit", "run", "app.py"], "streamlit run app.py"),
        (["python", "run.py", "two words"], "run.py 'two words'"),
        (["python", "-c", "import fasp_core"], "python"),
        (["python"], "python"),
    ],
)
def test_the_command_is_one_that_repeats_it(argv: list[str], told: str) -> None:
    assert started_as(argv) == told
