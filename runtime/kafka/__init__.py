"""Kafka through aiokafka: how nodes reach each other's actors. Imported only where it is set up."""
