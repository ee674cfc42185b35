"""What one of several nodes has more: a lease in etcd, an inbox in Kafka, and who else lives."""
