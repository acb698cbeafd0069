"""Redis: key names, entries, clients, topology, fail-over, and the loading of Lua scripts."""
