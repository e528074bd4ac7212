"""The bulkhead: its slots, its queue, and the gates at which waiting callers sleep."""
