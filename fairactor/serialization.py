"""Serialization of arguments and results: the converter between Python and JSON types.

fairactor converts the common types itself, and checks them; docs/tasks.md lists them. For your own types, register
structure and unstructure hooks on `converter`, in the processes that send and in those that run tasks; see
https://catt.rs.
"""

from ._actors.conversion import converter, encode_json, value_from_json, value_to_json

__all__ = ["converter", "encode_json", "value_from_json", "value_to_json"]
