"""How arguments and results travel: the converter between Python and JSON types.

Register structure and unstructure hooks on it for types of your own, in the processes that send and in those that run
tasks. See https://catt.rs for what it knows by itself.
"""

from ._actors.conversion import converter, encode_json

__all__ = ["converter", "encode_json"]
