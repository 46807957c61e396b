"""The local stack: the whole system on one machine, which `vilix up` starts and keeps running."""
