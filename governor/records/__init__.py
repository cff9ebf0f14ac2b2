"""Run records: what a governed run did, as an append-only file of JSON lines."""
