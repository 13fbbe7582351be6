"""XCom: small values that tasks share with other tasks of their tenant.

A value has a key and belongs to a task, and tasks belong to a *run*: those sent with the same ``xcom_run=``. A task
without it is a run by itself. A handler stores values with ``await xcom.push(…)``. They appear in the same step in
which its task finishes; those of a failed attempt are dropped. Others read them with ``await xcom.pull(…)`` in a
handler, or with `Values` from anywhere. No tenant sees the values of another.
"""

from ._values import MISSING, Value, Values
from ._xcom import XCom, xcom

__all__ = ["MISSING", "Value", "Values", "XCom", "xcom"]
