"""Serialization of arguments and results: the converter between Python and JSON types.

Register structure and unstructure hooks on `converter` for your own types, in the processes that send and in those that
run tasks. See https://catt.rs for the types that it supports by default.
"""

from ._actors.conversion import converter, encode_json, value_from_json, value_to_json

__all__ = ["converter", "encode_json", "value_from_json", "value_to_json"]
