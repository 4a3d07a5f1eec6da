"""The broker's store: SQLite, or PostgreSQL shared by several brokers; schema, leadership, backup."""
