"""What every process of Vilix has: settings, telemetry, certificates, failures, heartbeats, and a watch on its event loop."""
