"""The loops that drive stages over Kafka: read, step, write, act."""
