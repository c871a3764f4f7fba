"""How a store is kept on disk: shards, metadata, and building it without ever losing anything."""
