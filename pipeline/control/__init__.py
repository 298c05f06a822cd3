"""The control topic: what every process knows of tenants, keys, plans and models, and how operators change it."""
