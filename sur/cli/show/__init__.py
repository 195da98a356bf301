"""How commands print what they show; nothing here reads a store."""
