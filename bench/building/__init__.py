"""How fast shards are built."""
