"""The store on PostgreSQL: the server a node brings along, the schema, and every statement."""
