"""Engines: what trains packs. This machine's processes (`local`), or another scheduler's, found by entry point."""
