"""The APIs that clients speak, one package each, and what reading and writing them shares."""
