"""NOTIFY delivers alerts by signed webhooks and remembers each attempt."""
