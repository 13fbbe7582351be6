"""The read model for operators: lists of tasks, tenants, queues and workers, history, and changes to many tasks."""
