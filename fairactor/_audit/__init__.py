"""The audit: reads a whole namespace and reports inconsistencies."""
