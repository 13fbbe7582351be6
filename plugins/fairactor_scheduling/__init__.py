"""Scheduling: tasks that are sent at given times, by cron expressions, at intervals or once.

A schedule belongs to a tenant, and its runs go into the tenant's mailbox. All runtimes with this plugin carry out the
schedules together. Each run is sent exactly once, even if processes crash: the script that sends it also moves the
schedule on. Add schedules with `Schedules`, or declare them with ``@schedule`` on an actor.
"""

from ._declared import schedule
from ._options import ScheduleOptions
from ._plugin import Scheduling
from ._schedule import Schedule, ScheduleNotFound, ScheduleRun, planned_time
from ._schedules import Schedules

__all__ = [
    "Schedule",
    "ScheduleNotFound",
    "ScheduleOptions",
    "ScheduleRun",
    "Schedules",
    "Scheduling",
    "planned_time",
    "schedule",
]
