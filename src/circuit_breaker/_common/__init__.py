"""What breaker, retry and bulkhead share. Nothing here knows any of the three."""
