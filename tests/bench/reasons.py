"""Why a goal is missed, in words and with the profile that shows it; the page quotes what stands here about what it has found missed."""

from __future__ import annotations

from collections.abc import Mapping

MISSED: Mapping[tuple[str, str], str] = {}
"""The reason by the row's work and what; `python -m tests.bench NAME --profile` shows where the time of a workload goes."""
