"""What belongs to the process: signals, clock, garbage collector, parent, critical tasks."""
