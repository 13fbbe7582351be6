"""XCom: small values that tasks leave for other tasks of their tenant.

A value has a key and belongs to a task, and tasks belong to a *run*: those that were sent with one ``xcom_run=``, or
else each task is a run of its own. A handler leaves values with ``await xcom.push(…)``; they are there when its task
has finished, in the same step, and what a failed attempt has left is gone. Others find them with ``await xcom.pull(…)``
in a handler, or with `Values` from anywhere. No tenant sees another's.
"""

from ._values import MISSING, Value, Values
from ._xcom import XCom, xcom

__all__ = ["MISSING", "Value", "Values", "XCom", "xcom"]
