"""The demo: real work of very unequal tenants, watched while it is shared out.

`sources` finds the tenants and their files, `survey` is the actor that reads one file, `workload` sends everything and
runs it, `fairness` computes what is told about it, `report` puts that together, `screen` draws it, and `command` is
what the command line calls.
"""
