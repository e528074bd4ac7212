"""The bulkhead: the slots, the line of those who wait, and where they sleep."""
