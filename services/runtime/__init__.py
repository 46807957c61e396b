"""Code of every process of Vilix: settings, telemetry, certificates, failures, heartbeats, event loop monitoring."""
