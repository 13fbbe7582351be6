"""The demo: the real work of very unequal tenants, and how fairactor shares the workers among them.

`sources` finds the tenants and their files. `survey` is the actor that reads one file. `workload` sends all tasks and
runs them. `fairness` computes the figures, `report` collects them, and `screen` displays them. `command` connects these
parts for the command line.
"""
