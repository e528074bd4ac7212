"""The bulkhead: its slots, its queue, and where waiting callers sleep."""
