"""The data model: states, key names, records, and how values are packed. No I/O here."""
