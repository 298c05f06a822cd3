"""Dashboards as code: one query file per panel, the panels that show them, and the JSON that Grafana loads."""
