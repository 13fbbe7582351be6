"""The data model: states, key names, records, and the packing of values. No I/O here."""
