"""The tab "Does the measure matter?"."""

from __future__ import annotations

import streamlit as st

from fasp_core.impacts.table import ImpactTable
from fasp_core.models import ModelSpec


def draw(spec: ModelSpec, axis: str, table: ImpactTable) -> None:
    st.info("soon")
