"""The system on one machine: what `vilix up` starts, and how it keeps it running."""
