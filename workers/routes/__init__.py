"""What a registry of handlers says about events: task, queue, order, business key, coverage."""
