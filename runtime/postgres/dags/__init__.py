"""Runs of DAGs in PostgreSQL: begun, advanced, stopped, ended, and forgotten."""
