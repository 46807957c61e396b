"""The APIs that clients speak: one package for each, and here what they share."""
