"""Traces of requests, exported over OTLP. Nothing here imports the SDK of OpenTelemetry but `otlp`."""
