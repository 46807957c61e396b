"""The services of Vilix, and what they share."""
