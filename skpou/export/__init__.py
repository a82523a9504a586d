"""Fitted means in C, SPICE, JSON and tables."""

from skpou.export.c_source import to_c
from skpou.export.json_text import SCHEMA, to_json
from skpou.export.spice import to_spice
from skpou.export.table import to_table

__all__ = ["SCHEMA", "to_c", "to_json", "to_spice", "to_table"]
