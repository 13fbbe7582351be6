"""The audit: reads a whole namespace and reports what is inconsistent."""
