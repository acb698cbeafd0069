"""What calls of handlers need: threads for `def`, and which frames of a traceback are theirs."""
