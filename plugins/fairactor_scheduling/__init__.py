"""Scheduling: tasks that are sent at certain times, by cron expressions, intervals or once.

A schedule belongs to a tenant, and its runs go into that tenant's mailbox. Runtimes with this plugin keep to the
schedules together: each run is sent once, in one step with noting that it was, however many they are and whatever
becomes of them. Add schedules with `Schedules`, or declare them with ``@schedule`` on an actor.
"""

from ._declared import schedule
from ._plugin import Scheduling
from ._schedule import Schedule, ScheduleNotFound, ScheduleRun, planned_time
from ._schedules import Schedules

__all__ = ["Schedule", "ScheduleNotFound", "ScheduleRun", "Schedules", "Scheduling", "planned_time", "schedule"]
